"""After the first token of a stream nothing is tried again, whatever happened; before it everything is as ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from vessel.jobs.model import Hop
from vessel.routing.fallback import Complete, Fail, Park, Reroute, Retry, Situation, decide
from vessel.upstream.outcome import Charge, Failure, Reason, Success, Usage
from vessel.wire import JobState, OnOutage, Policy

if TYPE_CHECKING:
    from vessel.routing.decision import Decision

HOPS = (Hop("openai/gpt-oss-120b", "power"), Hop("openai/gpt-oss-20b", "speed_demon"), Hop("openai:gpt", "power"))


def decided(outcome: Failure | Success, **more: Any) -> Decision:
    """Decide on a job that could still go anywhere."""
    situation: dict[str, Any] = {
        "hops": HOPS,
        "hop": 0,
        "policy": Policy(on_outage=OnOutage.FAILOVER, max_attempts=20),
        "counted_attempts": 1,
        "uncounted_attempts": 0,
        "attempts_on_this_hop": 1,
        "now_ms": 1000,
        "created_at": 0,
        "failover": 2,
        "streamed": True,
    }
    return decide(Situation(**situation | more), outcome)


def failure(reason: Reason, status: int | None = 500) -> Failure:
    """Describe a call that failed."""
    return Failure("openai/gpt-oss-120b", reason, "It broke.", status=status, charge=Charge.UNKNOWN)


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("more", [{}, {"outage": True}, {"hop": 2}, {"deadline_at": 1}, {"counted_attempts": 20}])
def test_a_stream_that_broke_ends_its_job(reason: Reason, more: dict[str, Any]) -> None:
    """Whatever broke it, and wherever else the job could go."""
    decision = decided(failure(reason), **more)
    assert isinstance(decision, Fail)
    assert (decision.state, decision.reason) == (JobState.FAILED, "stream_broken")
    assert decision.message.startswith("It broke. ")


def test_a_stream_that_was_cut_by_us_is_cancelled() -> None:
    """A cancel, and readers who left, are no fault of the stream."""
    decision = decided(failure(Reason.CANCELLED, None))
    assert isinstance(decision, Fail)
    assert (decision.state, decision.reason) == (JobState.CANCELLED, "cancelled")


def test_a_whole_stream_is_a_result() -> None:
    """As any other answer is."""
    assert decided(Success("m", b"{}", Usage(), None, "stop")) == Complete()


@pytest.mark.parametrize("reason", [Reason.CONNECTION_LOST, Reason.TIMEOUT, Reason.RATE_LIMITED, Reason.OVER_CAPACITY])
def test_before_the_first_token_the_chain_is_walked(reason: Reason) -> None:
    """Nobody has seen anything of the answer yet."""
    assert isinstance(decided(failure(reason), streamed=False), (Retry, Reroute, Park))
