"""Why an open job does not run yet, and until when: said from one look at its gate, its place and its workers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from vessel.gate.limiter import PERIOD_MS
from vessel.upstream.outcome import Reason
from vessel.wire import TERMINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vessel.gate.limiter import Charge
    from vessel.gate.view import GateView
    from vessel.jobs.model import Job
    from vessel.usage.budgets import Budget

LIMIT_NAMES = {
    "rpm": "requests per minute",
    "rpd": "requests per day",
    "tpm": "tokens per minute",
    "tpd": "tokens per day",
    "itpm": "input tokens per minute",
    "otpm": "output tokens per minute",
}


class Why(StrEnum):
    """What a job waits for."""

    NO_WORKERS = "no_workers"
    MAINTENANCE = "maintenance"
    OUTAGE = "outage"
    RETRY_AFTER = "retry_after"
    BUDGET = "budget"
    QUOTA = "quota"
    RETRY = "retry"  # an attempt failed, and the next one comes at a time
    BOOKED = "booked"  # its start is booked
    TURN = "turn"  # in the backlog, and nothing holds it back
    TICKET = "ticket"  # in a worker's queue


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a job waits, until when (epoch ms of Redis; None: nobody can know), and a sentence without its full stop.

    `estimated`: the time follows from what the job and those before it will charge, so it may come sooner or later.
    """

    why: Why
    until: int | None
    detail: str
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands: whether in the backlog, how many of its model are before it, and who could run it."""

    tier: str
    lane: int
    in_backlog: bool
    ahead: int = 0
    live_workers: int = 1


def explain(job: Job, view: GateView, charge: Charge, place: Place, budgets: Iterable[Budget] = ()) -> Waiting | None:
    """Say why a job waits, asking in the order in which the gate does; None for one that runs or has ended."""
    if job.state in TERMINAL:
        return None
    if job.state is JobState.RUNNING:
        return _booked(job, view, charge)
    return (
        _retry(job, view, place)
        or _no_workers(place)
        or _maintenance(job, view, place)
        or _closed(view, charge)
        or _over_budget(view, charge, budgets)
        or _batch_cap(job, view)
        or _its_turn(view, charge, place)
    )


def _booked(job: Job, view: GateView, charge: Charge) -> Waiting | None:
    if job.start_at is None or job.start_at <= view.now:
        return None
    return Waiting(
        Why.BOOKED, job.start_at, f"a worker has it, and its start is booked at {job.at_model or charge.model}"
    )


def _retry(job: Job, view: GateView, place: Place) -> Waiting | None:
    if job.state is not JobState.PARKED or place.in_backlog or (job.parked_until or 0) <= view.now:
        return None
    why = f": {job.message}" if job.message else ""
    return Waiting(Why.RETRY, job.parked_until, f"its next try has a time ({job.reason}){why}".rstrip("."))


def _no_workers(place: Place) -> Waiting | None:
    if place.live_workers:
        return None
    return Waiting(Why.NO_WORKERS, None, f"no worker serves tier {place.tier}; `vessel worker` starts one")


def _maintenance(job: Job, view: GateView, place: Place) -> Waiting | None:
    found = view.held(place.tier) or view.held(job.tier)
    if found is None:
        return None
    what = "Vessel" if found.tier is None else f"tier {found.tier}"
    why = f" ({found.reason})" if found.reason else ""
    return Waiting(
        Why.MAINTENANCE, found.until or None, f"{what} is in maintenance{why}; the job is held and no attempt is used"
    )


def _closed(view: GateView, charge: Charge) -> Waiting | None:
    for breaker, what in ((view.provider, "Groq"), (view.model, charge.model)):
        if breaker.state == "open":
            why = breaker.why.replace("_", " ") or "outage"
            text = f"{what} cannot be used now ({why}), and is looked at again every few seconds"
            return Waiting(Why.OUTAGE, view.now + breaker.wait_ms if breaker.wait_ms else None, text, estimated=True)
    if view.blocked_ms:
        named = LIMIT_NAMES.get(view.blocked_why)
        why = f" (its {named} are used up)" if named else ""
        return Waiting(
            Why.RETRY_AFTER, view.now + view.blocked_ms, f"Groq asked to wait before {charge.model} is called{why}"
        )
    return None


def _over_budget(view: GateView, charge: Charge, budgets: Iterable[Budget]) -> Waiting | None:
    for budget in budgets:
        short = budget.short_of(charge.nano_usd)
        if short is not None:
            name, cap = short
            whose = "of the whole vessel" if budget.tenant is None else f"of tenant {budget.tenant}"
            text = f"the spend cap {whose} for this {name} does not allow it; `vessel budget show` tells more"
            return Waiting(Why.BUDGET, max(cap.ends, view.now), text)
    return None


def _batch_cap(job: Job, view: GateView) -> Waiting | None:
    if not job.batch or job.reason != Reason.OVER_BUDGET or not job.waits_for_gate:
        return None
    text = f"calls of {job.batch} that are under way have reserved the rest of its max_cost_usd"
    return Waiting(Why.BUDGET, view.now, text, estimated=True)


def _its_turn(view: GateView, charge: Charge, place: Place) -> Waiting:
    if not place.in_backlog:
        text = f"its ticket is in the queue of tier {place.tier}; the next free slot takes it"
        return Waiting(Why.TICKET, None, text)
    wait, name = view.quota_ms(charge, place.lane)
    for limit, level in view.limits.items():
        # Those before it are taken to be of its size; beyond a full bucket it is the refill that they wait for.
        before = place.ahead * charge.cost(limit)
        needed = before + charge.cost(limit) + level.margin + view.reserve(limit, place.lane)
        rate = level.capacity / PERIOD_MS[limit]
        in_turn = math.ceil(max(0.0, needed - level.left) / rate) if before else 0
        wait, name = max((wait, name), (in_turn, limit))
    queue = f", with {place.ahead:,} {'job' if place.ahead == 1 else 'jobs'} before it" if place.ahead else ""
    if wait > 0:
        text = f"for {LIMIT_NAMES.get(name, name)} of {charge.model}{queue}"
        return Waiting(Why.QUOTA, view.now + wait, text, estimated=True)
    return Waiting(Why.TURN, None, f"its turn comes within seconds{queue}")
