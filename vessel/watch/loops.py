"""Waiting in coroutines: one tail per event loop, as in `threads`."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING

from vessel.errors import ClientClosed, JobNotFound, Unreachable, WaitTimeout
from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.watch.calls import BLOCK_MS, read_stream

if TYPE_CHECKING:
    from vessel.jobs.model import Job
    from vessel.jobs.store import JobStore
    from vessel.keyspace.names import Keys

RECONNECT_S = 0.2
LOOK_AGAIN_S = 30.0
"""As in `threads`."""


class AsyncWaiter:
    """Wait in coroutines: one tail per loop, started when first needed."""

    def __init__(self, url: str, keys: Keys, store: JobStore, runner: AsyncRunner) -> None:
        """Name this loop's reply stream; nothing is sent yet."""
        self.reply = keys.reply(secrets.token_hex(8))
        self._url, self._keys, self._store, self._runner = url, keys, store, runner
        self._waiting: dict[str, asyncio.Event] = {}
        self._tail: asyncio.Task[None] | None = None
        self._closed = False

    def register(self, job_id: str) -> asyncio.Event:
        """Expect a job's end; call it before the job is created with this waiter's `reply`."""
        if self._tail is None:
            self._tail = asyncio.get_running_loop().create_task(self._follow())
        return self._waiting.setdefault(job_id, asyncio.Event())

    def forget(self, job_id: str, woken: asyncio.Event | None = None) -> None:
        """Stop expecting a job's end, or only by this event; another task that waits for it looks and goes on."""
        found = self._waiting.get(job_id)
        if found is not None and woken in {None, found}:
            del self._waiting[job_id]
            found.set()

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Wait for a job's end and return it whole. Raises WaitTimeout, JobNotFound, RedisUnreachable, ClientClosed."""
        woken = self._waiting.get(job_id)
        try:
            async with asyncio.timeout(timeout_s):
                return await (self._wait_foreign(job_id) if woken is None else self._wait_own(job_id, woken))
        except TimeoutError:
            raise WaitTimeout from None
        finally:
            if woken is not None:
                self.forget(job_id)

    async def _wait_own(self, job_id: str, woken: asyncio.Event) -> Job:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), LOOK_AGAIN_S)
                self.forget(job_id, woken)
            self._check_open()
            woken = self.register(job_id)
            job = await self._read(job_id)
            if job.terminal:
                return job

    async def _read(self, job_id: str) -> Job:
        job = await self._runner.run(self._store.read(job_id))
        if job is None:
            raise JobNotFound
        return job

    async def _wait_foreign(self, job_id: str) -> Job:
        runner, after = AsyncRunner(connect_async(self._url, blocking_s=BLOCK_MS / 1000)), "0"
        try:
            while True:
                job = await self._runner.run(self._store.peek(job_id))
                if job is None:
                    raise JobNotFound
                if job.terminal:
                    return await self._read(job_id)
                events = await runner.run(read_stream(self._keys.events(job_id), after))
                after = events[-1][0] if events else after
                self._check_open()
        finally:
            await runner.close()

    async def _follow(self) -> None:
        runner, after = AsyncRunner(connect_async(self._url, blocking_s=BLOCK_MS / 1000)), "0"
        try:
            while True:
                try:
                    for seen, fields in await runner.run(read_stream(self.reply, after)):
                        after = seen
                        if (woken := self._waiting.get(fields["job"])) is not None:
                            woken.set()
                except Unreachable:
                    await asyncio.sleep(RECONNECT_S)
        finally:
            await runner.close()

    async def close(self) -> None:
        """Wake whoever waits, with ClientClosed, and end the tail."""
        self._closed = True
        for woken in self._waiting.values():
            woken.set()
        if self._tail is not None:
            self._tail.cancel()
            await asyncio.gather(self._tail, return_exceptions=True)

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed
