"""Why a job waits: the first thing that holds it, in the gate's own order, with an honest time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vessel.gate.limiter import Charge
from vessel.gate.view import Breaker, GateView, Level, Maintenance
from vessel.jobs.model import Hop, Job
from vessel.usage.budgets import Budget, Cap
from vessel.watch.waiting import Place, Waiting, Why, explain
from vessel.wire import TERMINAL, JobState, Priority

NOW = 1_000_000
CHARGE = Charge("m", "org", (), 400, 600, nano_usd=50)
BACKLOG = Place("power", 2, in_backlog=True)
FULL = GateView(NOW, {"rpm": Level("rpm", 30, 30), "tpm": Level("tpm", 6000, 6000)})
OPEN_ENDED = Maintenance(None, 0, NOW - 5, "moving")
CLOSED = Breaker("open", "server_error", 3000, NOW - 9)
SPENT = Budget(None, 0, day=Cap(100, 60, NOW + 9_000))


def job(state: JobState = JobState.QUEUED, **more: Any) -> Job:
    """Make a job of the batch lane."""
    made = Job(
        id="job_1", state=state, generation=1, tenant="t", priority=Priority.BATCH, tier="power", model="m",
        hops=(Hop("m", "power"),), hop=0, policy={}, reasons=(), created_at=NOW, updated_at=NOW, estimated_tokens=400,
        prompt_bytes=0, output_tokens=600,
    )  # fmt: skip
    return replace(made, **more)


def why(view: GateView, place: Place = BACKLOG, **more: Any) -> Waiting:
    """Explain a job that does wait."""
    found = explain(job(), view, CHARGE, place, **more)
    assert found is not None
    return found


def test_a_line_may_wait_for_its_batchs_cap() -> None:
    """Other lines have reserved the rest; no cap of a day or month holds it."""
    line = job(JobState.PARKED, batch="batch_1", reason="over_budget", waits_for_gate=True)
    found = explain(line, FULL, CHARGE, BACKLOG)
    assert found is not None
    assert (found.why, "batch_1" in found.detail) == (Why.BUDGET, True)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_ended_job_waits_for_nothing(state: JobState) -> None:
    """Whatever the gate says."""
    assert explain(job(state), replace(FULL, maintenance=(OPEN_ENDED,)), CHARGE, BACKLOG) is None


def test_a_running_job_waits_only_for_a_booked_start() -> None:
    """Then the time is known exactly."""
    assert explain(job(JobState.RUNNING), FULL, CHARGE, BACKLOG) is None
    assert explain(job(JobState.RUNNING, start_at=NOW), FULL, CHARGE, BACKLOG) is None
    booked = explain(job(JobState.RUNNING, start_at=NOW + 800), FULL, CHARGE, BACKLOG)
    assert booked is not None
    assert (booked.why, booked.until, booked.estimated) == (Why.BOOKED, NOW + 800, False)


def test_a_retry_has_its_own_time() -> None:
    """It is told with the failure before it, also while the vessel is in maintenance."""
    parked = job(JobState.PARKED, parked_until=NOW + 70, reason="server_error", message="Groq answered 500.")
    found = explain(parked, FULL, CHARGE, replace(BACKLOG, in_backlog=False))
    assert found == Waiting(Why.RETRY, NOW + 70, "its next try has a time (server_error): Groq answered 500")


def test_what_holds_it_first_is_told() -> None:
    """No worker, then maintenance, breakers, a wait that Groq asked for, a cap, and quota last."""
    empty = replace(FULL, limits={"tpm": Level("tpm", 6000, 0)})
    more: list[tuple[Why, dict[str, Any]]] = [
        (Why.QUOTA, {}),
        (Why.RETRY_AFTER, {"blocked_ms": 400, "blocked_why": "tpm"}),
        (Why.OUTAGE, {"model": CLOSED}),
        (Why.OUTAGE, {"provider": CLOSED}),
        (Why.MAINTENANCE, {"maintenance": (OPEN_ENDED,)}),
    ]
    view = empty
    for expected, change in more:
        view = replace(view, **change)
        assert why(view).why is expected
    assert why(view, replace(BACKLOG, live_workers=0)).why is Why.NO_WORKERS
    assert why(empty, budgets=[SPENT]).why is Why.BUDGET


def test_the_time_of_each_hold_is_the_gates() -> None:
    """An open end is no time; a planned one, a block and a cap have theirs; a breaker's next look is a guess."""
    assert why(replace(FULL, maintenance=(OPEN_ENDED,))).until is None
    planned = replace(OPEN_ENDED, until=NOW + 60)
    held = why(replace(FULL, maintenance=(planned,)))
    assert (held.until, held.detail) == (
        NOW + 60, "Vessel is in maintenance (moving); the job is held and no attempt is used",
    )  # fmt: skip
    assert why(replace(FULL, blocked_ms=400)).until == NOW + 400
    outage = why(replace(FULL, provider=CLOSED))
    assert (outage.until, outage.estimated) == (NOW + 3000, True)
    assert "Groq cannot be used now (server error)" in outage.detail
    assert why(FULL, budgets=[SPENT]).until == NOW + 9_000


def test_a_tiers_maintenance_holds_its_own_jobs_alone() -> None:
    """The tier that carries a job counts, and the one it was sent on to."""
    other = replace(FULL, maintenance=(replace(OPEN_ENDED, tier="balanced"),))
    assert why(other).why is Why.TURN
    assert why(other, replace(BACKLOG, tier="balanced")).detail.startswith("tier balanced is in maintenance")


def test_quota_is_told_with_the_limit_that_takes_longest() -> None:
    """1,000 tokens of 6,000 a minute, of which 400 are left, come in six seconds."""
    short = replace(FULL, limits={**FULL.limits, "tpm": Level("tpm", 6000, 400)})
    found = why(short)
    assert (found.why, found.until, found.estimated) == (Why.QUOTA, NOW + 6000, True)
    assert found.detail == "for tokens per minute of m"


def test_those_before_it_wait_too() -> None:
    """Twelve jobs of its size before it take two minutes of refill, of which a full bucket saves the first."""
    found = why(FULL, replace(BACKLOG, ahead=12))
    assert found.until == NOW + 13_000 * 10 - 60_000
    assert found.detail == "for tokens per minute of m, with 12 jobs before it"


def test_a_job_that_nothing_holds_has_its_turn() -> None:
    """In the backlog it is fed within seconds; with a ticket a worker takes it."""
    assert why(FULL).why is Why.TURN
    assert why(FULL, replace(BACKLOG, in_backlog=False)).why is Why.TICKET
