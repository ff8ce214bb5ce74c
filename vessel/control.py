"""Steering jobs: cancel, and run one again as a new job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vessel.errors import WrongState

if TYPE_CHECKING:
    from vessel.jobs.model import Job
    from vessel.jobs.steps import Answer
    from vessel.keyspace.script import Call
    from vessel.registry import Availability
    from vessel.submit import Door, Prepared


def cancel(door: Door, job: Job) -> Call[Answer]:
    """Cancel a job: `closed` at once while it waits, `flagged` while it runs, `terminal` when it has ended."""
    return door.store.cancel(job)


def retry(door: Door, job: Job, *, availability: Availability, reply: str = "") -> Prepared:
    """Prepare the same request as a new job with `retry_of`; the old one is unchanged.

    Raises WrongState while the old one is open.
    """
    if not job.terminal:
        raise WrongState(
            f"Job {job.id} is {job.state}, so there is nothing to retry yet. Wait for it or cancel it first."
        )
    policy = {name: value for name, value in job.policy.items() if name != "idempotency_key"}
    return door.prepare(
        json.loads(job.body), policy, availability=availability, tenant=job.tenant, reply=reply, retry_of=job.id
    )
