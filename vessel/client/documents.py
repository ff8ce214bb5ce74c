"""How jobs, events and waits are described in JSON, alike for every face. Times are ISO 8601 in UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.observe.moments import moment
from vessel.registry import vessel_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vessel.client.following import JobEvent
    from vessel.client.gates import GateInfo, MaintenanceInfo
    from vessel.gate.refusals import Refused
    from vessel.gate.view import Breaker, Maintenance
    from vessel.jobs.model import Attempt, Job
    from vessel.usage.budgets import Budget, Cap
    from vessel.watch.waiting import Waiting

LANES = ("interactive", "normal", "batch")
ORDER = ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd")
NANO = 1e9


def job(found: Job, *, whole: bool = False) -> dict[str, Any]:
    """Describe a job without its payloads; `whole` adds what only a full read knows."""
    document: dict[str, Any] = {
        "id": found.id,
        "object": "job",
        "state": str(found.state),
        "tier": found.served_tier or found.tier,
        "model": found.served_model or found.model,
        "vessel": found.served_vessel,
        "priority": str(found.priority),
        "created_at": moment(found.created_at),
        "finished_at": moment(found.finished_at),
        "reason": found.reason or None,
        "usage": found.usage,
        "cost_usd": None if found.cost_usd is None else float(found.cost_usd),
        "retry_of": found.retry_of,
    }
    if whole:
        document |= {
            "message": found.message or None,
            "routing": list(found.reasons),
            "chain": [{"model": hop.model, "tier": hop.tier} for hop in found.hops],
            "policy": found.policy,
            "deadline_at": moment(found.deadline_at),
            "parked_until": moment(found.parked_until),
            "attempts": attempts(found.attempts),
        }
    return document


def attempts(made: Iterable[Attempt]) -> list[dict[str, Any]]:
    """Describe a job's calls."""
    return [one.as_dict() | {"started_at": moment(one.started_at)} for one in made]


def event(found: JobEvent) -> dict[str, Any]:
    """Describe a moment in a job's life."""
    return {
        "id": found.id,
        "event": found.name,
        "state": str(found.state),
        "at": moment(found.at),
        "generation": found.generation,
        "detail": found.detail,
    }


def waiting(found: Waiting | None) -> dict[str, Any] | None:
    """Say why a job waits."""
    if found is None:
        return None
    return {"why": str(found.why), "until": moment(found.until), "detail": found.detail}


def maintenance(info: MaintenanceInfo) -> dict[str, Any]:
    """Describe what is in maintenance and what is held."""
    return {
        "active": bool(info.active),
        "at": moment(info.now),
        "maintenance": [one_maintenance(one, info) for one in info.active],
        "held": {
            "total": info.held.total,
            "backlog": info.held.backlog,
            "tickets": info.held.tickets,
            "parked": info.held.parked,
        },
    }


def one_maintenance(one: Maintenance, info: MaintenanceInfo) -> dict[str, Any]:
    """Describe what holds all jobs, or those of a tier."""
    return {
        "tier": one.tier,
        "since": moment(one.since),
        "until": moment(one.until),
        "remaining_s": max(0, one.until - info.now) / 1000 if one.until else None,
        "reason": one.reason or None,
        "held": info.held.total if one.tier is None else info.by_tier.get(one.tier, 0),
    }


def refused(found: Refused) -> dict[str, Any]:
    """Describe how often calls of one kind were refused; the last hour with one of them by its beginning."""
    return {
        "model": found.kind.model,
        "by": found.kind.by,
        "why": found.kind.why,
        "this_hour": found.this_hour,
        "day": found.day,
        "last_hour": moment(found.last),
    }


def gate(info: GateInfo) -> dict[str, Any]:
    """Describe a model's gate: what is left of its limits, what holds it back, who waits."""
    view = info.view
    return {
        "model": info.gate,
        "tier": info.tier or None,
        "vessel": str(vessel_of(info.gate)),
        "limits": [
            {
                "name": level.name,
                "capacity": level.capacity,
                "left": round(level.left, 3),
                "margin": round(level.margin, 3),
                "learned": level.learned,
                "full_in_s": round(level.full_in_s, 3),
                "again_in_s": info.again_ms(level.name) / 1000,
            }
            for level in sorted(view.limits.values(), key=lambda level: ORDER.index(level.name))
        ],
        "breaker": breaker(view.model),
        "blocked_s": view.blocked_ms / 1000,
        "blocked_by": view.blocked_why or None if view.blocked_ms else None,
        "running": view.running,
        "fed": view.fed,
        "bookings": {
            lane: {"requests": requests, "prompt_tokens": prompt, "output_tokens": output}
            for lane, (requests, prompt, output) in zip(LANES, view.booked, strict=True)
        },
        "next_booking_at": moment(view.next_booking),
        "waiting": dict(zip(LANES, info.waiting, strict=True)),
        "longest_wait_s": (view.now - info.oldest) / 1000 if info.oldest else None,
    }


def breaker(found: Breaker) -> dict[str, Any]:
    """Describe a breaker."""
    return {
        "state": found.state,
        "why": found.why or None,
        "next_look_s": found.wait_ms / 1000,
        "since": moment(found.since),
    }


def budget(found: Budget) -> dict[str, Any]:
    """Describe the spend caps of a tenant, or of everybody (`tenant` null), in USD."""
    return {"tenant": found.tenant, "since": moment(found.since), "day": _cap(found.day), "month": _cap(found.month)}


def _cap(cap: Cap | None) -> dict[str, Any] | None:
    if cap is None:
        return None
    return {
        "cap_usd": cap.cap / NANO,
        "spent_usd": cap.spent / NANO,
        "left_usd": cap.left / NANO,
        "ends_at": moment(cap.ends),
        "warned_at": moment(cap.warned_at),
        "full_at": moment(cap.full_at),
    }
