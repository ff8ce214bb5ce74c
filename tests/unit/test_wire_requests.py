"""What a chat body may be: a fault is told with its parameter and never echoed, and the rest goes through."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.errors import InvalidRequest
from vessel.wire import check_submission, encode_body

MESSAGES = [{"role": "user", "content": "x"}]
CANARY = "CANARY-7f3a"


def deep(levels: int) -> object:
    """Nest lists."""
    value: object = 0
    for _ in range(levels):
        value = [value]
    return value


def message(**fields: object) -> dict[str, Any]:
    """Build a body of one message."""
    return {"messages": [fields]}


FAULTS: list[tuple[str, dict[str, Any], str | None]] = [
    ("messages missing", {}, "messages"),
    ("messages null", {"messages": None}, "messages"),
    ("messages empty", {"messages": []}, "messages"),
    ("messages text", {"messages": "hello"}, "messages"),
    ("messages map", {"messages": {"role": "user"}}, "messages"),
    ("messages too many", {"messages": MESSAGES * 10_001}, "messages"),
    ("message no map", {"messages": [MESSAGES[0], "x"]}, "messages.1"),
    ("role missing", message(content="x"), "messages.0.role"),
    ("role unknown", message(role="root", content="x"), "messages.0.role"),
    ("role a number", message(role=1, content="x"), "messages.0.role"),
    ("content missing", message(role="user"), "messages.0.content"),
    ("content null", message(role="user", content=None), "messages.0.content"),
    ("content null, no calls", message(role="assistant", content=None, tool_calls=[]), "messages.0.content"),
    ("content a number", message(role="user", content=3), "messages.0.content"),
    ("content parts of text", message(role="user", content=["x"]), "messages.0.content.0"),
    ("half a surrogate", message(role="user", content="\ud800"), "messages.0.content"),
    ("half a surrogate in a part", message(role="user", content=[{"text": "\udfff"}]), "messages.0.content.0.text"),
    ("half a surrogate elsewhere", {"messages": MESSAGES, "user": "a\ud800b"}, "user"),
    ("half a surrogate in a name", {"messages": MESSAGES, "\ud800": 1}, None),
    ("model empty", {"messages": MESSAGES, "model": ""}, "model"),
    ("model a number", {"messages": MESSAGES, "model": 3}, "model"),
    ("model long", {"messages": MESSAGES, "model": "m" * 10_000}, "model"),
    ("temperature low", {"messages": MESSAGES, "temperature": -0.1}, "temperature"),
    ("temperature high", {"messages": MESSAGES, "temperature": 2.1}, "temperature"),
    ("temperature text", {"messages": MESSAGES, "temperature": "hot"}, "temperature"),
    ("temperature true", {"messages": MESSAGES, "temperature": True}, "temperature"),
    ("temperature NaN", {"messages": MESSAGES, "temperature": math.nan}, "temperature"),
    ("temperature infinite", {"messages": MESSAGES, "temperature": math.inf}, "temperature"),
    ("temperature huge", {"messages": MESSAGES, "temperature": 10**400}, "temperature"),
    ("top_p zero", {"messages": MESSAGES, "top_p": 0}, "top_p"),
    ("top_p high", {"messages": MESSAGES, "top_p": 2}, "top_p"),
    ("top_p true", {"messages": MESSAGES, "top_p": True}, "top_p"),
    *[(f"{name} {value!r}", {"messages": MESSAGES, name: value}, name)
      for name in ("max_tokens", "max_completion_tokens") for value in (0, -1, 1.5, True, "5")],
    ("n zero", {"messages": MESSAGES, "n": 0}, "n"),
    ("n many", {"messages": MESSAGES, "n": 1000}, "n"),
    ("n true", {"messages": MESSAGES, "n": True}, "n"),
    ("stop five", {"messages": MESSAGES, "stop": ["a"] * 5}, "stop"),
    ("stop number", {"messages": MESSAGES, "stop": 3}, "stop"),
    ("stop numbers", {"messages": MESSAGES, "stop": ["a", 1]}, "stop.1"),
    ("seed text", {"messages": MESSAGES, "seed": "x"}, "seed"),
    ("seed half", {"messages": MESSAGES, "seed": 1.5}, "seed"),
    ("stream yes", {"messages": MESSAGES, "stream": "yes"}, "stream"),
    ("stream one", {"messages": MESSAGES, "stream": 1}, "stream"),
    ("tools no list", {"messages": MESSAGES, "tools": {}}, "tools"),
    ("tools no maps", {"messages": MESSAGES, "tools": ["x"]}, "tools.0"),
    ("tools too many", {"messages": MESSAGES, "tools": [{}] * 129}, "tools"),
    ("tool_choice number", {"messages": MESSAGES, "tool_choice": 1}, "tool_choice"),
    ("response_format text", {"messages": MESSAGES, "response_format": "json"}, "response_format"),
    ("reasoning_effort unknown", {"messages": MESSAGES, "reasoning_effort": "most"}, "reasoning_effort"),
    ("NaN elsewhere", {"messages": MESSAGES, "x": [math.nan]}, None),
    ("infinity elsewhere", {"messages": MESSAGES, "x": -math.inf}, None),
    ("bytes", {"messages": MESSAGES, "x": b"a"}, None),
    ("an object", {"messages": MESSAGES, "x": object()}, None),
    ("nested deep", {"messages": MESSAGES, "x": deep(100_000)}, None),
    ("content nested deep", message(role="user", content=[{"x": deep(100_000)}]), None),
]  # fmt: skip


@pytest.mark.parametrize(("body", "param"), [pytest.param(body, param, id=name) for name, body, param in FAULTS])
def test_a_fault_is_told_with_its_parameter(body: dict[str, Any], param: str | None) -> None:
    """One error class, the place as a client can use it, a sentence, and no name out of pydantic's inside."""
    with pytest.raises(InvalidRequest) as caught:
        check_submission(body)
    text = str(caught.value)
    if param in {"messages.0.content.0", "stop.1"}:
        assert (caught.value.param or "").startswith(param.rpartition(".")[0])
    else:
        assert caught.value.param == param
    assert text.startswith(caught.value.param or ("The body", "body"))
    assert text.endswith(".")
    assert len(text) < 300
    assert not any(word in text for word in ("literal[", "list[", "ValidationError", "pydantic", ".str"))


@pytest.mark.parametrize("body", [None, [], "x", 3, True, [1]])
def test_a_body_is_an_object(body: Any) -> None:
    """Any other JSON value is refused, not tripped over."""
    with pytest.raises(InvalidRequest, match="not a JSON object"):
        check_submission(body)


@pytest.mark.parametrize("field", ["role", "content", "temperature", "model", "stop", "tools", "vessel"])
def test_no_value_is_echoed(field: str) -> None:
    """What a caller sent wrong may be a prompt or a key in the wrong place."""
    bad: Any = {"x": [CANARY]} if field in {"content", "model", "stop"} else f"{CANARY}\ud800"
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
    body = body | {field: bad} if field not in {"role", "content"} else message(**{"role": "user"} | {field: bad})
    with pytest.raises(InvalidRequest) as caught:
        check_submission(body)
    assert CANARY not in f"{caught.value!r} {caught.value} {caught.value.param}"
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_long_name_is_cut() -> None:
    """A field's name is the caller's text too: of a megabyte only its beginning comes back."""
    with pytest.raises(InvalidRequest) as caught:
        check_submission({"messages": MESSAGES}, {"n" * 1_000_000: 1})
    assert len(str(caught.value)) < 300


GOOD: dict[str, dict[str, Any]] = {
    "least": {"messages": MESSAGES},
    "integer temperature": {"messages": MESSAGES, "temperature": 1},
    "bounds": {"messages": MESSAGES, "temperature": 2.0, "top_p": 1e-7, "n": 1, "max_tokens": 10**9},
    "stop": {"messages": MESSAGES, "stop": ["a", "b", "c", "d"]},
    "parts": message(role="user", content=[{"type": "text", "text": "x"}]),
    "empty content": message(role="user", content=""),
    "no parts": message(role="user", content=[]),
    "tool calls": message(role="assistant", content=None, tool_calls=[{"id": "a"}]),
    "tool calls alone": message(role="assistant", tool_calls=[{"id": "a"}]),
    "tool answer": message(role="tool", content="1", tool_call_id="a"),
    "big seed": {"messages": MESSAGES, "seed": 2**70},
    "unknown fields": {"messages": [{"role": "user", "content": "x", "name": "é"}], "future": {"a": [None, 1e-7]}},
    "NUL and emoji": message(role="user", content="\x00👩‍👧"),
    "nulls": {"messages": MESSAGES, "temperature": None, "stop": None, "tools": None, "seed": None},
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_body_goes_through_as_it_is(name: str) -> None:
    """Unknown fields, number spellings and key order survive; only `vessel` is taken out."""
    body = GOOD[name]
    submission = check_submission(body | {"vessel": {"tier": "power"}})
    assert submission.body == encode_body(body)
    assert repr(json.loads(submission.body)) == repr(body)
    assert submission.policy.tier == "power"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(["messages", "model", "temperature", "stop", "tools", "vessel", "n", "seed", "x", "\ud800"])


@given(body=st.dictionaries(FIELDS, VALUES, max_size=5), start=st.booleans(), policy=VALUES)
def test_any_python_value_is_taken_or_refused(body: dict[str, Any], policy: Any, *, start: bool) -> None:
    """Nothing that can be given makes the check fail in any other way."""
    body = {"messages": MESSAGES} | body if start else body
    try:
        submission = check_submission(body, policy)
    except InvalidRequest as error:
        str(error).encode()
        (error.param or "").encode()
    else:
        assert json.loads(submission.body) is not None
