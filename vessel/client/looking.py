"""Looking at jobs: one, a list of them, and ending one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from vessel.batches.files import body_of, read_source
from vessel.client.steps import Run, Steps, run
from vessel.control import cancel as cancel_call
from vessel.errors import InvalidRequest, JobNotFound
from vessel.notify.delivery import described
from vessel.notify.store import delivery
from vessel.registry import no_tier
from vessel.watch import jobs_page
from vessel.wire import JobState, parse_duration_s

if TYPE_CHECKING:
    from vessel.client.asking import Asking
    from vessel.jobs.model import Job
    from vessel.registry import Registry
    from vessel.submit import Door

PAGE = 200
Since = datetime | timedelta | str


def job_of(asking: Asking, job_id: str) -> Steps[Job]:
    """Read a whole job. Raises JobNotFound, also for another tenant's."""
    return (yield from with_body(asking.door, _own(asking, (yield from run(asking.door.store.read(job_id))))))


def with_body(door: Door, job: Job) -> Steps[Job]:
    """Read the request of a job that is a line of a batch, whose record only says where it lies."""
    if not job.source or job.body:
        return job
    body = body_of((yield Run(door.files.range(*read_source(job.source)))))
    return replace(job, body=body, prompt_bytes=len(body))


def webhook_of(door: Door, job: Job) -> Steps[dict[str, Any] | None]:
    """Describe what became of a job's webhook; None where it has none."""
    url = job.policy.get("webhook")
    return described(url, (yield from run(delivery(door.keys, job.id)))) if url else None


def state_of(asking: Asking, job_id: str) -> Steps[JobState]:
    """Read where a job stands."""
    return _own(asking, (yield from run(asking.door.store.peek(job_id)))).state


def cancel(asking: Asking, job_id: str) -> Steps[str]:
    """Cancel a job: `cancelled`, `cancelling` while its call is cut, or the state it had ended in."""
    job = _own(asking, (yield from run(asking.door.store.peek(job_id))))
    answer = yield from run(cancel_call(asking.door, job))
    match answer.word:
        case "closed":
            return str(JobState.CANCELLED)
        case "flagged":
            return "cancelling"
        case "missing":
            raise JobNotFound
        case _:
            return answer.detail or str(job.state)


def jobs_of(asking: Asking, state: str | None, tier: str | None, since: Since | None, limit: int) -> Steps[list[Job]]:
    """List jobs without payloads, newest first."""
    wanted = None if state is None else _state(state)
    check_tier(asking.door.registry, tier)
    oldest = 0 if since is None else _epoch_ms(since)
    found: dict[str, Job] = {}
    at = 0
    while len(found) < limit:
        page = yield from run(jobs_page(asking.door.keys, at, PAGE, asking.tenant))
        at += len(page)
        ids = [job_id for job_id, created in page if created >= oldest and job_id not in found]
        jobs: list[Job | None] = (yield Run([asking.door.store.peek(job_id) for job_id in ids])) if ids else []
        for job in jobs:
            if (
                job is not None
                and job.tenant == asking.tenant
                and (wanted is None or job.state is wanted)
                and (tier is None or tier in {job.tier, job.served_tier})
            ):
                found[job.id] = job
        if len(page) < PAGE or page[-1][1] < oldest:
            break
    return list(found.values())[:limit]


def check_tier(registry: Registry, tier: str | None) -> None:
    """Raise InvalidRequest for a tier that there is not: nothing is found in it, which would look like an answer."""
    if tier is not None and tier not in registry.tiers:
        raise InvalidRequest(f"{no_tier(tier, registry.tiers)} `vessel tiers` lists them.", param="tier")


def _own(asking: Asking, job: Job | None) -> Job:
    if job is None or job.tenant != asking.tenant:
        raise JobNotFound
    return job


def _state(name: str) -> JobState:
    try:
        return JobState(name)
    except ValueError:
        raise InvalidRequest(f"state: it must be one of {', '.join(JobState)}.", param="state") from None


def _epoch_ms(since: Since) -> int:
    """Read a time, an age such as `"2h"`, or an ISO date, as epoch milliseconds. Raises InvalidRequest."""
    try:
        if isinstance(since, str):
            since = _age_or_date(since)
        if isinstance(since, timedelta):
            since = datetime.now(UTC) - since
        return int(since.timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest("since: it must be an age like 2h or a date like 2026-11-24.", param="since") from None


def _age_or_date(text: str) -> timedelta | datetime:
    try:
        return timedelta(seconds=parse_duration_s(text))
    except ValueError:
        return datetime.fromisoformat(text)
