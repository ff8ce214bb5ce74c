"""decide(): when a job goes back to a model that it has left, and that it never goes in a circle."""

from __future__ import annotations

import pytest

from tests.unit.test_fallback import HOPS, LAST, NEVER_TAKE_IT, decided, failed, situation
from vessel.routing.fallback import LEAST_DELAY_MS, Fail, Park, decide
from vessel.upstream.outcome import NEVER, Reason


def test_a_gone_or_too_small_last_model_leaves_the_blocked_ones_worth_waiting_for() -> None:
    """A job that stepped down because of quota goes back when the lower models cannot serve it."""
    for reason in (Reason.MODEL_GONE, Reason.TOO_LARGE):
        gone, never = frozenset({"third"}), frozenset({1})
        found = decided(
            reason, wait_ms={"first": 30_000}, unavailable=gone, unfit=never, tried=frozenset({"second"}), **LAST
        )
        assert found == Park(30_000, str(reason), 0)


def test_a_model_that_was_passed_over_is_gone_back_to() -> None:
    """It was only short of quota then, whichever worker saw it; the lower ones cannot serve this request."""
    decision = decided(Reason.TOO_LARGE, hop=1, hops=HOPS[:2], tried=frozenset({"second"}))
    assert isinstance(decision, Park)
    assert decision.hop == 0


@pytest.mark.parametrize("reason", NEVER_TAKE_IT)
def test_a_model_that_was_asked_and_may_serve_later_is_gone_back_to(reason: Reason) -> None:
    """A fallback that never takes the job says nothing about the model whose 503 passes; there is a pause between."""
    gone = frozenset({"second"})
    decision = decided(reason, hop=1, hops=HOPS[:2], unavailable=gone, counted_attempts=0, uncounted_attempts=4)
    assert isinstance(decision, Park)
    assert (decision.hop, decision.timed) == (0, True)
    assert decision.delay_ms > LEAST_DELAY_MS
    assert "first" in decision.note


@pytest.mark.parametrize("reason", NEVER_TAKE_IT)
def test_a_chain_of_which_no_model_takes_the_job_ends_it(reason: Reason) -> None:
    """Whether an attempt tells so or only the gate did, it is never asked in a circle."""
    gone = frozenset({"second"})
    decision = decided(reason, hop=1, hops=HOPS[:2], unavailable=gone, unfit=frozenset({0}), tried=frozenset())
    assert isinstance(decision, Fail)
    assert decision.reason == str(reason)
    assert "No other model of the chain" in decision.message


def test_what_never_fits_a_cap_goes_back_to_a_model_that_fitted() -> None:
    """It was left for another reason, and may be the cheaper one."""
    decision = decide(situation(hop=2, unfit=frozenset({1})), failed(Reason.OVER_BUDGET, detail=NEVER))
    assert isinstance(decision, Park)
    assert decision.hop == 0


def test_quota_sends_no_job_to_a_model_that_never_takes_it() -> None:
    """That one is free at once, and would send it back at once."""
    decision = decided(Reason.RATE_LIMITED, 60, unfit=frozenset({0, 1}), tried=frozenset(), **LAST)
    assert decision == Park(60_000, "rate_limited", 2)
