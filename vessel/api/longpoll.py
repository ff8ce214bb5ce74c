"""Waiting for a job's end within a request, for as long as the client stays and the process lives."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from vessel.errors import WaitTimeout

if TYPE_CHECKING:
    from starlette.requests import Request

    from vessel.api.session import Session


async def ended(request: Request, here: Session, tenant: str, job_id: str, wait_s: float) -> None:
    """Return when the job has ended, the time is over, the client has left or the process is to end.

    Raises JobNotFound, RedisUnreachable.
    """
    waiting = asyncio.ensure_future(_quietly(here, tenant, job_id, wait_s))
    others = [asyncio.ensure_future(here.closing.wait()), asyncio.ensure_future(_left(request))]
    try:
        await asyncio.wait({waiting, *others}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            await waiting
    finally:
        for task in (waiting, *others):
            task.cancel()
        await asyncio.gather(waiting, *others, return_exceptions=True)


async def _quietly(here: Session, tenant: str, job_id: str, wait_s: float) -> None:
    with suppress(WaitTimeout):
        await here.run(here.asking(tenant).end_of(job_id, here.waiter, wait_s))


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
