"""Waiting for jobs without polling: terminal events wake a process through its own reply stream.

Register, read, then wait: an event between the read and the wait is in the stream, so none is missed (pub/sub missed
32 of 3,000 when its connection dropped, a stream none: celery-facts 5).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any

from vessel.errors import JobFailed, JobNotFound, Unreachable, WaitTimeout
from vessel.keyspace.connect import BLOCK_MS, AsyncRunner, SyncRunner, connect, connect_async
from vessel.keyspace.script import Call, command, pairs, word
from vessel.wire import TERMINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.jobs.model import Job
    from vessel.jobs.store import JobStore
    from vessel.keyspace.names import Keys

Event = tuple[str, dict[str, str]]
RECONNECT_S = 0.2


def read_stream(stream: str, after: str, *, block_ms: int = BLOCK_MS) -> Call[list[Event]]:
    """Wait for entries of a stream after an id; an empty list when none came in time."""

    def parse(raw: Any) -> list[Event]:
        if not raw:
            return []
        streams = raw.values() if isinstance(raw, dict) else [rows for _, rows in raw]
        rows = next(iter(streams))
        return [(word(i), {k: word(v) for k, v in pairs(fields).items()}) for i, fields in rows]

    return command("XREAD", "COUNT", 500, "BLOCK", max(1, block_ms), "STREAMS", stream, after, parse=parse)


def succeeded(job: Job) -> Job:
    """Return a job that succeeded; raise JobFailed, holding every attempt, for any other ending."""
    if job.state is JobState.SUCCEEDED:
        return job
    raise JobFailed(job.id, str(job.state), job.reason or str(job.state), job.message or "no reason was recorded",
                    job.attempts)  # fmt: skip


class Waiter:
    """Wait in threads: one tail per process, started when first needed."""

    def __init__(self, url: str, keys: Keys, store: JobStore, runner: SyncRunner) -> None:
        """Name this process' reply stream; nothing is sent yet."""
        self.reply = keys.reply(secrets.token_hex(8))
        self._url, self._keys, self._store, self._runner = url, keys, store, runner
        self._waiting: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._tail: threading.Thread | None = None
        self._closed = False

    def register(self, job_id: str) -> None:
        """Expect a job's end; call it before the job is created with this waiter's `reply`."""
        with self._lock:
            self._waiting.setdefault(job_id, threading.Event())
            if self._tail is None:
                self._tail = threading.Thread(target=self._follow, name="vessel-replies", daemon=True)
                self._tail.start()

    def forget(self, job_id: str) -> None:
        """Stop expecting a job's end."""
        with self._lock:
            self._waiting.pop(job_id, None)

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Wait for a job's end and return it whole. Raises WaitTimeout, JobNotFound, RedisUnreachable."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        woken = self._waiting.get(job_id)
        try:
            if woken is None:
                self._wait_foreign(job_id, until)
            else:
                self._wait_own(job_id, woken, until)
        finally:
            self.forget(job_id)
        job = self._runner.run(self._store.read(job_id))
        if job is None:
            raise JobNotFound
        return job

    def _wait_own(self, job_id: str, woken: threading.Event, until: float | None) -> None:
        while not woken.wait(_left(until, 30.0)):
            job = self._runner.run(self._store.peek(job_id))
            if job is None:
                raise JobNotFound
            if job.terminal:
                return
            _check(until)

    def _wait_foreign(self, job_id: str, until: float | None) -> None:
        after = "0"
        client = connect(self._url)
        with contextlib.closing(client):
            runner = SyncRunner(client)
            while True:
                job = runner.run(self._store.peek(job_id))
                if job is None:
                    raise JobNotFound
                if job.terminal:
                    return
                block = int(min(BLOCK_MS, 1000 * _left(until, BLOCK_MS / 1000)))
                events = runner.run(read_stream(self._keys.events(job_id), after, block_ms=block))
                after = events[-1][0] if events else after
                if any(fields["state"] in TERMINAL for _, fields in events):
                    return
                _check(until)

    def _follow(self) -> None:
        after = "0"
        client = connect(self._url)
        runner = SyncRunner(client)
        while not self._closed:
            try:
                for seen, fields in runner.run(read_stream(self.reply, after)):
                    after = seen
                    self._wake(fields["job"])
            except Unreachable:
                time.sleep(RECONNECT_S)
        client.close()

    def _wake(self, job_id: str) -> None:
        with self._lock:
            woken = self._waiting.get(job_id)
        if woken is not None:
            woken.set()

    def close(self) -> None:
        """Let the tail end at its next wake-up; waiters are not woken."""
        self._closed = True


class AsyncWaiter:
    """Wait in coroutines: one tail per loop, started when first needed."""

    def __init__(self, url: str, keys: Keys, store: JobStore, runner: AsyncRunner) -> None:
        """Name this loop's reply stream; nothing is sent yet."""
        self.reply = keys.reply(secrets.token_hex(8))
        self._url, self._keys, self._store, self._runner = url, keys, store, runner
        self._waiting: dict[str, asyncio.Event] = {}
        self._tail: asyncio.Task[None] | None = None

    def register(self, job_id: str) -> None:
        """Expect a job's end; call it before the job is created with this waiter's `reply`."""
        self._waiting.setdefault(job_id, asyncio.Event())
        if self._tail is None:
            self._tail = asyncio.get_running_loop().create_task(self._follow())

    def forget(self, job_id: str) -> None:
        """Stop expecting a job's end."""
        self._waiting.pop(job_id, None)

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Wait for a job's end and return it whole. Raises WaitTimeout, JobNotFound, RedisUnreachable."""
        woken = self._waiting.get(job_id)
        try:
            async with asyncio.timeout(timeout_s):
                await (self._wait_foreign(job_id) if woken is None else self._wait_own(job_id, woken))
        except TimeoutError:
            raise WaitTimeout from None
        finally:
            self.forget(job_id)
        job = await self._runner.run(self._store.read(job_id))
        if job is None:
            raise JobNotFound
        return job

    async def _wait_own(self, job_id: str, woken: asyncio.Event) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), 30.0)
                return
            if await self._ended(job_id):
                return

    async def _wait_foreign(self, job_id: str) -> None:
        client = connect_async(self._url, blocking_s=BLOCK_MS / 1000)
        runner, after = AsyncRunner(client), "0"
        try:
            while not await self._ended(job_id):
                for seen, fields in await runner.run(read_stream(self._keys.events(job_id), after)):
                    after = seen
                    if fields["state"] in TERMINAL:
                        return
        finally:
            await runner.close()

    async def _ended(self, job_id: str) -> bool:
        job = await self._runner.run(self._store.peek(job_id))
        if job is None:
            raise JobNotFound
        return job.terminal

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
        """End the tail."""
        if self._tail is not None:
            self._tail.cancel()
            await asyncio.gather(self._tail, return_exceptions=True)


def _left(until: float | None, most: float) -> float:
    return most if until is None else max(0.001, min(most, until - time.monotonic()))


def _check(until: float | None) -> None:
    if until is not None and time.monotonic() >= until:
        raise WaitTimeout


def list_jobs(keys: Keys, *, newest: int, before_ms: int | None = None) -> Call[Sequence[str]]:
    """Name jobs by creation time, newest first."""
    top = f"({before_ms}" if before_ms else "+inf"
    return command("ZRANGE", keys.index, top, "-inf", "BYSCORE", "REV", "LIMIT", 0, newest,
                   parse=lambda raw: [word(i) for i in raw])  # fmt: skip


def events_of(keys: Keys, job_id: str) -> Call[list[Event]]:
    """Read a job's life so far, oldest first."""

    def parse(raw: Any) -> list[Event]:
        return [(word(i), {k: word(v) for k, v in pairs(fields).items()}) for i, fields in raw]

    return command("XRANGE", keys.events(job_id), "-", "+", parse=parse)
