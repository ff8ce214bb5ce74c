"""A chat completion as it comes: the job's tokens, from its beginning or after an event's id, as the SDKs read them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from fastapi.responses import StreamingResponse

from vessel.api.chunks import HEADERS, MEDIA_TYPE, after_first, stream_response, wants_usage
from vessel.client.asking import LOOK_S
from vessel.errors import VesselError
from vessel.keyspace.script import command
from vessel.watch.tokens import BEGINNING, check_after

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from typing import Any

    from vessel.api.calling import Begun, Calling, Repeats
    from vessel.api.session import Session

PATIENCE_S = 5.0
"""How long a response waits for its first token: until then a failure has a status of its own."""


async def streamed(
    here: Session, calling: Calling, begun: Begun, repeats: Repeats, body: Mapping[str, Any], after: str | None
) -> StreamingResponse:
    """Answer with the job's tokens. Raises JobFailed and its kin for an end that comes before the first of them."""
    start = BEGINNING if after is None else check_after(after)
    own = begun.prepared is not None
    events = here.waiter.readers.follow(begun.id, after=start, tenant=calling.tenant, joined=True, own=own)
    if own:
        here.later(_look_after(here, calling, begun.id))
    events = await after_first(events, PATIENCE_S)
    headers = await _headers(here, begun.id)
    content = stream_response(events, include_usage=wants_usage(body), begun=start != BEGINNING)
    return StreamingResponse(_noted(here, content, repeats, begun.id), media_type=MEDIA_TYPE, headers=headers)


async def _headers(here: Session, job_id: str) -> dict[str, str]:
    """Tell which job it is and who serves it as its first token comes."""
    tries = command("HGET", here.door.keys.job(job_id), "n", parse=lambda raw: int(raw or 0))
    calls: list[Any] = [here.door.store.peek(job_id), tries]
    job, attempts = await here.runner.run_all(calls)
    found = HEADERS | {"x-vessel-job-id": job_id, "x-vessel-attempts": str(attempts)}
    if job is not None:
        found |= {"x-vessel-model": job.served_model or job.model, "x-vessel-tier": job.served_tier or job.tier}
    return found


async def _noted(here: Session, content: AsyncGenerator[bytes], repeats: Repeats, job_id: str) -> AsyncIterator[bytes]:
    try:
        async for piece in content:
            yield piece
        await here.runner.run(repeats.delivered(job_id))
    finally:
        await content.aclose()


async def _look_after(here: Session, calling: Calling, job_id: str) -> None:
    """Do what the client library does while a job is silent: end one that is to fail where nobody serves it."""
    with suppress(VesselError):
        await _pause(here.closing)
        while await here.run(calling.look_after(job_id)):
            await _pause(here.closing)


async def _pause(closing: asyncio.Event) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(closing.wait(), LOOK_S)
