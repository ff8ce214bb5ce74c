"""The resources: models, tiers, limits, and each job."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vessel.client import documents
from vessel.errors import JobNotFound
from vessel.jobs.record import JOB_ID
from vessel.mcp.answers import job_fields
from vessel.mcp.asks import MOST_CHARS
from vessel.mcp.catalog import Resource
from vessel.mcp.surveying import model_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.mcp.catalog import Call

PROPOSED = 50


def _written(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1, default=str)


async def models(call: Call, _part: str) -> str:
    """Read the models."""
    return _written([model_document(info) for info in await call.client.models()])


async def tiers(call: Call, _part: str) -> str:
    """Read the tiers."""
    return _written([asdict(info) for info in await call.client.tiers()])


async def limits(call: Call, _part: str) -> str:
    """Read the gates."""
    return _written([documents.gate(gate) for gate in await call.client.limits()])


async def job(call: Call, job_id: str) -> str:
    """Read a job. Raises JobNotFound, also for another tenant's."""
    if not JOB_ID.fullmatch(job_id):
        raise JobNotFound
    found = await call.client.job(job_id)
    waiting = None if found.terminal else documents.waiting(await call.client.waiting(found))
    return _written(job_fields(found, waiting, MOST_CHARS))


async def newest(call: Call, begun: str) -> Sequence[str]:
    """Propose ids of jobs, the newest first."""
    return [found.id for found in await call.client.jobs(limit=PROPOSED) if found.id.startswith(begun)]


RESOURCES = (
    Resource(
        "vessel://models", "models", "Models", "Every model: tier, lengths, prices, and whether it is served.", models
    ),
    Resource("vessel://tiers", "tiers", "Tiers", "Every tier: its model, live workers, jobs that wait.", tiers),
    Resource(
        "vessel://limits",
        "limits",
        "Limits",
        "What is left of every rate limit, breakers, bookings, and who waits.",
        limits,
    ),
    Resource(
        "vessel://jobs/{id}", "job", "A job", "A job: state, attempts, why it waits, and its answer.", job,
        complete=newest,
    ),
)  # fmt: skip
