"""Reading jobs' answers as they come, for all readers of an event loop: over one tail, and present by one task.

A reader holds a bounded part of what it has not given out yet; one whose caller is slower than the answer leaves the
tail and reads on from Redis at its caller's pace.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from vessel.errors import RedisUnreachable, Unreachable, VesselError
from vessel.jobs.tokens import attend
from vessel.watch import tokens
from vessel.watch.calls import order_of
from vessel.watch.tail import ignored
from vessel.watch.tokens import AT_ONCE, BEGINNING, HEARTBEAT_S, PATIENCE_S, RECONNECT_S, Beat, Position, together

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from vessel.jobs.model import Job
    from vessel.jobs.store import JobStore
    from vessel.keyspace.connect import AsyncRunner
    from vessel.watch.calls import Event
    from vessel.watch.loops import AsyncWaiter
    from vessel.watch.tail import Tail
    from vessel.watch.tokens import TokenEvent

MOST_HELD = 256
"""Entries that a reader keeps for a caller that is busy."""


class _Reader:
    """What one reader has heard and not given out."""

    def __init__(self, tail: Tail, position: Position) -> None:
        self.tail, self.position = tail, position
        self.rows: list[Event] = []
        self.joined = self.looks = self.behind = self.over = False
        self.job: Job | None = None
        """The whole record, once it has ended."""
        self.woken = asyncio.Event()

    def hear(self, rows: list[Event] | None) -> None:
        """Take what the tail has read."""
        if rows is None or len(self.rows) + len(rows) > MOST_HELD:
            self.leave()
        else:
            self.rows += rows
        self.woken.set()

    def look(self) -> None:
        """Hear that there is news of the job's end."""
        self.looks = True
        self.woken.set()

    def join(self) -> None:
        """Be told what comes; whoever was further behind than others are reads on for itself first."""
        if not self.joined:
            self.joined = True
            self.behind = not self.tail.join(self.position.stream, self.position.after, self.hear)

    def leave(self) -> None:
        """Be told nothing more."""
        self.rows.clear()
        if self.joined:
            self.joined = False
            self.tail.leave(self.position.stream, self.hear)

    def taken(self) -> list[Event]:
        """Take what was heard and is new: two readers of a stream hear what either asked for."""
        rows, self.rows = self.rows, []
        at = order_of(self.position.after)
        return [row for row in rows if order_of(row[0]) > at]

    async def wait(self, timeout_s: float) -> None:
        """Wait for news."""
        if not self.woken.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self.woken.wait()
        self.woken.clear()


class Readers:
    """All readers of a loop."""

    def __init__(self, tail: Tail, store: JobStore, runner: AsyncRunner, ends: AsyncWaiter) -> None:
        """Read over a tail; nothing is sent yet."""
        self._tail, self._store, self._runner, self._ends = tail, store, runner, ends
        self._present: Counter[str] = Counter()
        self._attending: asyncio.Task[None] | None = None

    async def follow(
        self,
        job_id: str,
        *,
        after: str = BEGINNING,
        tenant: str | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        joined: bool = False,
        own: bool = False,
    ) -> AsyncGenerator[TokenEvent]:
        """Yield what `tokens.follow` does, in coroutines; close the iterator to stop being a reader.

        `joined`: what has come by now is one event, under the id of its last part, however it was written. `own`: the
        caller has registered this job and made it, for this tenant.
        """
        position = Position(self._store, job_id, after, tenant)
        reader, beat = _Reader(self._tail, position), Beat(heartbeat_s)
        registered = self._ends.join(job_id, reader.look)
        try:
            if not (own and registered):
                reader.looks = position.check(await self._ends.look(job_id)).terminal
            self._enter(job_id)
            try:
                while not reader.over:
                    rows = await self._patiently(reader, beat)
                    found = position.read(rows)
                    for event in [together(found)] if joined and found else found:
                        yield event
                    if rows:
                        beat.spoken()
                    elif beat.due() and reader.job is None:
                        yield None
                yield position.end(position.check(reader.job))
            finally:
                self._exit(job_id)
        finally:
            reader.leave()
            self._ends.leave(job_id, reader.look)

    async def _patiently(self, reader: _Reader, beat: Beat) -> list[Event]:
        try:
            rows = await self._next(reader, beat)
        except Unreachable:
            if beat.lost() or self._tail.away_s > PATIENCE_S:
                raise
            await asyncio.sleep(RECONNECT_S)
            return []
        beat.found()
        return rows

    async def _next(self, reader: _Reader, beat: Beat) -> list[Event]:
        """Return what comes next, or nothing after a while."""
        position = reader.position
        if reader.looks or beat.looks():
            await self._look(reader)
        if reader.job is not None:
            # All that was written is there before the job's end is.
            rows = await self._runner.run(position.rest())
            reader.over = len(rows) < AT_ONCE
            return rows
        reader.join()
        if reader.behind:
            rows = await self._runner.run(position.rest())
            reader.behind = len(rows) == AT_ONCE
            return rows
        if reader.rows:
            return reader.taken()
        if self._tail.away_s > PATIENCE_S:
            raise RedisUnreachable
        await reader.wait(beat.left_s)
        return []

    async def _look(self, reader: _Reader) -> None:
        position, reader.looks = reader.position, False
        try:
            job = position.check(await self._runner.run(self._store.read(position.job_id)))
        except Unreachable:
            reader.looks = True
            raise
        if job.terminal:
            reader.leave()
            reader.job = job

    def _enter(self, job_id: str) -> None:
        self._present[job_id] += 1
        self._runner.post(attend(self._store.keys, job_id)).add_done_callback(ignored)
        if self._attending is None:
            self._attending = asyncio.get_running_loop().create_task(self._attend())

    def _exit(self, job_id: str) -> None:
        self._present[job_id] -= 1
        if self._present[job_id] <= 0:
            del self._present[job_id]
        if not self._present and self._attending is not None:
            self._attending.cancel()
            self._attending = None

    async def _attend(self) -> None:
        """Say for all readers that they are there, however long their callers take over a piece."""
        while True:
            await asyncio.sleep(tokens.ATTEND_S)
            with contextlib.suppress(VesselError):
                await self._runner.run_all([attend(self._store.keys, job_id) for job_id in self._present])

    async def close(self) -> None:
        """End the tail; readers are not told."""
        if self._attending is not None:
            self._attending.cancel()
            self._attending = None
        await self._tail.close()
