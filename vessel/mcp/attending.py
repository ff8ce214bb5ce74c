"""Work for a caller who may leave: cancelled with the call, and told about while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeVar

import anyio

from vessel.errors import VesselError
from vessel.observe.moments import moment
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Any

    from vessel.client import AsyncGroqClient, Batch
    from vessel.mcp.catalog import Call

T = TypeVar("T")
CLEANUP_S = 10.0
"""How long cancelled work may take to take its job back."""
LOOK_S = 0.5
"""How often a waiting call is looked after for whoever wants progress."""
BEAT_S = 10.0
"""At least so often something is told, as clients give up on calls that are silent."""
CHARS_A_TOKEN = 4


class CallerLeft(VesselError):
    """Whoever called has left, so the job was cancelled."""

    code = "caller_left"
    http_status = 499


async def attended(call: Call, work: Coroutine[Any, Any, T]) -> T:
    """Do work as long as its caller is there; a cancelled call, or a caller who leaves, cancels it once.

    It runs as a task of its own, because a cancelled scope of anyio would cut every step of its cleaning up again.
    Raises CallerLeft.
    """
    task = asyncio.ensure_future(work)
    gone = call.visitor.gone
    left = asyncio.ensure_future(gone.wait()) if gone is not None else None
    try:
        await asyncio.wait({task, *([left] if left else [])}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CallerLeft
        return task.result()
    finally:
        if left is not None:
            left.cancel()
        if not task.done():
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task}, timeout=CLEANUP_S)


class Telling:
    """What is told of one call: only changes, and a beat."""

    def __init__(self, call: Call) -> None:
        """Begin; nothing is told yet."""
        self._call, self._said, self._count = call, "", 0
        self._beat_at = 0.0

    async def say(self, message: str, done: float | None = None, total: float | None = None) -> None:
        """Tell it where it is news or nothing was told for long; without `done` the numbers only count up."""
        now = asyncio.get_running_loop().time()
        if message == self._said and now < self._beat_at:
            return
        self._said, self._beat_at = message, now + BEAT_S
        self._count += 1
        await self._call.tell(self._count if done is None else done, total, message)


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> Any:
    """Do something meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def followed(
    call: Call,
    work: Awaitable[T],
    find: Callable[[], Awaitable[str]],
    chars: Callable[[], int] = lambda: 0,
) -> T:
    """Do work while its job, which `find` names once it is there, is told about."""
    if not call.wants_progress:
        return await work
    async with _beside(_tell_job(call, find, chars)):
        return await work


async def _tell_job(call: Call, find: Callable[[], Awaitable[str]], chars: Callable[[], int]) -> None:
    telling, job_id = Telling(call), ""
    while True:
        await asyncio.sleep(LOOK_S)
        with contextlib.suppress(VesselError):  # whoever waits for the job is told what is wrong
            job_id = job_id or await find()
            if job_id:
                await telling.say(await described(call.client, job_id, chars()))


async def described(client: AsyncGroqClient, job_id: str, chars: int = 0) -> str:
    """Say where a job stands: why it waits and until when, or which model works on it."""
    job = await client.job(job_id)
    if job.terminal:
        return f"{job.state}: {job_id}"
    waiting = await client.waiting(job)
    if waiting is not None:
        when = f", until about {moment(waiting.until)}" if waiting.until else ""
        return f"{job.state}: {waiting.detail}{when}"
    if job.state is not JobState.RUNNING:
        return f"{job.state}: {job_id}"
    number = len(job.attempts)
    model = job.attempts[-1].model if job.attempts else job.model
    tokens = f", about {chars // CHARS_A_TOKEN:,} tokens so far" if chars else ""
    return f"running on {model}, attempt {max(1, number)}{tokens}"


async def batch_told(call: Call, read: Callable[[], Awaitable[Batch]], look_s: float, until: float | None) -> Batch:
    """Wait for a batch's end, or for a time of the loop's clock, telling how many of its lines have ended."""
    telling, loop = Telling(call), asyncio.get_running_loop()
    while True:
        batch = await read()
        done = batch.completed + batch.failed
        told = f"{batch.status}: {done:,} of {batch.total:,} lines ended, {batch.failed:,} of them without a result"
        if call.wants_progress:
            await telling.say(told, done, batch.total or None)
        left = look_s if until is None else min(look_s, until - loop.time())
        if batch.ended or left <= 0:
            return batch
        await asyncio.sleep(left)
