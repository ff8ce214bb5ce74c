"""A job's life as a timeline: what happened, when, and why it waited. Prompts and answers are in none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.api.cures import way_out
from vessel.client import documents
from vessel.observe.moments import moment
from vessel.upstream.outcome import Reason
from vessel.wire import TERMINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vessel.client.following import JobEvent
    from vessel.jobs.model import Attempt, Job
    from vessel.watch.waiting import Waiting

_TITLES = {
    "created": "Accepted",
    "fed": "Its turn came: handed to the workers",
    "claimed": "Taken by a worker",
    "streaming": "The answer began to come",
    "parked": "Waits",
    "requeued": "Goes on with another model",
    "released": "Given back before it started",
    "promoted": "The wait is over",
    "reissued": "Its ticket was lost and issued anew",
    "carried": "Carried over to another queue",
    "rescued": "Its worker was lost, so it waits again",
    "cancel_requested": "Cancelling was asked for",
    JobState.SUCCEEDED: "Succeeded",
    JobState.FAILED: "Failed",
    JobState.CANCELLED: "Cancelled",
    JobState.EXPIRED: "Expired",
}
_WHYS: dict[str, str] = {
    "quota": "for quota",
    Reason.RATE_LIMITED: "for quota: a limit is used up",
    Reason.MAINTENANCE: "until the maintenance is over",
    Reason.BREAKER_OPEN: "for the breaker: too many calls went wrong",
    Reason.OVER_BUDGET: "for a spend cap",
    Reason.OVER_CAPACITY: "because Groq has no room",
    Reason.CONNECT_FAILED: "because Groq cannot be reached",
    Reason.SERVER_ERROR: "after an error of Groq's",
}
_LOUD = {JobState.FAILED, JobState.EXPIRED}
_SHOWN_POLICY = ("deadline", "on_outage", "fallback", "max_attempts", "max_wait", "max_cost_usd", "tags")
"""Of the policy; its context and webhook may hold what is nobody's business."""


def life(job: Job, events: Iterable[JobEvent], waiting: Waiting | None) -> dict[str, Any]:
    """Describe a job and its life so far."""
    attempts = {str(attempt.number): attempt for attempt in job.attempts}
    return documents.job(job) | {
        "message": job.message or None,
        "way_out": way_out(job.reason or str(job.state)) if _went_wrong(job) else None,
        "batch": job.batch or None,
        "routing": list(job.reasons),
        "chain": [hop.model for hop in job.hops],
        "policy": {name: job.policy[name] for name in _SHOWN_POLICY if name in job.policy},
        "deadline_at": moment(job.deadline_at),
        "waiting": documents.waiting(waiting),
        "timeline": [_told(event, attempts) for event in events],
    }


def _went_wrong(job: Job) -> bool:
    return job.state in TERMINAL and job.state is not JobState.SUCCEEDED


def _told(event: JobEvent, attempts: dict[str, Attempt]) -> dict[str, Any]:
    tone = "good" if event.state is JobState.SUCCEEDED else "bad" if event.state in _LOUD else "plain"
    entry: dict[str, Any] = {"at": moment(event.at), "event": event.name, "state": str(event.state), "tone": tone,
                             "title": _TITLES.get(event.name, event.name), "detail": None, "attempt": None}  # fmt: skip
    match event.name:
        case "created":
            entry["detail"] = event.detail or None  # tier and model
        case "parked":
            entry |= {"title": f"Waits {_WHYS.get(event.detail, f'({event.detail})' if event.detail else '')}".strip(),
                      "tone": "wait"}  # fmt: skip
        case "booked":
            entry |= {"title": "Waits for its booked start", "detail": _seconds(event.detail), "tone": "wait"}
        case "started":
            attempt = attempts.get(event.detail)
            entry |= {"title": f"Attempt {event.detail}", "attempt": attempt and _attempt(attempt), "tone": "call"}
        case "requeued" | "released":
            entry["detail"] = event.detail or None
        case name if name in _LOUD or name == JobState.CANCELLED:
            entry["detail"] = None if event.detail.isdecimal() else event.detail or None
        case _:
            pass
    return entry


def _seconds(text: str) -> str | None:
    return f"{int(text) / 1000:.1f} s" if text.isdecimal() else None


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "model": attempt.model,
        "tier": attempt.tier,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "reason": attempt.reason or None,
        "message": attempt.message or None,
        "duration_ms": attempt.duration_ms,
        "counted": attempt.counted,
        "cost_usd": attempt.cost_nano_usd / 1e9,
        "notes": list(attempt.notes),
    }
