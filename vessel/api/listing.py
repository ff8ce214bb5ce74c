"""Pages of a tenant's jobs out of the index of all jobs, with a cursor that says nothing about others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vessel.client.steps import Run, Steps, run
from vessel.errors import InvalidRequest, JobNotFound
from vessel.jobs.record import JOB_ID
from vessel.keyspace.script import command
from vessel.watch import jobs_page

if TYPE_CHECKING:
    from vessel.client.asking import Asking
    from vessel.jobs.model import Job
    from vessel.wire import JobState

CHUNK, MOST_SEEN = 200, 2000
"""How many jobs are read in a round trip, and at most for one page: beyond that the caller goes on with the cursor."""

AFTER = r"^([0-9]{1,15}-[0-9]{1,9}|job_[0-9a-f]{32})$"
"""What a cursor looks like, for OpenAPI."""

_CURSOR = re.compile(r"([0-9]{1,15})-([0-9]{1,9})", re.ASCII)


def page(
    asking: Asking, limit: int, after: str | None, state: JobState | None, tier: str | None
) -> Steps[tuple[list[Job], str | None]]:
    """Read a page, newest first, and where the next one begins. Raises InvalidRequest for a cursor that is none."""
    at = 0 if after is None else (yield from _rank(asking, after))
    found: list[Job] = []
    created = 0
    stop = at + MOST_SEEN
    while at < stop:
        rows = yield from run(jobs_page(asking.door.keys, at, CHUNK))
        jobs: list[Job | None] = (yield Run([asking.door.store.peek(job_id) for job_id, _ in rows])) if rows else []
        for (_, created), job in zip(rows, jobs, strict=True):
            at += 1
            wanted = (
                job is not None
                and job.tenant == asking.tenant
                and (state is None or job.state is state)
                and (tier is None or tier in {job.tier, job.served_tier})
            )
            if job is not None and wanted:
                found.append(job)
                if len(found) == limit:
                    return found, (yield from _cursor(asking, at, created))
        if len(rows) < CHUNK:
            return found, None
    return found, (yield from _cursor(asking, at, created))


def _rank(asking: Asking, after: str) -> Steps[int]:
    """Find the rank at which a page begins: a cursor names a moment, and how many jobs of it have been shown."""
    index = asking.door.keys.index
    parts = _CURSOR.fullmatch(after)
    if parts:
        newer = yield from run(command("ZCOUNT", index, f"({parts[1]}", "+inf", parse=int))
        return newer + int(parts[2])
    if JOB_ID.fullmatch(after):
        job, rank = yield Run([asking.door.store.peek(after), command("ZREVRANK", index, after, parse=lambda r: r)])
        if job is not None and job.tenant == asking.tenant and rank is not None:
            return int(rank) + 1
        raise JobNotFound
    raise InvalidRequest("after: it must be the `next` of a page before, or the id of a job.", param="after")


def _cursor(asking: Asking, rank: int, created: int) -> Steps[str | None]:
    """Name the place before a rank; None at the end. By time, as new jobs shift every rank."""
    index = asking.door.keys.index
    newer, total = yield Run(
        [command("ZCOUNT", index, f"({created}", "+inf", parse=int), command("ZCARD", index, parse=int)]
    )
    return None if rank >= total else f"{created}-{max(0, rank - newer)}"
