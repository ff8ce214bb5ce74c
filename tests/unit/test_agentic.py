"""Built-in tools from a name to a source: what is sent to which model, what an answer says of it, what it costs."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_client_result import answer, job
from vessel.client import core
from vessel.client.request import BuiltinTool as AnyName
from vessel.client.result import Result
from vessel.client.sources import MarkFilter, Source, sources_of, without_marks
from vessel.errors import InvalidRequest, UnsupportedContent
from vessel.registry import Availability, load_registry
from vessel.routing.router import Route, route
from vessel.upstream.executed import tool_runs, usage_parts
from vessel.upstream.outcome import Usage
from vessel.upstream.translate import translate
from vessel.wire import BUILTIN_NAMES, BuiltinTool, Policy, check_submission

REGISTRY = load_registry()
OSS, OSS20, COMPOUND, MINI = "openai/gpt-oss-120b", "openai/gpt-oss-20b", "groq/compound", "groq/compound-mini"
LLAMA = "llama-3.3-70b-versatile"
FEATURES = {model.id: frozenset(str(f) for f in model.features) for model in REGISTRY.models.values()}
DAY = date(2026, 11, 27)
SEED = Availability(frozenset({COMPOUND, MINI, OSS, OSS20, LLAMA, "llama-3.1-8b-instant"}), frozenset(), DAY)
TODAY = Availability(frozenset({OSS, OSS20, "qwen/qwen3.8-27b"}), frozenset(), DAY)
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}


def sent(model: str, body: dict[str, Any], *tools: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Translate for a model of the registry."""
    return translate(
        {"messages": [], **body}, model_id=model, features=FEATURES[model], reasoning_efforts=(),
        builtin_tools=tools, max_completion_tokens=64,
    )  # fmt: skip


def routed(world: Availability, policy: dict[str, Any] | None = None, **body: Any) -> Route:
    """Route a short request."""
    whole = {"messages": [{"role": "user", "content": body.pop("text", "find it")}], **body}
    return route(check_submission(whole, policy or {}), REGISTRY, world, estimated_tokens=10)


# --- names


def test_every_name_of_a_tool_is_taken_and_means_one_of_ours() -> None:
    """The seed's and Groq's names come to the same, at every door."""
    assert set(get_args(AnyName)) == set(BUILTIN_NAMES)
    assert set(BUILTIN_NAMES.values()) == set(get_args(BuiltinTool)) == set(REGISTRY.builtin_tools)
    given_names = list(BUILTIN_NAMES)
    assert list(Policy.model_validate({"builtin_tools": given_names}).builtin_tools) == list(BUILTIN_NAMES.values())


@pytest.mark.parametrize(
    ("body", "policy"),
    [
        ({}, {"builtin_tools": ["shell"]}),
        ({"tools": [{"type": "shell"}]}, {}),
        ({"compound_custom": {"tools": {"enabled_tools": ["shell"]}}}, {}),
        ({"compound_custom": {"tools": {"enabled_tools": ["web_search", {}]}}}, {}),
    ],
)
def test_an_unknown_tool_is_refused_with_the_list(body: dict[str, Any], policy: dict[str, Any]) -> None:
    """Whoever slips reads what there is, and where the slip was; the value is not repeated."""
    with pytest.raises(InvalidRequest, match="browser_automation, wolfram_alpha") as refused:
        routed(TODAY, policy, **body)
    assert refused.value.param
    assert "shell" not in refused.value.message


@pytest.mark.parametrize("tools", [["shell"], "shell", [["web_search"]], 7, {"web_search": True}])
def test_a_client_refuses_odd_tools(tools: Any) -> None:
    """A list of names is wanted; a single name is taken for one."""
    with pytest.raises(InvalidRequest):
        core.research("x", tools, {})
    assert core.research("x", "web_search", {}).policy["builtin_tools"] == ["web_search"]


@pytest.mark.parametrize("bound", [0, -1, True, "3", 2.0])
def test_max_results_is_a_number_of_results(bound: Any) -> None:
    """Zero sources, or a text, is a slip."""
    with pytest.raises(InvalidRequest, match="max_results"):
        core.research("x", ["web_search"], {}, bound)


def test_max_results_is_said_to_the_model_beside_the_callers_own_words() -> None:
    """Groq bounds results nowhere, so the model is asked to; without a bound nothing is added."""
    [system, user] = core.research("x", ["web_search"], {"system": "Be brief."}, 3).body["messages"]
    assert system["content"].startswith("Be brief.\n\nUse at most 3 results")
    assert user == {"role": "user", "content": "x"}
    assert core.research("x", ["web_search"], {}).body["messages"] == [user]


# --- what is sent


@pytest.mark.parametrize(
    ("name", "compound", "gpt_oss"),
    [
        ("web_search", ["web_search"], "browser_search"),
        ("code_execution", ["code_interpreter"], "code_interpreter"),
        ("visit_website", ["visit_website"], "browser_search"),
        ("browser_automation", ["browser_automation", "web_search"], "browser_search"),
        ("wolfram_alpha", ["wolfram_alpha"], None),
    ],
)
def test_each_tool_on_each_kind_of_model(name: str, compound: list[str], gpt_oss: str | None) -> None:
    """Compound enables it by name, gpt-oss gets an entry; what is not the same there is told."""
    body, notes = sent(COMPOUND, {"tool_choice": "required"}, name)
    assert (body["compound_custom"]["tools"]["enabled_tools"], notes) == (compound, ())
    assert "tool_choice" not in body
    body, notes = sent(OSS, {"tool_choice": "required"}, name)
    assert body.get("tools") == (None if gpt_oss is None else [{"type": gpt_oss}])
    assert ("tool_choice" in body) is (gpt_oss is not None)
    assert bool(notes) is (name in {"browser_automation", "wolfram_alpha"})
    body, notes = sent(LLAMA, {"tool_choice": "required"}, name)
    assert not {"tools", "tool_choice", "compound_custom"} & body.keys()
    assert len(notes) == 1


def test_tools_by_any_name_in_the_body_are_put_in_the_models_words_once() -> None:
    """The seed's name is no type that Groq knows, and two names of one tool are one entry."""
    tools = [{"type": "web_search"}, {"type": "browser_search"}, {"type": "visit_website"}]
    assert sent(OSS, {"tools": tools}, "web_search")[0]["tools"] == [{"type": "browser_search"}]
    assert sent(COMPOUND, {"tools": tools})[0]["compound_custom"]["tools"]["enabled_tools"] == [
        "web_search", "visit_website",
    ]  # fmt: skip


def test_a_choice_of_tools_is_put_in_the_models_words() -> None:
    """Groq takes no built-in tool as a choice, and a system none at all; where tools were to be off, that is told."""
    named = {"tools": [{"type": "web_search"}], "tool_choice": {"type": "web_search"}}
    assert sent(OSS, named)[0]["tool_choice"] == "required"
    assert "tool_choice" not in sent(COMPOUND, named)[0]
    assert sent(OSS, {"tool_choice": "none"}, "web_search")[0]["tool_choice"] == "none"
    assert len(sent(COMPOUND, {"tool_choice": "none"}, "web_search")[1]) == 1


def test_a_hop_is_translated_from_the_callers_words_each_time() -> None:
    """What was meant for Compound reaches gpt-oss in its own words, and the other way round."""
    body = {"compound_custom": {"tools": {"enabled_tools": ["code_interpreter"], "wolfram_settings": {"k": 1}}}}
    assert sent(COMPOUND, body, "code_execution")[0]["compound_custom"] == body["compound_custom"]
    translated, notes = sent(OSS, body, "code_execution")
    assert translated["tools"] == [{"type": "code_interpreter"}]
    assert notes == (f"compound_custom was dropped: {OSS} is not a Compound system",)


def test_tools_that_only_come_with_a_tier_give_way_to_a_response_format() -> None:
    """Compound takes both, gpt-oss neither with the other."""
    form = {"response_format": {"type": "json_object"}}
    assert sent(COMPOUND, form, "web_search")[0]["compound_custom"]
    translated, notes = sent(OSS, form, "web_search")
    assert ("tools" in translated, len(notes)) == (False, 1)


# --- where it goes


@pytest.mark.parametrize(
    ("world", "chain"), [(SEED, [COMPOUND, MINI, OSS]), (TODAY, [OSS, OSS20])], ids=["seed", "today"]
)
@pytest.mark.parametrize("wish", [{"builtin_tools": ["web_search"]}, {"context": {"requires_tools": True}}])
def test_a_chain_with_tools_holds_only_who_has_them(
    world: Availability, chain: list[str], wish: dict[str, Any]
) -> None:
    """The seed's chain ends without tools; who asked for some goes on with the successor that has them."""
    assert [hop.model for hop in routed(world, wish).hops] == chain


def test_what_only_systems_have_is_refused_where_none_is_served() -> None:
    """Wolfram Alpha has no counterpart on gpt-oss, and a system's functions none on a system."""
    wish = {"builtin_tools": ["wolfram_alpha"]}
    assert [hop.model for hop in routed(SEED, wish).hops] == [COMPOUND, MINI]
    with pytest.raises(UnsupportedContent, match="nothing like wolfram_alpha"):
        routed(TODAY, wish)


def test_a_json_mode_with_tools_stays_on_systems() -> None:
    """Compound takes JSON mode; the chain does not go on to who refuses it with tools."""
    wish = {"builtin_tools": ["web_search"]}
    assert [h.model for h in routed(SEED, wish, response_format={"type": "json_object"}).hops] == [COMPOUND, MINI]
    with pytest.raises(UnsupportedContent, match="two steps"):
        routed(TODAY, wish, response_format={"type": "json_object"})
    with pytest.raises(UnsupportedContent):
        routed(SEED, wish, response_format=SCHEMA)


# --- what an answer says


PAGE: dict[str, Any] = {"url": "https://a.example/x", "title": "A", "content": "about a", "score": 0.5}


def found(*pages: dict[str, Any]) -> dict[str, Any]:
    """Describe a message whose search found pages."""
    return {"executed_tools": [{"search_results": {"results": list(pages)}}]}


@pytest.mark.parametrize(
    ("message", "pages"),
    [
        ({}, []),
        ({"executed_tools": [{"search_results": {"results": [PAGE]}}]}, [Source(PAGE["url"], "A", "about a", 0.5)]),
        ({"annotations": [{"type": "url_citation", "url_citation": {"url": "http://b.example"}}]},
         [Source("http://b.example")]),
        ({"annotations": [{"type": "document_citation", "document_citation": {"document_id": "d"}}]}, []),
        (found({"url": "HTTPS://A.example/x/#top", "score": True}, PAGE),
         [Source("HTTPS://A.example/x/#top", "A", "about a", 0.5)]),
        (found(*({"url": url} for url in ("javascript:x", "/x", "http://", 7))), []),
        ({"executed_tools": [{"output": "[1] A page (https://c.example/p(1))\n**viewing**\nL0: x"}]},
         [Source("https://c.example/p(1)", "A page")]),
        ({"executed_tools": [{"output": "Title: T\nURL: https://d.example\nContent: it says\nScore: 0.9"}]},
         [Source("https://d.example", "T", "it says")]),
        ({"executed_tools": [{"output": "[0] search (web-search://x)\nL0: 【0†T†c.example】"}]}, []),
    ],
)  # fmt: skip
def test_sources_are_read_off_whatever_an_answer_holds(message: dict[str, Any], pages: list[Source]) -> None:
    """Fields, citations or what a tool showed; one page once, with all that is told of it, and only of the web."""
    assert sources_of(message) == pages


def test_a_source_has_a_snippet() -> None:
    """What the search showed, under the word that searches use."""
    assert sources_of({"executed_tools": [{"search_results": [PAGE]}]})[0].snippet == "about a"


MARKED = "One 【1†L3-L8】 and two【0†L2】.\u202f【12†source】"


def test_citation_marks_are_no_part_of_an_answer_with_tools() -> None:
    """They cite lines that nobody sees; the raw answer keeps them, and so does an answer without tools."""
    message = answer({"content": MARKED})
    assert Result(job(message, builtin_tools=("web_search",))).text == "One and two."
    assert Result(job(message)).text == MARKED
    assert without_marks("【注意】 and 【1】 stay") == "【注意】 and 【1】 stay"


@given(st.lists(st.sampled_from(["【", "1", "†", "L2", "】", " ", "x", "\n", "注", MARKED]), max_size=30), st.data())
def test_a_stream_loses_the_same_marks_as_the_whole(parts: list[str], data: st.DataObject) -> None:
    """However an answer is cut into pieces, nothing else is lost and nothing is held at the end."""
    text = "".join(parts)
    marks, rest, got = MarkFilter(), text, ""
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        got, rest = got + marks.feed(rest[:size]), rest[size:]
    assert got + marks.end() == without_marks(text)


def test_the_cost_of_tools_is_told_as_estimated() -> None:
    """A result says how much of its cost are fees, and that they are a guess."""
    usage = {"prompt_tokens": 1, "tools": {"web_search": 2}, "tool_cost_usd": "0.010000000", "cost_estimated": True}
    result = Result(job(answer({"content": "x"}), usage=usage, cost_usd=Decimal("0.0101")))
    assert (result.tool_cost_usd, result.cost_estimated, result.usage.prompt_tokens) == (Decimal("0.01"), True, 1)
    plain = Result(job(answer({"content": "x"})))
    assert (plain.tool_cost_usd, plain.cost_estimated) == (Decimal(0), False)


# --- what was run


def runs(*tools: Any) -> dict[str, Any]:
    """Describe an answer."""
    return {"choices": [{"message": {"executed_tools": list(tools)}}]}


def test_runs_are_counted_by_our_names() -> None:
    """gpt-oss names its runs, a system types them; looking into an open page, and what is odd, costs nothing."""
    oss = runs(*({"type": "function", "name": f"browser.{what}"} for what in ("search", "open", "find", "open")))
    assert tool_runs(oss) == (("web_search", 1), ("visit_website", 2))
    assert tool_runs(runs({"type": "search"}, {"type": "python"}, {"type": "search"})) == (
        ("web_search", 2), ("code_execution", 1),
    )  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [{}, {"choices": None}, {"choices": [7]}, {"choices": [{"message": None}]}, runs(7, {}, {"type": []})],
)
def test_an_odd_answer_ran_nothing(odd: dict[str, Any]) -> None:
    """What cannot be read costs nothing, and breaks nothing."""
    assert tool_runs(odd) == ()
    assert usage_parts(odd) == ()


def test_a_breakdown_is_taken_whole_or_not_at_all() -> None:
    """A part that cannot be read would make the rest too cheap."""
    good = {
        "model": OSS,
        "usage": {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 99}},
    }
    assert usage_parts({"usage_breakdown": {"models": [good]}}) == ((OSS, Usage(9, 2, 9)),)
    for bad in (7, {}, {"model": OSS}, {"model": OSS, "usage": {"prompt_tokens": -1, "completion_tokens": True}}):
        assert usage_parts({"usage_breakdown": {"models": [good, bad]}}) == ()
