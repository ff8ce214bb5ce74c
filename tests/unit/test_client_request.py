"""How keyword arguments become a chat body and a policy."""

from __future__ import annotations

import inspect
from decimal import Decimal
from typing import Any, get_type_hints

import pytest
from groq.types.chat.completion_create_params import CompletionCreateParams

from vessel.client.core import analysis, code, execution, query, research
from vessel.client.request import POLICY, CommonOptions, Options, compose, compose_line
from vessel.client.submitting import pieces
from vessel.errors import InvalidRequest
from vessel.wire import ChatRequest, check_submission

CANARY = "canary prompt 7c1e"


def test_options_are_sorted_into_body_and_policy() -> None:
    """Vessel's own words go into the policy, everything else into the body."""
    ask = compose("hi", {"tier": "power", "temperature": 0, "deadline": "2h", "service_tier": "flex"})
    assert ask.policy == {"tier": "power", "deadline": "2h"}
    assert ask.body == {
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "service_tier": "flex",
    }


def test_none_means_not_given() -> None:
    """A caller may pass None through, which leaves the defaults."""
    ask = compose("hi", {"tier": None, "model": None, "task_type": None}, task_type="coding")
    assert ask.policy == {"task_type": "coding"}
    assert list(ask.body) == ["messages"]


def test_system_stands_before_a_text_and_before_messages() -> None:
    """A system text is the first message, whatever the prompt is."""
    first = {"role": "system", "content": "be brief"}
    assert compose("hi", {"system": "be brief"}).body["messages"][0] == first
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert compose(said, {"system": "be brief"}).body["messages"] == [first, *said]


def test_extra_body_is_laid_over_the_body() -> None:
    """As in the SDKs, fields that have no argument can be given in `extra_body`."""
    assert compose("hi", {"extra_body": {"top_k": 3}}).body["top_k"] == 3


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("prioritty", "priority"), ("on_outtage", "on_outage"), ("temprature", "temperature"), ("tire", "tier"),
        ("tag", "tags"), ("tenant", "tags"), ("webhok", "webhook"), ("key", "idempotency_key"),
    ],
)  # fmt: skip
def test_a_slip_is_named_with_what_was_meant(wrong: str, meant: str) -> None:
    """A misspelt argument is refused here and not sent to Groq."""
    with pytest.raises(InvalidRequest, match=f"{wrong}: .* did you mean {meant}"):
        compose("hi", {wrong: "x"})
    with pytest.raises(InvalidRequest, match=f"{wrong}: "):
        compose_line({"prompt": "hi", wrong: "x"})
    assert compose("hi", {"extra_body": {wrong: "x"}}).body[wrong] == "x"


def test_no_field_of_groqs_is_taken_for_a_slip() -> None:
    """Each goes to Groq as it is, also `reasoning_format`, which looks much like another one."""
    for name in CompletionCreateParams.__annotations__.keys() - {"messages", "stream", *POLICY}:
        assert compose("hi", {name: "x"}).body[name] == "x"


@pytest.mark.parametrize("prompt", [b"hi", {"role": "user", "content": "hi"}, 3, None, "", " \n"])
def test_a_prompt_of_another_kind_is_refused(prompt: Any) -> None:
    """A prompt is a text that says something, or a list of messages."""
    with pytest.raises(InvalidRequest, match="prompt: "):
        compose(prompt, {})


@pytest.mark.parametrize("source", [None, 5])
def test_what_is_no_batch_is_refused_in_words(source: Any) -> None:
    """A slip of the caller's shows no traceback of ours."""
    with pytest.raises(InvalidRequest, match="iterable of requests"):
        list(pieces(source))


def test_streaming_is_refused_where_the_whole_answer_is_given() -> None:
    """`stream` belongs to another call."""
    with pytest.raises(InvalidRequest, match="stream"):
        compose("hi", {"stream": True})


def test_a_request_never_shows_its_prompt() -> None:
    """The repr of what holds a prompt does not hold it."""
    assert CANARY not in repr(compose(CANARY, {}))


def test_each_verb_has_its_defaults_and_the_caller_wins() -> None:
    """The seed's verbs choose a task type, a lane and tools unless the caller names others."""
    assert query("x", {}).policy == {"priority": "interactive"}
    assert analysis("x", {}).policy["task_type"] == "strategic_analysis"
    assert analysis("x", {"task_type": "qa", "priority": "batch"}).policy == {"task_type": "qa", "priority": "batch"}
    assert code("x", "python", {}).policy["task_type"] == "coding"
    assert research("x", ("web_search",), {}).policy["builtin_tools"] == ["web_search"]
    assert execution("t", None, ("code_execution",), {}).policy["builtin_tools"] == ["code_execution"]


def test_code_names_its_language_unless_the_caller_has_an_own_system_text() -> None:
    """The language goes into a system message; messages given as a list stay as they are."""
    assert "python" in code("x", "python", {}).body["messages"][0]["content"]
    assert code("x", "python", {"system": "mine"}).body["messages"][0]["content"] == "mine"
    assert code([{"role": "user", "content": "x"}], "python", {}).body["messages"] == [{"role": "user", "content": "x"}]


def test_code_to_run_is_fenced_beyond_its_own_fences() -> None:
    """A program that holds a fence does not end the one around it."""
    sent = execution("run", "print('```')", ("code_execution",), {}).body["messages"][0]["content"]
    assert sent == "run\n\n````\nprint('```')\n````"


def test_a_line_may_be_a_body_a_prompt_or_a_batch_line() -> None:
    """Three spellings of the same request give the same request."""
    body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0}
    lines = [
        body | {"vessel": {"tier": "power"}},
        {"prompt": "hi", "tier": "power", "temperature": 0},
        {"prompt": "hi", "vessel": {"tier": "power"}, "temperature": 0},
        {"custom_id": "1", "method": "POST", "body": body | {"vessel": {"tier": "power"}}},
    ]
    for line in lines:
        ask = compose_line(line)
        assert (ask.body, ask.policy) == (body, {"tier": "power"})


@pytest.mark.parametrize("line", ["hi", 3, None, {"prompt": "x", "vessel": 3}, {"messages": [], "vessel": "x"}])
def test_a_line_of_another_shape_is_refused(line: object) -> None:
    """What is no request is said to be none."""
    with pytest.raises(InvalidRequest):
        compose_line(line)


def test_the_typed_options_are_those_of_the_policy_and_the_body() -> None:
    """Every field of the policy has its argument, and every other argument is a field of the body or ours."""
    names = set(get_type_hints(Options))
    assert names >= POLICY
    assert names - POLICY - set(ChatRequest.model_fields) == {"system", "extra_body"}
    assert "tools" not in inspect.get_annotations(CommonOptions)


def test_what_python_callers_pass_is_taken_by_the_door() -> None:
    """Decimals, tuples and durations of a policy pass the check that REST bodies pass."""
    options = {"max_cost_usd": Decimal("0.01"), "fallback": ("balanced",), "deadline": "1h30m", "tags": {"a": "b"}}
    ask = compose("hi", options)
    policy = check_submission(ask.body, ask.policy).policy
    assert (policy.max_cost_usd, policy.fallback, policy.deadline) == (Decimal("0.01"), ("balanced",), 5400.0)
