"""A 200 is only a result when it holds what a caller needs (groq-facts 1.3, 1.9; reliability F24)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.upstream.answer import read_success
from vessel.upstream.outcome import Charge, Failure, Outcome, Reason, Success, Usage

MODEL = "openai/gpt-oss-20b"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
DROP = object()


def answer(**changes: Any) -> dict[str, Any]:
    """Build a whole answer; a change to DROP takes the field away."""
    whole: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": USAGE,
        "x_groq": {"id": "req_1"},
    } | changes
    return {name: value for name, value in whole.items() if value is not DROP}


def choice(message: object, finish_reason: object = "stop") -> dict[str, Any]:
    """Build an answer around one message."""
    return answer(choices=[{"index": 0, "message": message, "finish_reason": finish_reason}])


def read(body: dict[str, Any] | bytes, model: str = MODEL, headers: dict[str, str] | None = None) -> Outcome:
    """Read an answer as the wire would bring it."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_success(model, raw, headers or {}, 34)


def test_a_whole_answer_is_a_success() -> None:
    """Usage, ids and headers are taken, the body stays as it came."""
    outcome = read(answer(), headers={"x-ratelimit-remaining-tokens": "99", "x-request-id": "req_other"})
    assert isinstance(outcome, Success)
    assert outcome.usage == Usage(10, 5)
    assert (outcome.model, outcome.request_id, outcome.finish_reason) == (MODEL, "req_1", "stop")
    assert (outcome.headers.remaining_tokens, outcome.duration_ms) == (99, 34)


def test_the_body_is_kept_byte_for_byte() -> None:
    """Big integers, float spellings, escapes, spaces and key order are the caller's to read."""
    body = (
        b'{ "usage" : {"completion_tokens":1,"prompt_tokens":2,"total_time":1.0e-2}, "seed":1234567890123456789,'
        b' "choices":[{"message":{"content":"\\ud83d\\ude00 \\u00e9"},"finish_reason":"stop"}], "x": 1.50 }'
    )
    outcome = read(body)
    assert isinstance(outcome, Success)
    assert outcome.body is body


@pytest.mark.parametrize(
    ("message", "finish_reason"),
    [
        ({"content": ""}, "stop"),
        ({"content": ""}, "length"),
        ({"content": None}, "length"),
        ({"content": None, "reasoning": "thinking"}, "length"),
        ({"content": None, "tool_calls": [{"id": "1"}]}, "tool_calls"),
        ({"tool_calls": [{"id": "1"}]}, "tool_calls"),
        ({"content": None, "function_call": {"name": "f"}}, "function_call"),
    ],
)
def test_an_empty_answer_that_was_paid_for_is_a_success(message: dict[str, Any], finish_reason: str) -> None:
    """Reasoning may eat the budget, and a tool call has no content."""
    outcome = read(choice(message, finish_reason))
    assert isinstance(outcome, Success)
    assert outcome.finish_reason == finish_reason


@pytest.mark.parametrize(
    "body",
    [
        answer(choices=DROP),
        answer(choices=[]),
        answer(choices=None),
        answer(choices={}),
        answer(choices=[None]),
        choice(None),
        choice("text"),
        choice({"content": "x"}, None),
        choice({"content": "x"}, ""),
        choice({"content": "x"}, 3),
        choice({"content": None}),
        choice({}),
        choice({"content": 7}),
        choice({"content": None, "tool_calls": []}, "tool_calls"),
        answer(error={"message": "boom", "code": "internal"}),
        answer(model="openai/gpt-oss-120b"),
    ],
)
def test_an_unusable_answer_with_usage_is_charged_as_known(body: dict[str, Any]) -> None:
    """It was generated and will be billed, so what it cost is booked although there is no result."""
    failure = read(body)
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.status) == (Reason.PROTOCOL_ERROR, 200)
    assert (failure.charge, failure.usage) == (Charge.KNOWN, Usage(10, 5))
    assert failure.request_id == "req_1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"<html><body>hello</body></html>",
        b"<!doctype html>",
        b"null",
        b"[]",
        b'"text"',
        b'{"id":"chatcmpl',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1} trailing',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"id":"x"}',
        b'{"error":{"message":"boom","code":"oops"}}',
        b"data: {}\n\ndata: [DONE]\n\n",
    ],
)
def test_what_is_no_answer_is_charged_as_unknown(body: bytes) -> None:
    """It may have been billed, and nothing says for how much."""
    failure = read(body)
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.charge, failure.usage) == (Reason.PROTOCOL_ERROR, Charge.UNKNOWN, None)


@pytest.mark.parametrize(
    "usage",
    [
        DROP,
        None,
        {},
        {"total_time": 0.1},
        {"prompt_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 1, "completion_tokens": 5.5},
        {"prompt_tokens": 1, "completion_tokens": 5.0},
        {"prompt_tokens": 1, "completion_tokens": 10**18},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": "1", "completion_tokens": 5},
        "lots",
        [1, 2],
        7,
    ],
)
def test_a_usage_that_cannot_be_true_is_never_booked(usage: object) -> None:
    """Neither zero nor a negative nor an absurd number reaches the ledger; it is booked at the estimate."""
    failure = read(answer(usage=usage))
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.charge, failure.usage) == (Reason.PROTOCOL_ERROR, Charge.UNKNOWN, None)


def test_usage_may_stand_where_a_stream_has_it() -> None:
    """The last chunk of a stream carries it in `x_groq`."""
    outcome = read(answer(usage=DROP, x_groq={"id": "req_2", "usage": USAGE}))
    assert isinstance(outcome, Success)
    assert (outcome.usage, outcome.request_id) == (Usage(10, 5), "req_2")


@pytest.mark.parametrize(
    ("details", "usage"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 4}}, Usage(10, 5, 4, 0)),
        ({"completion_tokens_details": {"reasoning_tokens": 3}}, Usage(10, 5, 0, 3)),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, Usage(10, 5)),
        ({"prompt_tokens_details": {"cached_tokens": 400}}, Usage(10, 5, 10, 0)),
        ({"completion_tokens_details": {"reasoning_tokens": 400}}, Usage(10, 5, 0, 5)),
        ({"prompt_tokens_details": {"cached_tokens": -4}}, Usage(10, 5)),
        ({"prompt_tokens_details": {"cached_tokens": "4"}}, Usage(10, 5)),
        ({"prompt_tokens_details": [4]}, Usage(10, 5)),
    ],
)
def test_details_refine_the_usage_and_never_exceed_it(details: dict[str, Any], usage: Usage) -> None:
    """They only lower a price, so a bad one counts as absent."""
    outcome = read(answer(usage=USAGE | details))
    assert isinstance(outcome, Success)
    assert outcome.usage == usage


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        (MODEL, MODEL, True),
        (MODEL, "gpt-oss-20b", True),
        (MODEL, f"{MODEL}-0905", True),
        (MODEL, "openai/gpt-oss-120b", False),
        ("groq/compound", "openai/gpt-oss-120b", True),
        ("qwen/qwen3", "qwen/qwen3-next", False),
        (MODEL, None, True),
    ],
)
def test_an_answer_in_the_name_of_another_model_is_refused(asked: str, served: str | None, *, same: bool) -> None:
    """Its price would be another one; owners, dates and the models inside a system make no difference."""
    assert isinstance(read(answer(model=served), asked), Success if same else Failure)


def test_the_request_id_falls_back_to_the_header() -> None:
    """Answers without `x_groq` still have one."""
    outcome = read(answer(x_groq=DROP), headers={"x-request-id": "req_9"})
    assert outcome.request_id == "req_9"


def test_nothing_of_the_answer_is_in_the_failure() -> None:
    """The message is ours, whatever the body says."""
    failure = read(b'{"error":{"message":"canary","code":"canary x"},"choices":[{"message":{"content":"canary"}}]}')
    assert "canary" not in repr(failure)
    assert "canary" not in repr(read(choice({"content": "canary"})))


NAMES = ["choices", "message", "usage", "finish_reason", "content", "x_groq", "prompt_tokens", "error", "id"]


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Build lists and objects whose names are those that are looked for."""
    return st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), nested, max_leaves=20))
def test_no_json_breaks_the_reader(found: object) -> None:
    """Every body becomes an outcome."""
    assert isinstance(read_success(MODEL, json.dumps(found).encode(), {}, 0), Success | Failure)
