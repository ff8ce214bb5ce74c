"""Pages of a tenant's own jobs; a cursor is the place of a job, which stays where it is while others are added."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vessel.client.looking import check_tier
from vessel.client.steps import Run, Steps, run
from vessel.errors import InvalidRequest, JobNotFound
from vessel.jobs.record import JOB_ID
from vessel.watch.calls import jobs_at, jobs_since

if TYPE_CHECKING:
    from vessel.client.asking import Asking
    from vessel.jobs.model import Job
    from vessel.wire import JobState

CHUNK, MOST_SEEN = 200, 2000
"""How many jobs are read in a round trip, and at most for one page: beyond that the caller goes on with the cursor."""

AFTER = r"^([0-9]{1,15}-)?job_[0-9a-f]{32}$"
"""What a cursor looks like, for OpenAPI."""

_CURSOR = re.compile(r"([0-9]{1,15})-(job_[0-9a-f]{32})", re.ASCII)
_Place = tuple[int, str]
"""When a job was created, and its id: many share a millisecond."""


def page(
    asking: Asking, limit: int, after: str | None, state: JobState | None, tier: str | None
) -> Steps[tuple[list[Job], str | None]]:
    """Read a page, newest first, and where the next one begins. Raises InvalidRequest for a cursor that is none."""
    check_tier(asking.door.registry, tier)
    place = None if after is None else (yield from _place(asking, after))
    found: list[tuple[_Place, Job]] = []
    seen = 0
    while seen < MOST_SEEN:
        rows = yield from _rows(asking, place)
        jobs: list[Job | None] = (yield Run([asking.door.store.peek(job_id) for job_id, _ in rows])) if rows else []
        for (job_id, created), job in zip(rows, jobs, strict=True):
            place = (created, job_id)
            if job is None or not _wanted(asking, job, state, tier):
                continue
            if len(found) == limit:
                return [one for _, one in found], _cursor(found[-1][0])
            found.append((place, job))
        seen += len(rows)
        if len(rows) < CHUNK:
            return [one for _, one in found], None
    return [one for _, one in found], _cursor(place) if place is not None else None


def _rows(asking: Asking, place: _Place | None) -> Steps[list[tuple[str, int]]]:
    """Read the rows behind a place, also where its own job has gone since."""
    keys, tenant = asking.door.keys, asking.tenant
    if place is None:
        return (yield from run(jobs_since(keys, tenant, None, 0, CHUNK)))
    created, last = place
    same: list[str] = yield from run(jobs_at(keys, tenant, created))
    skip = sum(job_id >= last for job_id in same)
    return (yield from run(jobs_since(keys, tenant, created, skip, CHUNK)))


def _wanted(asking: Asking, job: Job, state: JobState | None, tier: str | None) -> bool:
    return (
        job.tenant == asking.tenant
        and (state is None or job.state is state)
        and (tier is None or tier in {job.tier, job.served_tier})
    )


def _place(asking: Asking, after: str) -> Steps[_Place]:
    parts = _CURSOR.fullmatch(after)
    if parts:
        return int(parts[1]), parts[2]
    if JOB_ID.fullmatch(after):
        job: Job | None = yield from run(asking.door.store.peek(after))
        if job is not None and job.tenant == asking.tenant:
            return job.created_at, job.id
        raise JobNotFound
    raise InvalidRequest("after: it must be the `next` of a page before, or the id of a job.", param="after")


def _cursor(place: _Place) -> str:
    return f"{place[0]}-{place[1]}"
