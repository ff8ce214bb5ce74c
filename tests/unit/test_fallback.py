"""decide(): every reason has its consequence in one table, and the waits keep to their bounds."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.jobs.model import Hop
from vessel.routing.fallback import (
    MAX_UNCOUNTED,
    OUTAGE_CAP_MS,
    Complete,
    Decision,
    Fail,
    Park,
    Reroute,
    Retry,
    Situation,
    decide,
)
from vessel.upstream.outcome import NEVER, Failure, Reason, Success, Usage
from vessel.wire import JobState, Policy, Priority

HOPS = (Hop("first", "power"), Hop("second", "balanced"), Hop("third", "ultra_fast"))
NOW = 1_000_000
RETRIED = (
    *(Reason.SERVER_ERROR, Reason.TOOL_USE_FAILED, Reason.JSON_VALIDATE_FAILED, Reason.CONNECTION_LOST),
    *(Reason.TIMEOUT, Reason.PROTOCOL_ERROR, Reason.DEPENDENCY_FAILED, Reason.UNPROCESSABLE),
)
"""Reasons for which the same call may work later, and that use up an attempt."""


def situation(*, policy: dict[str, Any] | None = None, **changes: Any) -> Situation:
    """Build a situation after one counted call on the first of three hops."""
    plain: dict[str, Any] = {
        "hops": HOPS,
        "hop": 0,
        "counted_attempts": 1,
        "uncounted_attempts": 0,
        "attempts_on_this_hop": 1,
        "now_ms": NOW,
        "created_at": NOW - 1_000,
        "jitter": 0.5,
        "tried": frozenset({"first", "second", "third"}),
    }
    return Situation(policy=Policy.model_validate(policy or {}), **(plain | changes))


def failed(reason: Reason, **more: Any) -> Failure:
    """Build a failure on the first model."""
    return Failure("first", reason, "It did not work.", **more)


def decided(reason: Reason, retry_after_s: float | None = None, **changes: Any) -> Decision:
    """Decide on a failure of that reason."""
    return decide(situation(**changes), failed(reason, retry_after_s=retry_after_s))


def test_a_success_completes() -> None:
    """An answer is the job's result, however late."""
    late = situation(deadline_at=NOW - 1, counted_attempts=9, uncounted_attempts=99)

    assert decide(late, Success("first", b"{}", Usage(), None, "stop")) == Complete()


LAST = {"hop": 2}
CONSEQUENCES: dict[Reason, tuple[Decision | type[Decision], Decision | type[Decision], type[Decision]]] = {
    # reason: on the first hop after one call, on it after two calls, on the last hop after two calls
    Reason.RATE_LIMITED: (Retry, Retry, Retry),
    Reason.TOO_LARGE: (Reroute(1, "too_large"), Reroute(1, "too_large"), Fail),
    Reason.CONTEXT_LENGTH: (Reroute(1, "context_length_exceeded"), Reroute(1, "context_length_exceeded"), Fail),
    Reason.MODEL_GONE: (Reroute(1, "model_gone"), Reroute(1, "model_gone"), Fail),
    Reason.LACKS_TOOLS: (Reroute(1, "lacks_tools"), Reroute(1, "lacks_tools"), Fail),
    Reason.OVER_CAPACITY: (Reroute(1, "over_capacity"), Reroute(1, "over_capacity"), Park),
    Reason.CONNECT_FAILED: (Retry, Park, Park),
    Reason.SERVER_ERROR: (Retry, Reroute(1, "server_error"), Retry),
    Reason.CONNECTION_LOST: (Retry, Reroute(1, "connection_lost"), Retry),
    Reason.TIMEOUT: (Retry, Reroute(1, "timeout"), Retry),
    Reason.PROTOCOL_ERROR: (Retry, Reroute(1, "upstream_protocol_error"), Retry),
    Reason.TOOL_USE_FAILED: (Retry, Reroute(1, "tool_use_failed"), Retry),
    Reason.JSON_VALIDATE_FAILED: (Retry, Reroute(1, "json_validate_failed"), Retry),
    Reason.DEPENDENCY_FAILED: (Retry, Reroute(1, "dependency_failed"), Retry),
    Reason.UNAUTHORIZED: (Park, Park, Park),
    Reason.NO_KEY: (Park, Park, Park),
    Reason.BAD_REQUEST: (Fail, Fail, Fail),
    Reason.FORBIDDEN: (Park, Park, Park),
    Reason.SPEND_LIMIT: (Park, Park, Park),
    Reason.MAINTENANCE: (Park, Park, Park),
    Reason.BREAKER_OPEN: (Park, Park, Park),
    Reason.OVER_BUDGET: (Park, Park, Park),
    Reason.UNPROCESSABLE: (Retry, Reroute(1, "unprocessable"), Retry),
    Reason.RESPONSE_TOO_LARGE: (Fail, Fail, Fail),
    Reason.CANCELLED: (Fail, Fail, Fail),
}


NEVER_TAKE_IT = (Reason.TOO_LARGE, Reason.CONTEXT_LENGTH, Reason.LACKS_TOOLS, Reason.MODEL_GONE)


def test_the_table_covers_every_reason() -> None:
    """A new reason cannot be forgotten here."""
    assert set(CONSEQUENCES) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_its_consequence(reason: Reason) -> None:
    """What follows a failure depends on its reason, the calls made and the hops that are left."""
    # A model that is gone and has no successor is among the unavailable ones; the others cannot take this job either.
    gone: dict[str, Any] = {"unavailable": frozenset({"third"})} if reason is Reason.MODEL_GONE else {}
    gone |= {"unfit": frozenset({0, 1})} if reason in NEVER_TAKE_IT else {}
    found = (
        decided(reason),
        decided(reason, counted_attempts=2, attempts_on_this_hop=2),
        decided(reason, counted_attempts=2, attempts_on_this_hop=2, hop=2, **gone),
    )

    for decision, expected in zip(found, CONSEQUENCES[reason], strict=True):
        if isinstance(expected, type):
            assert isinstance(decision, expected)
        else:
            assert decision == expected


@pytest.mark.parametrize("reason", [Reason.BAD_REQUEST, Reason.RESPONSE_TOO_LARGE])
def test_a_permanent_error_never_walks_the_chain(reason: Reason) -> None:
    """It fails at once under its own name, even past a deadline; the seed sent it to every model."""
    decision = decided(reason, deadline_at=NOW - 1)

    assert isinstance(decision, Fail)
    assert (decision.state, decision.reason) == (JobState.FAILED, str(reason))
    assert "No other model was tried" in decision.message


def test_a_cancelled_call_cancels_the_job() -> None:
    """The terminal state is cancelled, not failed."""
    decision = decided(Reason.CANCELLED)
    assert isinstance(decision, Fail)
    assert decision.state is JobState.CANCELLED


@pytest.mark.parametrize(
    ("priority", "speed", "patience_s"),
    [
        ("interactive", "balanced", 2),
        ("normal", "balanced", 10),
        ("batch", "balanced", 60),
        ("interactive", "fast", 1),
        ("normal", "fast", 5),
        ("batch", "fast", 30),
    ],
)
def test_a_short_quota_wait_is_waited_and_a_long_one_steps_down(priority: str, speed: str, patience_s: int) -> None:
    """Each lane has its patience, and `fast` halves it."""
    policy = {"priority": priority, "speed_priority": speed}

    assert decided(Reason.RATE_LIMITED, patience_s, policy=policy) == Retry(patience_s * 1000, "rate_limited")
    assert decided(Reason.RATE_LIMITED, patience_s + 0.1, policy=policy) == Reroute(1, "rate_limited")


def test_the_last_hop_waits_for_its_quota() -> None:
    """With no hop left the job parks until there is room, and uses no attempt."""
    assert decided(Reason.RATE_LIMITED, 578.016, **LAST) == Park(578_016, "rate_limited", 2)


def test_the_job_parks_for_the_model_that_is_free_first() -> None:
    """Of all models that are only blocked, the one with the shortest wait is resumed."""
    waits = {"first": 20_000, "second": 90_000}

    assert decided(Reason.RATE_LIMITED, 60, wait_ms=waits, **LAST) == Park(20_000, "rate_limited", 0)
    gone = frozenset({"first"})
    assert decided(Reason.RATE_LIMITED, 60, wait_ms=waits, unavailable=gone, **LAST) == Park(60_000, "rate_limited", 2)


def test_a_blocked_or_gone_hop_is_stepped_over() -> None:
    """Stepping down looks for a model that can serve now."""
    assert decided(Reason.OVER_CAPACITY, wait_ms={"second": 60_000}) == Reroute(2, "over_capacity")
    assert decided(Reason.OVER_CAPACITY, unavailable=frozenset({"second"})) == Reroute(2, "over_capacity")
    assert decided(Reason.OVER_CAPACITY, wait_ms={"second": 9_000}) == Reroute(1, "over_capacity")


def test_a_gone_model_with_a_live_successor_is_asked_again() -> None:
    """At the end of the chain the successor serves in the model's name, at once."""
    assert decided(Reason.MODEL_GONE, hops=HOPS[:1]) == Retry(0, "model_gone")
    assert isinstance(decided(Reason.MODEL_GONE, hops=HOPS[:1], unavailable=frozenset({"first"})), Fail)


def test_too_large_fails_with_its_sizes() -> None:
    """Nobody has to guess by how much a prompt is too long."""
    outcome = failed(Reason.TOO_LARGE, requested=34_031, limit_value=8_000)
    decision = decide(situation(hop=2, unfit=frozenset({0, 1})), outcome)

    assert isinstance(decision, Fail)
    assert "34031 tokens are asked for, 8000 are allowed" in decision.message


@pytest.mark.parametrize("reason", RETRIED)
def test_counted_attempts_are_a_budget(reason: Reason) -> None:
    """The last counted attempt ends the job under its reason, whatever hops are left."""
    decision = decided(reason, counted_attempts=5, attempts_on_this_hop=1)

    assert isinstance(decision, Fail)
    assert decision.reason == str(reason)
    assert "All 5 attempts" in decision.message


def test_uncounted_attempts_end_some_day() -> None:
    """A job refused fifty times for its model's quota, without a real try, is given up."""
    assert not isinstance(decided(Reason.RATE_LIMITED, counted_attempts=0, uncounted_attempts=MAX_UNCOUNTED - 1), Fail)
    assert isinstance(decided(Reason.RATE_LIMITED, counted_attempts=0, uncounted_attempts=MAX_UNCOUNTED), Fail)


VESSEL_WIDE = (
    *(Reason.OVER_CAPACITY, Reason.CONNECT_FAILED, Reason.NO_KEY, Reason.UNAUTHORIZED),
    *(Reason.SPEND_LIMIT, Reason.MAINTENANCE, Reason.BREAKER_OPEN, Reason.OVER_BUDGET),
)


@pytest.mark.parametrize("reason", VESSEL_WIDE)
def test_what_stops_everybody_never_uses_a_job_up(reason: Reason) -> None:
    """An outage, a bad key, maintenance and a spend cap may last for hours; the gate bounds how often they are met."""
    assert not isinstance(decided(reason, counted_attempts=5, uncounted_attempts=10 * MAX_UNCOUNTED), Fail)


def test_one_requests_403_does_not_go_on_for_ever() -> None:
    """Alone it is the request's own trouble; while the breaker is open it is everybody's."""
    assert isinstance(decided(Reason.FORBIDDEN, counted_attempts=0, uncounted_attempts=MAX_UNCOUNTED), Fail)
    waits = decided(Reason.FORBIDDEN, counted_attempts=0, uncounted_attempts=MAX_UNCOUNTED, outage=True)
    assert isinstance(waits, Park)


def test_maintenance_without_an_end_ends_no_job_before_its_time() -> None:
    """It may be lifted before the deadline or max_wait; who is looked at after one of them has waited in vain."""
    open_ended = failed(Reason.MAINTENANCE, detail="maintenance", retry_after_s=0)
    assert isinstance(decide(situation(policy={"max_wait": 5}, deadline_at=NOW + 9_000), open_ended), Park)
    over = decide(situation(policy={"max_wait": 0.5}), open_ended)
    assert isinstance(over, Fail)
    assert (over.reason, "longer than max_wait=0.5 s" in over.message) == ("max_wait", True)


@pytest.mark.parametrize("reason", [Reason.SERVER_ERROR, Reason.TIMEOUT, Reason.CONNECTION_LOST])
def test_a_failure_while_the_breaker_is_open_is_waited_out(reason: Reason) -> None:
    """The call that looks whether the model is back is no try of the job."""
    assert isinstance(decided(reason, counted_attempts=5, outage=True), Park)
    assert isinstance(decided(reason, counted_attempts=5), Fail)


def test_one_models_breaker_sends_the_job_to_the_next_model() -> None:
    """That of the provider holds for all of them, so the job waits where it is."""
    alone, all_models = (failed(Reason.BREAKER_OPEN, detail=detail) for detail in ("model", "provider"))

    assert decide(situation(), alone) == Reroute(1, "breaker_open")
    assert isinstance(decide(situation(), all_models), Park)


@pytest.mark.parametrize("reason", [Reason.MAINTENANCE, Reason.BREAKER_OPEN, Reason.OVER_BUDGET])
def test_what_is_held_waits_as_long_as_the_gate_says(reason: Reason) -> None:
    """Until the maintenance is over, the next look at the model is due, or the budget's day ends."""
    assert decided(reason, 3_600, hop=1, hops=HOPS[:2]) == Park(3_600_000, str(reason), 1)
    told = decided(reason, 3_600, policy={"on_outage": "fail"}, hop=2)
    assert isinstance(told, Fail)
    assert "on_outage" in told.message


def test_what_never_fits_a_cap_goes_down_the_chain_and_fails_at_its_end() -> None:
    """A cheaper model may fit; no wait would help, so nothing waits, blocked or not and whatever the job asks for."""
    never = failed(Reason.OVER_BUDGET, detail=NEVER)
    blocked = {"first": 60_000, "second": 60_000}
    assert decide(situation(wait_ms=blocked), never) == Reroute(1, "over_budget")
    assert decide(situation(unavailable=frozenset({"second"})), never) == Reroute(2, "over_budget")
    told = decide(situation(hop=2, wait_ms=blocked, unfit=frozenset({0, 1})), never)
    assert isinstance(told, Fail)
    assert (told.state, told.reason) == (JobState.FAILED, "over_budget")


@pytest.mark.parametrize("reason", [Reason.OVER_CAPACITY, Reason.CONNECT_FAILED])
def test_an_outage_is_waited_out_from_the_first_hop(reason: Reason) -> None:
    """Even with the budget used up: an outage says nothing about the job. The waits grow up to a cap."""
    waits = []
    for tries in (1, 3, 6, 12, 24, 44):
        decision = decided(reason, counted_attempts=5, uncounted_attempts=tries, jitter=0.999, **LAST)
        assert isinstance(decision, Park)
        assert decision.hop == 0
        waits.append(decision.delay_ms)

    assert waits == sorted(waits)
    assert waits[-1] <= OUTAGE_CAP_MS[Priority.NORMAL]


@pytest.mark.parametrize("reason", [Reason.OVER_CAPACITY, Reason.CONNECT_FAILED, Reason.UNAUTHORIZED, Reason.NO_KEY])
def test_who_asks_to_fail_in_an_outage_is_never_parked(reason: Reason) -> None:
    """`on_outage: fail` ends the job once its tries are used up."""
    policy = {"on_outage": "fail"}
    decision = decided(reason, counted_attempts=0, uncounted_attempts=5, policy=policy, **LAST)

    assert isinstance(decision, Fail)
    assert "on_outage" in decision.message


def test_a_bad_key_is_waited_for_between_5_and_30_seconds() -> None:
    """Every job would fail alike, so none does; the wait grows with the tries and stays on its hop."""
    for tries, jitter in product(range(1, MAX_UNCOUNTED), (0.0, 0.999)):
        decision = decided(Reason.UNAUTHORIZED, uncounted_attempts=tries, counted_attempts=0, jitter=jitter, hop=1)
        assert isinstance(decision, Park)
        assert 5_000 <= decision.delay_ms <= 30_000
        assert decision.hop == 1


def test_fast_steps_down_after_one_try() -> None:
    """Who is in a hurry is not kept on a model that just failed."""
    assert decided(Reason.SERVER_ERROR, policy={"speed_priority": "fast"}) == Reroute(1, "server_error")


@pytest.mark.parametrize(
    "reason", [Reason.RATE_LIMITED, Reason.OVER_CAPACITY, Reason.SERVER_ERROR, Reason.UNAUTHORIZED]
)
def test_a_wait_beyond_the_deadline_ends_the_job_now(reason: Reason) -> None:
    """A wait that cannot help is not waited: the job expires and says so."""
    decision = decided(reason, 30, deadline_at=NOW + 50, counted_attempts=3, attempts_on_this_hop=3, jitter=0.9, **LAST)
    assert isinstance(decision, Fail)
    assert (decision.state, decision.reason) == (JobState.EXPIRED, "deadline")


def test_a_retry_that_would_miss_the_deadline_steps_down_instead() -> None:
    """While there is another model, it is asked at once."""
    assert decided(Reason.RATE_LIMITED, 2, deadline_at=NOW + 1_500) == Reroute(1, "rate_limited")
    assert decided(Reason.SERVER_ERROR, deadline_at=NOW + 60) == Reroute(1, "server_error")


def test_max_wait_caps_all_waiting() -> None:
    """A job that has waited for most of max_wait steps down, and fails when there is nowhere to go."""
    policy = {"max_wait": 3}

    assert decided(Reason.RATE_LIMITED, 1.5, policy=policy) == Retry(1500, "rate_limited")
    assert decided(Reason.RATE_LIMITED, 2.5, policy=policy) == Reroute(1, "rate_limited")
    last = decided(Reason.RATE_LIMITED, 2.5, policy=policy, **LAST)
    assert isinstance(last, Fail)
    assert last.reason == "max_wait"


def test_a_failure_tells_what_happened_what_was_done_and_what_to_do() -> None:
    """The text names the calls and the model that came last."""
    decision = decided(Reason.BAD_REQUEST, counted_attempts=2, hop=1)

    assert isinstance(decision, Fail)
    assert decision.message.startswith("It did not work. ")
    assert decision.message.endswith("Calls made: 2, the last one on second.")


@given(
    st.sampled_from(sorted(Reason)),
    st.fixed_dictionaries(
        {
            "hop": st.integers(0, 2),
            "counted_attempts": st.integers(0, 6),
            "uncounted_attempts": st.integers(0, 60),
            "attempts_on_this_hop": st.integers(0, 6),
            "jitter": st.floats(0, 1, exclude_max=True),
            "deadline_at": st.none() | st.integers(NOW - 10, NOW + 100_000),
            "unavailable": st.frozensets(st.sampled_from(["first", "second", "third"])),
            "unfit": st.frozensets(st.integers(0, 2)),
            "tried": st.frozensets(st.sampled_from(["first", "second", "third"])),
            "wait_ms": st.dictionaries(st.sampled_from(["first", "second", "third"]), st.integers(1, 10**7)),
        }
    ),
    st.none() | st.floats(0, 10**5),
    st.sampled_from(["queue", "fail", "failover"]),
    st.sampled_from(["interactive", "normal", "batch"]),
)
def test_no_decision_breaks_a_promise(
    reason: Reason, changes: dict[str, Any], retry_after_s: float | None, on_outage: str, priority: str
) -> None:
    """Whatever the situation: no wait past the deadline, no hop that is unavailable, no endless job."""
    policy = {"on_outage": on_outage, "priority": priority}
    s = situation(policy=policy, **changes)
    decision = decide(s, failed(reason, retry_after_s=retry_after_s))

    assert not isinstance(decision, Complete)
    if isinstance(decision, (Retry, Park)) and reason is not Reason.MAINTENANCE:
        assert decision.delay_ms >= 0
        assert s.deadline_at is None or s.now_ms + decision.delay_ms < s.deadline_at
    if isinstance(decision, Reroute):
        assert decision.hop > s.hop
        assert s.hops[decision.hop].model not in s.unavailable
        assert decision.hop not in s.unfit
    if isinstance(decision, Fail):
        assert decision.state in {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED}
        assert decision.message
    elif reason not in VESSEL_WIDE:
        assert s.uncounted_attempts < MAX_UNCOUNTED
