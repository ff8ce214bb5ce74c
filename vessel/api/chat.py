"""`POST /v1/chat/completions`: a job in the interactive lane, answered with Groq's own JSON."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Request, Response

from vessel.api import examples
from vessel.api.asks import JobRequest
from vessel.api.auth import Tenant
from vessel.api.calling import Begun, Repeats
from vessel.api.faults import documented
from vessel.api.session import Here
from vessel.api.streams import streamed
from vessel.errors import InvalidRequest, VesselError
from vessel.observe.logs import get_logger
from vessel.watch import succeeded
from vessel.wire import Priority

if TYPE_CHECKING:
    from vessel.api.calling import Calling
    from vessel.api.session import Session
    from vessel.jobs.model import Job

log = get_logger(__name__)
router = APIRouter(tags=["chat"])
EVENT = r"^[0-9]{1,10}(-[0-9]{1,10})?$"
NO_READER_S = 10.0
"""How long a job goes on that nobody waits for any more: an SDK's repeat comes within 8 s (groq-facts 1.9)."""
CLIENT_LEFT = 499
"""What proxies log where the client left; nobody reads it."""


@router.post(
    "/chat/completions",
    summary="Create a chat completion",
    responses={200: examples.COMPLETION, **documented(404, 408, 409, 415, 422)},
    openapi_extra={"requestBody": examples.CHAT_BODY},
)
async def create(
    request: Request,
    tenant: Tenant,
    asked: JobRequest,
    here: Here,
    last_event_id: Annotated[
        str | None, Header(description="Go on with a stream after this event.", max_length=64, pattern=EVENT)
    ] = None,
) -> Response:
    """Ask through the queue and wait for the answer. Unknown fields are passed on.

    With `stream` tokens come as server-sent events as the model writes them; one who was cut off goes on with the same
    idempotency key and `Last-Event-ID`. A fallback happens only before the first token.

    `model` is a Groq id, a tier or `auto`; how the job is served can be said in a `vessel` object. A request whose
    client has left for ten seconds is cancelled, unless it has an idempotency key.
    """
    wants_stream = asked.body.value.get("stream") is True
    ask = replace(asked.ask(priority=Priority.INTERACTIVE), streaming=wants_stream)
    if ask.body.get("model") is None:
        raise InvalidRequest("model: name a model of Groq's, a tier, or `auto`. Nothing was enqueued.", param="model")
    calling = here.asking(tenant)
    repeats = Repeats.of(here.door.keys, tenant, request.url.path, asked.body.raw)
    begun = await here.run(calling.begin(ask, here.waiter, repeats, repeated=asked.repeated))
    if wants_stream:
        return await streamed(here, calling, begun, repeats, asked.body.value, last_event_id)
    try:
        mark = await here.runner.run(repeats.seen(begun.id))
    except VesselError:
        here.waiter.forget(begun.id)
        raise
    keeps = ask.policy.get("idempotency_key") is not None
    job = await _unless_client_leaves(request, here, calling, begun)
    if job is None:
        if not keeps:
            here.later(_abandon(here, calling, begun.id, repeats, mark))
        return Response(status_code=CLIENT_LEFT)
    await here.runner.run(repeats.delivered(begun.id))
    return rendered(succeeded(job))


def rendered(job: Job) -> Response:
    """Render a job's answer exactly as it came."""
    return Response(job.response or b"{}", media_type="application/json", headers=headers_of(job))


def headers_of(job: Job) -> dict[str, str]:
    """Tell which job it was, and who served it."""
    return {
        "x-vessel-job-id": job.id,
        "x-vessel-model": job.served_model or job.model,
        "x-vessel-tier": job.served_tier or job.tier,
        "x-vessel-attempts": str(len(job.attempts)),
    }


async def _unless_client_leaves(request: Request, here: Session, calling: Calling, begun: Begun) -> Job | None:
    """Wait for the job's end; None when the client has left before."""
    ending = asyncio.ensure_future(here.run(calling.ending(begun, here.waiter)))
    left = asyncio.ensure_future(client_left(request))
    try:
        await asyncio.wait({ending, left}, return_when=asyncio.FIRST_COMPLETED)
        return await ending if ending.done() else None
    finally:
        for task in (ending, left):
            task.cancel()
        await asyncio.gather(ending, left, return_exceptions=True)


async def client_left(request: Request) -> None:
    """Return once the connection is gone; the body must have been read."""
    message: Any = {}
    while message.get("type") != "http.disconnect":
        message = await request.receive()


async def _abandon(here: Session, calling: Calling, job_id: str, repeats: Repeats, mark: str) -> None:
    """Cancel a job that nobody waits for, after the time in which an SDK would repeat its request."""
    await asyncio.sleep(NO_READER_S)
    if await here.run(calling.abandon(job_id, repeats, mark)):
        log.info("api.abandoned", job_id=job_id)
