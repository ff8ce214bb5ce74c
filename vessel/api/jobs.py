"""`/v1/jobs`: enqueue, look, wait, list, cancel, run again, follow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from vessel.api import examples
from vessel.api.asks import JobRequest
from vessel.api.auth import Tenant
from vessel.api.calling import Repeats
from vessel.api.faults import documented
from vessel.api.listing import AFTER, page
from vessel.api.longpoll import ended
from vessel.api.pacing import beating
from vessel.api.session import Here
from vessel.client import documents
from vessel.client.following import events
from vessel.client.gates import explained
from vessel.client.looking import cancel, job_of, webhook_of
from vessel.errors import JobNotFound, WrongState
from vessel.jobs.record import JOB_ID
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vessel.api.session import Session
    from vessel.jobs.model import Job

router = APIRouter(tags=["jobs"])
LONGEST_WAIT_S = 300
ACCEPTED = {"id": examples.JOB_ID, "object": "job", "state": "queued", "tier": "ultra_fast",
            "model": "openai/gpt-oss-20b", "existing": False}  # fmt: skip
_JOB = examples.answers("Job", "The job.", examples.JOB)


async def _job_id(job_id: Annotated[str, Path(description="A job's id.", max_length=200)]) -> str:
    """Check an id's form, so that it names nothing but a job. Raises JobNotFound."""
    if not JOB_ID.fullmatch(job_id):
        raise JobNotFound
    return job_id


@router.post(
    "/jobs",
    status_code=202,
    summary="Create a job",
    responses={202: examples.answers("Accepted", "It is safely in Redis.", ACCEPTED), **documented(404, 408, 409, 415)},
    openapi_extra={"requestBody": examples.JOB_BODY},
)
async def create(request: Request, response: Response, tenant: Tenant, asked: JobRequest, here: Here) -> dict[str, Any]:
    """Enqueue a chat-completions body with its `vessel` object, and return at once."""
    calling = here.asking(tenant)
    repeats = Repeats.of(here.door.keys, tenant, request.url.path, asked.body.raw)
    begun = await here.run(calling.begin(asked.ask(), here.waiter, repeats, repeated=asked.repeated, waits=False))
    response.headers["location"] = f"/v1/jobs/{begun.id}"
    job = await here.runner.run(here.door.store.peek(begun.id))
    if job is None:
        raise JobNotFound
    return accepted(job, existing=begun.prepared is None)


def accepted(job: Job, *, existing: bool) -> dict[str, Any]:
    """Describe a job that was just accepted."""
    known = documents.job(job)
    return {name: known[name] for name in ("id", "object", "state", "tier", "model")} | {"existing": existing}


@router.get(
    "/jobs",
    summary="List jobs",
    responses={200: examples.answers("JobList", "A page, newest first.", {"object": "list", "data": [examples.JOB],
               "first_id": examples.JOB_ID, "last_id": examples.JOB_ID, "has_more": False, "next": None}),
               **documented(404)},
)  # fmt: skip
async def list_jobs(
    tenant: Tenant,
    here: Here,
    limit: Annotated[int, Query(ge=1, le=100, description="At most so many.")] = 20,
    after: Annotated[
        str | None,
        Query(max_length=100, pattern=AFTER, description="The `next` of the page before, or a job's id."),
    ] = None,
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    tier: Annotated[str | None, Query(max_length=64, description="Only jobs of this tier.")] = None,
) -> dict[str, Any]:
    """List jobs without their payloads. A page may be short, or empty, while there are more: go on with `next`."""
    found, following = await here.run(page(here.asking(tenant), limit, after, state, tier))
    return {
        "object": "list",
        "data": [documents.job(job) for job in found],
        "first_id": found[0].id if found else None,
        "last_id": found[-1].id if found else None,
        "has_more": following is not None,
        "next": following,
    }


JobId = Annotated[str, Path(description="A job's id.", max_length=200)]


@router.get("/jobs/{job_id}", summary="Retrieve a job", responses={200: _JOB, **documented(404)})
async def retrieve(
    request: Request,
    job_id: JobId,
    tenant: Tenant,
    here: Here,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT_S, allow_inf_nan=False, description="Wait so many seconds for its end.")
    ] = 0,
) -> dict[str, Any]:
    """Retrieve a job whole: its state, attempts and, once it has one, its answer in `response`.

    With `wait` the answer comes when the job ends, or when the time is over; look at `state`.
    """
    await _job_id(job_id)
    if wait:
        await ended(request, here, tenant, job_id, wait)
    return await _document(here, tenant, job_id)


async def _document(here: Session, tenant: str, job_id: str) -> dict[str, Any]:
    asking = here.asking(tenant)
    job = await here.run(job_of(asking, job_id))
    waiting = None if job.terminal else await here.run(explained(asking, job))
    return documents.job(job, whole=True) | {
        "webhook": await here.run(webhook_of(here.door, job)),
        "waiting": documents.waiting(waiting),
        "response": json.loads(job.response) if job.response else None,
    }


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel a job",
    responses={200: examples.answers("Cancelled", "It is, or is being, cancelled.", {"id": examples.JOB_ID,
               "object": "job", "state": "cancelled", "cancelled": True}), **documented(404, 409)},
)  # fmt: skip
async def remove(job_id: JobId, tenant: Tenant, here: Here) -> dict[str, Any]:
    """Cancel a job: at once while it waits; `cancelling` while its call is cut. One that has ended is a 409."""
    await _job_id(job_id)
    state = await here.run(cancel(here.asking(tenant), job_id))
    if state not in {"cancelled", "cancelling"}:
        raise WrongState(f"The job had {state} before, so nothing was cancelled.")
    return {"id": job_id, "object": "job", "state": state, "cancelled": True}


@router.post(
    "/jobs/{job_id}/retry",
    status_code=202,
    summary="Run an ended job again",
    responses={202: examples.answers("Accepted", "The new job.", ACCEPTED), **documented(404, 409)},
)
async def again(response: Response, job_id: JobId, tenant: Tenant, here: Here) -> dict[str, Any]:
    """Make a new job of an ended one, with `retry_of`; the old one is unchanged."""
    await _job_id(job_id)
    made = await here.run(here.asking(tenant).retry(job_id, here.waiter.reply))
    response.headers["location"] = f"/v1/jobs/{made.id}"
    job = await here.runner.run(here.door.store.peek(made.id))
    if job is None:
        raise JobNotFound
    return accepted(job, existing=made.existing)


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={
        200: {"description": "Server-sent events, one for every step, until the job has ended.",
              "content": {"text/event-stream": {"schema": {"type": "string"}, "example": (
                  'event: created\ndata: {"event":"created","state":"queued"}\nid: 1795780800000-0\n\n')}}},
        **documented(404),
    },
)  # fmt: skip
async def follow(
    job_id: JobId,
    tenant: Tenant,
    here: Here,
    last_event_id: Annotated[str | None, Header(description="Go on after this event.", max_length=64)] = None,
) -> StreamingResponse:
    """Follow a job's life from its beginning, or after `Last-Event-ID`, to its end."""
    await _job_id(job_id)
    await here.run(job_of(here.asking(tenant), job_id))

    async def told() -> AsyncIterator[bytes]:
        async for event in here.iterate(events(here.asking(tenant), job_id, follow=True)):
            if last_event_id is None or _order(event.id) > _order(last_event_id):
                text = json.dumps(documents.event(event), separators=(",", ":"))
                yield format_sse_event(data_str=text, event=event.name, id=event.id)

    return StreamingResponse(beating(told(), here.closing), media_type="text/event-stream")


def _order(event_id: str) -> tuple[int, int]:
    at, _, number = event_id.partition("-")
    return (int(at), int(number)) if at.isdecimal() and number.isdecimal() else (0, 0)
