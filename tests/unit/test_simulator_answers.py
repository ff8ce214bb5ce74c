"""The simulator's answers: the same messages give the same answer, which names them, whatever model gives it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import Local
from vessel.simulator import expected_text
from vessel.simulator.answers import digest
from vessel.simulator.schema import example, lacks_strictness
from vessel.simulator.tokens import count_prompt, count_text, cut_text

GREETING = [{"role": "user", "content": "hello"}]


def user(text: str) -> list[dict[str, Any]]:
    """Say one thing."""
    return [{"role": "user", "content": text}]


def test_a_text_starts_with_the_digest_of_its_messages() -> None:
    """The digest is SHA-256 of canonical JSON, written out here once by hand."""
    canonical = '[{"content":"hello","role":"user"}]'
    mark = hashlib.sha256(canonical.encode()).hexdigest()[:16]
    assert expected_text(GREETING).startswith(f"[{mark}] ")


def test_canonical_json_is_utf8_with_sorted_keys() -> None:
    """Neither the order of keys nor escapes make a difference; beyond ASCII is UTF-8."""
    mark = hashlib.sha256('[{"content":"né 🚀","role":"user"}]'.encode()).hexdigest()[:16]
    assert digest([{"role": "user", "content": "né 🚀"}]) == mark
    assert digest(json.loads('[{"content":"n\\u00e9 \\ud83d\\ude80","role":"user"}]')) == mark


@given(st.text(max_size=300))
def test_an_answer_quotes_the_beginning_of_the_prompt(prompt: str) -> None:
    """Up to 60 characters of the last user text stand in the answer, whatever they are."""
    messages = [{"role": "system", "content": "Be brief."}, *user("before"), *user(prompt)]
    text = expected_text(messages)
    if "<<" not in prompt:
        assert prompt[:60] in text
        assert count_text(text) >= 8
    assert text == expected_text(json.loads(json.dumps(messages)), model="any/model")


def test_different_prompts_have_different_answers() -> None:
    """One character more is another answer, also beyond the part that is quoted."""
    texts = {expected_text(user("x" * size)) for size in range(200)}
    assert len(texts) == 200


def test_text_parts_are_read_as_one_text() -> None:
    """Content in parts is quoted too, images aside."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [{"type": "text", "text": "What is"}, image, {"type": "text", "text": "this?"}]
    assert '"What is this?"' in expected_text([{"role": "user", "content": parts}])


@pytest.mark.parametrize("tokens", [8, 9, 100, 4096])
def test_a_prompt_can_ask_for_a_length(tokens: int) -> None:
    """`<<tokens:N>>` gives a text of exactly N tokens."""
    assert count_text(expected_text(user(f"<<tokens:{tokens}>> é"))) == tokens


def test_the_servers_text_is_the_expected_one() -> None:
    """What a test expects without the server is what the server says."""
    sim = Local()
    answer = sim.chat("hello")
    assert answer.text == expected_text(GREETING)
    assert answer.json["usage"]["completion_tokens"] == count_text(expected_text(GREETING))
    assert answer.json["choices"][0]["finish_reason"] == "stop"


def test_a_budget_cuts_the_text() -> None:
    """The text is the beginning of the whole one, finish_reason length, and the budget is used up."""
    answer = Local().chat("hello", max_completion_tokens=5)
    assert answer.text == expected_text(GREETING)[:20]
    assert answer.json["choices"][0]["finish_reason"] == "length"
    assert answer.json["usage"]["completion_tokens"] == 5


@given(st.text(max_size=60), st.integers(0, 30))
def test_a_cut_is_between_characters(text: str, tokens: int) -> None:
    """A cut text is a beginning of the whole and within its budget."""
    cut = cut_text(text, tokens)
    assert text.startswith(cut)
    assert count_text(cut) <= tokens


def test_empty_and_absent_content_are_valid_answers() -> None:
    """Two marks in a prompt give the two answers that people forget."""
    sim = Local()
    empty, absent = sim.chat("<<empty>>").json["choices"][0], sim.chat("<<null>>", max_completion_tokens=64).json
    assert (empty["message"]["content"], empty["finish_reason"]) == ("", "stop")
    assert (absent["choices"][0]["message"]["content"], absent["choices"][0]["finish_reason"]) == (None, "length")
    assert absent["usage"]["completion_tokens"] == 64
    assert absent["usage"]["completion_tokens_details"] == {"reasoning_tokens": 64}


def test_a_stop_sequence_ends_the_text() -> None:
    """The text ends before the first stop sequence that it holds."""
    whole = expected_text(GREETING)
    assert Local().chat("hello", stop=["zzz", " asked"]).text == whole[: whole.index(" asked")]


def test_json_mode_answers_json_with_the_digest() -> None:
    """The answer is an object that holds the digest."""
    sim = Local()
    messages = user("Answer as JSON, please.")
    answer = sim.chat("Answer as JSON, please.", response_format={"type": "json_object"})
    assert json.loads(answer.text)["digest"] == f"[{digest(messages)}]"
    assert answer.text == expected_text(messages, response_format={"type": "json_object"})


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string"},
        "score": {"type": "integer", "minimum": 3, "maximum": 4},
        "mood": {"enum": ["good", "bad"]},
        "fixed": {"const": "yes"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "maybe": {"anyOf": [{"type": "null"}, {"type": "number"}]},
        "flag": {"type": ["boolean", "null"]},
        "when": {"type": "string", "format": "date"},
        "part": {"$ref": "#/$defs/part"},
    },
    "required": ["title", "score", "mood", "fixed", "tags", "maybe", "flag", "when", "part"],
    "additionalProperties": False,
    "$defs": {
        "part": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "more": {"$ref": "#/$defs/part"}},
            "required": ["name"],
        }
    },
}


def test_a_schema_is_filled_in() -> None:
    """Every property has a value of its type, and free strings hold the digest; endless schemas end."""
    found = example(SCHEMA, "[0123456789abcdef]")
    assert found["title"] == "[0123456789abcdef] simulated"
    assert found["score"] in {3, 4}
    assert found["mood"] in {"good", "bad"}
    assert found["fixed"] == "yes"
    assert [type(tag) for tag in found["tags"]] == [str, str]
    assert isinstance(found["maybe"], float)
    assert isinstance(found["flag"], bool)
    assert found["when"] == "2026-11-24"
    assert found["part"]["more"]["name"].startswith("[0123456789abcdef]")


def test_a_schema_reaches_the_answer() -> None:
    """A strict schema gives an answer that fits it."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    answer = Local().chat("hello", response_format=wanted)
    assert json.loads(answer.text) == {"a": f"[{digest(GREETING)}] simulated"}


def test_strictness_is_seen_at_every_depth() -> None:
    """Strict mode wants every object closed and every field required, inside arrays and definitions too."""
    closed = {"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}
    assert lacks_strictness(closed) is None
    assert "additionalProperties" in str(
        lacks_strictness({"type": "array", "items": closed | {"additionalProperties": True}})
    )
    assert "`required`" in str(lacks_strictness({"$defs": {"x": closed | {"required": []}}}))


def test_json_that_the_budget_cuts_is_a_failure() -> None:
    """Half an object is no JSON: 400 with what there was."""
    answer = Local().chat("as json", response_format={"type": "json_object"}, max_completion_tokens=3)
    assert (answer.status, answer.error["code"]) == (400, "json_validate_failed")
    assert len(answer.error["failed_generation"]) == 12


def test_thinking_can_eat_the_budget() -> None:
    """With an effort, thinking comes first: no content, or no JSON and an empty failed_generation."""
    sim = Local()
    answer = sim.chat("hello", reasoning_effort="high", max_completion_tokens=20).json
    assert (answer["choices"][0]["message"]["content"], answer["choices"][0]["finish_reason"]) == (None, "length")
    broken = sim.chat(
        "json", reasoning_effort="high", max_completion_tokens=20, response_format={"type": "json_object"}
    )
    assert (broken.status, broken.error["failed_generation"]) == (400, "")


def test_thinking_is_counted_and_shown_as_asked() -> None:
    """Thinking tokens are output tokens; the thoughts are shown, or not."""
    sim = Local()
    plain = sim.chat("hello").json
    shown, hidden = (
        sim.chat("hello", reasoning_effort="low").json,
        sim.chat("hello", reasoning_effort="low", include_reasoning=False).json,
    )
    extra = shown["usage"]["completion_tokens"] - plain["usage"]["completion_tokens"]
    assert shown["usage"]["completion_tokens_details"] == {"reasoning_tokens": extra} == {"reasoning_tokens": 16}
    assert "completion_tokens_details" not in plain["usage"]
    assert shown["choices"][0]["message"]["reasoning"]
    assert "reasoning" not in hidden["choices"][0]["message"]
    assert shown["choices"][0]["message"]["content"] == expected_text(GREETING)


def test_raw_thinking_stands_in_the_content() -> None:
    """A model with reasoning_format raw says its thoughts aloud."""
    text = Local().chat("hello", model="qwen/qwen3.8-27b", reasoning_effort="default", reasoning_format="raw").text
    assert text.startswith("<think>\n")
    assert text.endswith(expected_text(GREETING))


TOOL = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {"where": {"type": "string"}}}},
}


@pytest.mark.parametrize(
    ("prompt", "choice", "calls"),
    [
        ("hello", "auto", False),
        ("Please use the tool.", "auto", True),
        ("hello", "required", True),
        ("hello", {"type": "function", "function": {"name": "look"}}, True),
        ("use the tool", "none", False),
    ],
)
def test_functions_are_called_when_asked_for(prompt: str, choice: Any, *, calls: bool) -> None:
    """Required, named, or asked for in words: a call of the function, its arguments after its schema."""
    message = Local().chat(prompt, tools=[TOOL], tool_choice=choice).json["choices"][0]["message"]
    assert ("tool_calls" in message) is calls
    if calls:
        [call] = message["tool_calls"]
        assert (call["function"]["name"], message["content"]) == ("look", None)
        assert json.loads(call["function"]["arguments"]) == {"where": f"[{digest(user(prompt))}] simulated"}


def test_a_tools_result_is_answered_in_words() -> None:
    """After the result of a call the model speaks."""
    sim = Local()
    first = sim.chat("use the tool", tools=[TOOL]).json["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    call = first["message"]["tool_calls"][0]
    messages = [*user("use the tool"), first["message"], {"role": "tool", "tool_call_id": call["id"], "content": "42"}]
    second = sim.chat(messages=messages, tools=[TOOL])
    assert second.text == expected_text(messages)


def test_gpt_oss_runs_its_built_in_tools() -> None:
    """browser_search and code_interpreter of the request report what they did."""
    tools = [{"type": "browser_search"}, {"type": "code_interpreter"}]
    message = Local().chat("hello", tools=tools, tool_choice="required").json["choices"][0]["message"]
    search, code = message["executed_tools"]
    assert (search["index"], search["name"], code["index"], code["name"]) == (0, "browser.search", 1, "python")
    assert {"title", "url", "content", "score"} == set(search["search_results"]["results"][0])
    assert code["code_results"][0]["text"]
    assert message["content"] == expected_text(GREETING)


def test_compound_ran_its_enabled_tools() -> None:
    """In the seed's world compound runs what is enabled, mini only once, and splits its usage by model."""
    sim = Local(world="seed")
    custom = {"tools": {"enabled_tools": ["web_search", "code_interpreter"]}}
    settings = {"include_domains": ["docs.example.org"]}
    answer = sim.chat("hello", model="groq/compound", compound_custom=custom, search_settings=settings).json
    tools = answer["choices"][0]["message"]["executed_tools"]
    assert [tool["type"] for tool in tools] == ["search", "python"]
    assert all(row["url"].startswith("https://docs.example.org/") for row in tools[0]["search_results"]["results"])
    parts = [part["usage"] for part in answer["usage_breakdown"]["models"]]
    assert len(parts) == 2
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert sum(part[name] for part in parts) == answer["usage"][name]
    mini = sim.chat("hello", model="groq/compound-mini", compound_custom=custom).json
    assert len(mini["choices"][0]["message"]["executed_tools"]) == 1


@pytest.mark.parametrize(
    ("how", "held", "marked"),
    [
        ("results", {"executed_tools"}, False),
        ("output", {"executed_tools"}, True),
        ("annotations", {"annotations"}, False),
        ("none", set(), False),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_tells_of_its_tools_in_one_of_groqs_ways(
    how: str, held: set[str], *, marked: bool, stream: bool
) -> None:
    """A scenario chooses whether runs have fields or only a text, or are not told at all; whole and streamed alike."""
    sim = Local(tool_reports=how)
    answer = sim.chat("hello", tools=[{"type": "browser_search"}], stream=stream)
    message: dict[str, Any] = {"content": ""}
    if stream:
        for event in answer.events:
            for name, value in ({} if event == "[DONE]" else event["choices"][0]["delta"]).items():
                message[name] = message.get(name, value[:0]) + value
    else:
        message = answer.json["choices"][0]["message"]
    assert set(message) - {"role", "content"} == held
    marks = " 【0†L1-L3】【1†L2】" if marked else ""
    assert message["content"] == expected_text(GREETING) + marks
    if how == "output" and not stream:
        search, opened = message["executed_tools"]
        assert (search["index"], opened["index"], opened["name"]) == (0, 1, "browser.open")
        assert opened["output"].startswith("[1] [")
        assert "search_results" not in search


def test_a_prompt_or_its_digest_chooses_how_tools_are_told() -> None:
    """A mark of the prompt wins over the scenario, and `mixed` gives each way to some prompts."""
    sim, tools = Local(tool_reports="mixed"), [{"type": "browser_search"}]
    found = [sim.chat(f"prompt {n}", tools=tools).json["choices"][0]["message"] for n in range(40)]
    assert {frozenset(m) & {"executed_tools", "annotations"} for m in found} >= {
        frozenset(), frozenset({"executed_tools"}), frozenset({"annotations"}),
    }  # fmt: skip
    assert "annotations" in sim.chat("x <<report:annotations>>", tools=tools).json["choices"][0]["message"]


@pytest.mark.parametrize(
    ("enabled", "says"),
    [(["shell"], "not one of the allowed values"), (["browser_automation"], "needs `web_search`"), ("x", "an array")],
)
def test_compound_refuses_tools_that_it_has_not(enabled: Any, says: str) -> None:
    """Names are a closed set, and the browser cannot go without the search."""
    custom = {"tools": {"enabled_tools": enabled}}
    answer = Local(world="seed").chat("hello", model="groq/compound", compound_custom=custom)
    assert (answer.status, says in answer.error["message"]) == (400, True)


def test_the_prompt_counts_messages_tools_and_images() -> None:
    """One token per four bytes, four per message; what the model sees besides counts too."""
    assert count_prompt({"messages": user("12345")}) == 4 + 2
    assert count_prompt({"messages": user("é" * 4)}) == 4 + 2
    image = [{"type": "image_url", "image_url": {"url": "x"}}]
    assert count_prompt({"messages": [{"role": "user", "content": image}]}) == 4 + 1024
    assert count_prompt({"messages": user("12345"), "tools": [TOOL]}) > 6 + 20


def test_any_text_comes_back() -> None:
    """Lone surrogates, nulls and line ends of a prompt reach the answer as they are."""
    prompt = "\ud800 \x00 \u2028 \r\n end"
    assert Local().chat(prompt).text == expected_text(user(prompt))
