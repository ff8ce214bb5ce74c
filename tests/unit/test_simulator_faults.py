"""Fault rules: whom they strike, how often, when; and what each kind answers that needs no socket."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulated import START, Local
from vessel.simulator import BadConfig, SimulatorConfig
from vessel.simulator.faults import KINDS, BadRule, FaultBook, Phase, Rule, Subject, read_rule


def subject(model: str = "m", prompt: str = "p", **body: Any) -> Subject:
    """Make a call as the rules see it."""
    return Subject({"messages": [{"content": prompt}]} | body, model, lambda messages: messages[0]["content"])


def book(*rules: dict[str, Any], seed: int = 0) -> FaultBook:
    """Give rules at the start of time."""
    found = FaultBook(seed)
    found.add(list(rules), START)
    return found


def strikes(faults: FaultBook, calls: int, now: float = START, **body: Any) -> list[bool]:
    """Tell for each of some calls whether it is struck."""
    return [faults.find(subject(**body), now) is not None for _ in range(calls)]


def test_a_rule_strikes_the_model_and_prompt_that_it_names() -> None:
    """Others are left alone."""
    faults = book({"kind": "status", "model": "m", "match": "storm"})
    assert strikes(faults, 1, prompt="a storm comes") == [True]
    assert strikes(faults, 1, prompt="calm") == [False]
    assert strikes(faults, 1, model="n", prompt="a storm comes") == [False]


def test_count_and_skip_bound_a_rule() -> None:
    """The first pass, then so many are struck, then no more."""
    assert strikes(book({"kind": "status", "skip": 2, "count": 3}), 7) == [False, False, True, True, True, False, False]


def test_a_rule_has_its_time() -> None:
    """It begins after_s after it was given and ends duration_s later."""
    faults = book({"kind": "status", "after_s": 10, "duration_s": 5})
    assert [strikes(faults, 1, START + at)[0] for at in (0, 9.9, 10, 15, 15.1)] == [False, False, True, True, False]


def test_a_rate_is_a_share_and_repeats_with_its_seed() -> None:
    """About so many are struck; the same seed strikes the same calls, another one others."""
    rule = {"kind": "status", "rate": 0.3}
    first, again, other = (strikes(book(rule, seed=seed), 1000) for seed in (1, 1, 2))
    assert first == again != other
    assert 250 < sum(first) < 350


def test_rules_have_dice_of_their_own() -> None:
    """A second rule does not change what the first one does."""
    rare = {"kind": "status", "rate": 0.5, "status": 500}
    alone, beside = book(rare), book(rare, {"kind": "status", "rate": 0.5, "status": 502})
    found = [beside.find(subject(), START) for _ in range(200)]
    assert [rule is not None and rule.status == 500 for rule in found] == strikes(alone, 200)


def test_the_first_rule_that_hits_decides() -> None:
    """Later rules see only what is left."""
    faults = book({"kind": "status", "count": 1, "status": 500}, {"kind": "status", "status": 502})
    found = [faults.find(subject(), START) for _ in range(2)]
    assert [rule.status for rule in found if rule is not None] == [500, 502]


@pytest.mark.parametrize("kind", [kind for kind, phase in KINDS.items() if phase in {Phase.STREAM, Phase.BODY}])
def test_kinds_are_for_streams_or_for_bodies(kind: str) -> None:
    """A kind that cannot apply leaves a call alone and keeps its count."""
    streams = KINDS[kind] is Phase.STREAM
    faults = book({"kind": kind, "count": 1})
    assert strikes(faults, 1, stream=not streams) == [False]
    assert strikes(faults, 1, stream=streams) == [True]


def test_flex_capacity_strikes_only_flex() -> None:
    """Calls on demand do not notice."""
    faults = book({"kind": "flex_capacity"})
    assert strikes(faults, 1) == [False]
    assert strikes(faults, 1, service_tier="flex") == [True]


@pytest.mark.parametrize(
    "raw",
    [
        {}, {"kind": "nothing"}, {"kind": "status", "colour": 1}, {"kind": "status", "rate": "often"}, [], None,
        {"kind": "status", "count": -1}, {"kind": "status", "status": 99}, {"kind": "status", "rate": True},
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_used_is_an_error(raw: Any) -> None:
    """A typing error does not end in a test that proves nothing."""
    with pytest.raises(BadRule):
        read_rule(raw, START)


def test_of_several_rules_all_are_taken_or_none() -> None:
    """One bad rule keeps the others out."""
    faults = FaultBook(0)
    with pytest.raises(BadRule):
        faults.add([{"kind": "status"}, {"kind": "wrong"}], START)
    assert faults.rules == []


def test_a_rule_shows_what_was_given_and_its_counts() -> None:
    """GET /_sim/faults is the rule again, with what came of it."""
    rule = read_rule({"kind": "slow", "delay_s": 2}, START)
    assert rule.hits(subject(), START)
    assert rule.shown() == {"kind": "slow", "delay_s": 2, "matched": 1, "fired": 1}


@pytest.mark.parametrize(
    ("rule", "status", "code", "retry_after"),
    [
        ({"kind": "status"}, 500, None, None),
        ({"kind": "status", "status": 502}, 502, None, None),
        ({"kind": "status", "status": 503, "retry_after": 7}, 503, None, "7"),
        ({"kind": "status", "status": 504}, 504, None, None),
        ({"kind": "status", "status": 401}, 401, "invalid_api_key", None),
        ({"kind": "status", "status": 403}, 403, None, None),
        ({"kind": "status", "status": 422}, 422, None, None),
        ({"kind": "status", "status": 424}, 424, None, None),
        ({"kind": "status", "status": 429}, 429, "rate_limit_exceeded", "2"),
        ({"kind": "status", "status": 429, "retry_after": 120}, 429, "rate_limit_exceeded", "120"),
        ({"kind": "rate_limit", "retry_after": 0.5}, 429, "rate_limit_exceeded", "0.5"),
        ({"kind": "status", "status": 498}, 498, "capacity_exceeded", None),
        ({"kind": "model_decommissioned"}, 400, "model_decommissioned", None),
        ({"kind": "model_not_found"}, 404, "model_not_found", None),
        ({"kind": "over_capacity"}, 503, None, None),
        ({"kind": "blocked_api_access"}, 400, "blocked_api_access", None),
        ({"kind": "network_block"}, 403, None, None),
        ({"kind": "tool_use_failed"}, 400, "tool_use_failed", None),
        ({"kind": "json_validate_failed"}, 400, "json_validate_failed", None),
    ],
)
def test_a_refusal_has_groqs_status_and_code(
    rule: dict[str, Any], status: int, code: str | None, retry_after: str | None
) -> None:
    """Each error answer comes with limits' headers and its request id."""
    sim = Local(faults=(rule,))
    answer = sim.chat()
    assert (answer.status, answer.error.get("code"), answer.headers.get("retry-after")) == (status, code, retry_after)
    assert answer.headers["x-ratelimit-limit-tokens"] == "250000"
    [call] = sim.calls()
    assert (call["status"], call["fault"], call["completed"]) == (status, rule["kind"], False)


def test_over_capacity_is_groqs_own_text() -> None:
    """The text of a seen 503."""
    assert Local(faults=({"kind": "over_capacity"},)).chat().json == {
        "error": {
            "message": "openai/gpt-oss-20b is currently over capacity. Please try again and back off exponentially. "
            "Visit https://groqstatus.com to see if there is an active incident.",
            "type": "internal_server_error",
        }
    }


def test_refusals_cost_nothing_and_failures_of_the_model_do() -> None:
    """A 5xx is not charged; a tool call that failed was computed."""
    sim = Local(faults=({"kind": "status", "count": 1}, {"kind": "tool_use_failed", "count": 1}))
    assert sim.chat().status == 500
    assert sim.sim.limits_shown()[0]["limits"]["tpm"]["used"] == 0
    assert sim.chat().status == 400
    assert 8 < sim.sim.limits_shown()[0]["limits"]["tpm"]["used"] < 200


@pytest.mark.parametrize(("body", "shown"), [(None, True), ("", True), ("<function=x", True)])
def test_a_failed_generation_is_shown(body: str | None, *, shown: bool) -> None:
    """The broken call stands in the error, an empty one too."""
    error = Local(faults=({"kind": "tool_use_failed", "body": body},)).chat().error
    assert ("failed_generation" in error) is shown
    assert body is None or error["failed_generation"] == body


def test_pages_of_a_proxy_are_html_without_groqs_headers() -> None:
    """What answers is not Groq: no request id, no limits."""
    answer = Local(faults=({"kind": "html_status", "status": 502},)).chat()
    assert (answer.status, answer.headers["content-type"]) == (502, "text/html; charset=UTF-8")
    assert answer.content.startswith(b"<!DOCTYPE html>")
    assert not [name for name in answer.headers if name.startswith("x-ratelimit") or name == "x-request-id"]


@pytest.mark.parametrize("body", [{"error": {"message": "mine"}}, "<p>mine</p>"])
def test_a_rule_may_bring_its_own_body(body: Any) -> None:
    """A table is sent as JSON, a text as HTML."""
    answer = Local(faults=({"kind": "status", "status": 418, "body": body},)).chat()
    assert answer.status == 418
    assert b"mine" in answer.content


def test_bodies_can_lack_what_they_must_have() -> None:
    """Answers with 200 that are none, each broken in its own way."""
    kinds = ("missing_choices", "empty_choices", "null_content_length", "missing_usage", "negative_usage")
    sim = Local(faults=tuple({"kind": kind, "count": 1} for kind in kinds))
    missing, empty, null, unused, negative = (sim.chat().json for _ in kinds)
    assert "choices" not in missing
    assert empty["choices"] == []
    assert (null["choices"][0]["message"]["content"], null["choices"][0]["finish_reason"]) == (None, "length")
    assert "usage" not in unused
    assert negative["usage"]["completion_tokens"] < 0
    assert [call["completed"] for call in sim.calls()] == [True] * 5


def test_what_is_no_answer_was_not_computed() -> None:
    """HTML, an error object or nothing at all with 200: the log counts no tokens as completed."""
    kinds = ("html_200", "error_object_200", "empty_body_200")
    sim = Local(faults=tuple({"kind": kind, "count": 1} for kind in kinds))
    page, error, nothing = (sim.chat() for _ in kinds)
    assert [answer.status for answer in (page, error, nothing)] == [200] * 3
    assert page.headers["content-type"].startswith("text/html")
    assert error.error["type"] == "internal_server_error"
    assert nothing.content == b""
    assert sim.stats()["completed"] == 0


def test_slow_answers_take_longer() -> None:
    """The answer is right and late."""
    sim = Local(faults=({"kind": "slow", "delay_s": 30},))
    assert sim.chat().status == 200
    assert sum(sim.clock.slept) == 30


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("stream_event_error", "tool_use_failed"),
        ("stream_data_error", "tool_use_failed"),
        ("stream_no_done", None),
        ("stream_x_groq_error", "[DONE]"),
    ],
)
def test_streams_break_after_some_pieces(kind: str, last: str | None) -> None:
    """`at` pieces of content arrive first; the log does not count the call as completed."""
    sim = Local(faults=({"kind": kind, "at": 3},))
    answer = sim.chat(stream=True)
    pieces = [event for event in answer.events if event != "[DONE]" and event.get("choices")]
    assert sum(bool(piece["choices"][0]["delta"].get("content")) for piece in pieces) == 3
    if last == "[DONE]":
        assert answer.events[-1] == last
        assert answer.events[-2]["x_groq"]["error"]
    elif last is not None:
        error = answer.events[-1]["error"]
        assert (error["code"], error["status_code"]) == (last, 400)
        assert (b"event: error\n" in answer.content) is (kind == "stream_event_error")
    [call] = sim.calls()
    assert (call["status"], call["completed"], call["delivered"]) == (200, False, False)


def test_a_streamed_failure_is_an_event() -> None:
    """Once a stream has begun, tool_use_failed has status 200 on the wire."""
    answer = Local(faults=({"kind": "tool_use_failed"},)).chat(stream=True)
    assert (answer.status, answer.events[-1]["error"]["code"]) == (200, "tool_use_failed")
    assert b"event: error\n" in answer.content


def test_scenarios_are_checked_at_the_start() -> None:
    """A bad rule or plan in a scenario is an error before anything is served."""
    with pytest.raises(BadRule):
        Local(faults=({"kind": "wrong"},))
    with pytest.raises(BadConfig):
        SimulatorConfig(plan="enterprise")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="unknown limits"):
        Local(limits={"*": {"tokens": 5}})


def test_a_rule_knows_when_it_strikes() -> None:
    """Every kind has a phase, and a rule of it the same."""
    assert {Rule(kind).phase for kind in KINDS} == set(Phase)
