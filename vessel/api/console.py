"""`/v1/console`: what the page at `/` shows, as one document or as a stream of what changes; and a job's life."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from vessel.api import examples
from vessel.api.auth import Gatekeeper, Principal, Tenant, principal
from vessel.api.faults import Forbidden, Unauthorized, documented
from vessel.api.life import life
from vessel.api.pacing import beating
from vessel.api.session import Here
from vessel.api.watching import Watching, joined
from vessel.client.following import events
from vessel.client.gates import explained
from vessel.client.steps import run
from vessel.errors import JobNotFound, Unreachable
from vessel.jobs.record import JOB_ID

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

router = APIRouter(tags=["vessel"])
LOOK_AGAIN_S = 2.0
"""How often a stream makes sure that its key still opens."""

_TEXT: dict[str, Any] = {"type": "string"}
_LIST: dict[str, Any] = {"type": "array", "items": {"type": "object"}}
_OBJECT: dict[str, Any] = {"type": "object"}
_MAYBE: dict[str, Any] = {"anyOf": [_OBJECT, {"type": "null"}]}
_EVENT: dict[str, Any] = {"type": "object", "properties": {"event": _TEXT, "data": _TEXT}}
SCHEMAS: dict[str, Any] = {
    "Console": {
        "type": "object",
        "required": ["who", "clock"],
        "properties": {
            "who": _OBJECT, "clock": _OBJECT, "vessel": _OBJECT, "tiers": _OBJECT, "models": _LIST, "refused": _LIST,
            "refusals": _LIST, "breaker": _MAYBE, "maintenance": _OBJECT, "traces": _OBJECT, "batches": _OBJECT,
            "failures": _LIST, "jobs": _LIST, "budgets": _LIST, "spending": _OBJECT,
        },
    },
    "JobLife": {
        "type": "object",
        "required": ["id", "state", "timeline"],
        "properties": {"id": _TEXT, "state": _TEXT, "timeline": _LIST},
    },
}  # fmt: skip
_EXAMPLE = {"who": {"tenant": "default", "admin": True, "keyed": False},
            "clock": {"at": "2026-11-27T12:00:00.000Z", "redis": True, "why": None}}  # fmt: skip
_LIFE = {"id": examples.JOB_ID, "state": "failed", "timeline": [
    {"at": "2026-11-27T12:00:00.000Z", "event": "created", "state": "queued", "tone": "plain", "title": "Accepted",
     "detail": "power openai/gpt-oss-120b", "attempt": None}]}  # fmt: skip


def watching_of(request: Request) -> Watching:
    """Return the looks of the process."""
    found: Watching = request.app.state.watching
    return found


def _who(who: Principal) -> str:
    return json.dumps({"tenant": who.tenant, "admin": who.admin, "keyed": bool(who.key_id)})


@router.get(
    "/console",
    summary="Show what the console shows",
    responses={200: examples.answers("Console", "One look, at most a second old.", _EXAMPLE), **documented()},
)
async def show(request: Request, who: Annotated[Principal, Depends(principal)]) -> Response:
    """Show tiers, headroom, refusals, maintenance, and this key's own batches, failures, jobs and spending."""
    following = watching_of(request).follow(who.tenant)
    try:
        sections = await anext(following)
    finally:
        await following.aclose()  # type: ignore[attr-defined]  # it is a generator
    return Response(joined({"who": _who(who)} | sections), media_type="application/json")


@router.get(
    "/console/events",
    summary="Follow what the console shows",
    response_class=StreamingResponse,
    responses={
        200: {"description": "Server-sent events `seen`: first every section of GET /v1/console, then those that "
              "changed, about once a second; `signed_out` when the key opens nothing any more.",
              "content": {"text/event-stream": {"schema": _EVENT, "example": (
                  'event: seen\ndata: {"clock":{"at":"2026-11-27T12:00:00.000Z"}}\n\n')}}},
        **documented(),
    },
)  # fmt: skip
async def follow(request: Request, who: Annotated[Principal, Depends(principal)], here: Here) -> StreamingResponse:
    """Follow it for as long as somebody looks. All viewers of a process share one look a second."""

    async def told() -> AsyncIterator[bytes]:
        sent: Mapping[str, str] = {}
        following = watching_of(request).follow(who.tenant)
        sure_until = time.monotonic() + LOOK_AGAIN_S
        try:
            async for sections in following:
                if time.monotonic() >= sure_until:
                    if not await _still(request, who):
                        yield format_sse_event(data_str="{}", event="signed_out")
                        return
                    sure_until = time.monotonic() + LOOK_AGAIN_S
                whole = {"who": _who(who)} | sections
                news = {name: text for name, text in whole.items() if sent.get(name) != text}
                sent = whole
                yield format_sse_event(data_str=joined(news), event="seen")
        finally:
            await following.aclose()  # type: ignore[attr-defined]  # it is a generator

    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(beating(told(), here.closing), media_type="text/event-stream", headers=headers)


async def _still(request: Request, who: Principal) -> bool:
    """Tell whether the key still opens what it did; where Redis cannot say, what it said last holds."""
    keeper: Gatekeeper = request.app.state.gatekeeper
    try:
        return await keeper.identify(request) == who
    except (Unauthorized, Forbidden):
        return False
    except Unreachable:
        return True


@router.get(
    "/console/jobs/{job_id}",
    summary="Show a job's life",
    responses={200: examples.answers("JobLife", "Its timeline, without prompt and answer.", _LIFE), **documented(404)},
)
async def job_life(
    job_id: Annotated[str, Path(description="A job's id.", max_length=200)], tenant: Tenant, here: Here
) -> dict[str, Any]:
    """Show what happened to a job: when it waited and for what, its attempts by model, and how it ended."""
    if not JOB_ID.fullmatch(job_id):
        raise JobNotFound
    asking = here.asking(tenant)
    job = await here.run(run(here.door.store.read(job_id)))
    if job is None or job.tenant != tenant:
        raise JobNotFound
    past = [event async for event in here.iterate(events(asking, job_id, follow=False))]
    waiting = None if job.terminal else await here.run(explained(asking, job))
    return life(job, past, waiting)
