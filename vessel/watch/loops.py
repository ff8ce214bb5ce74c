"""Waiting in coroutines: one tail per event loop for all ends, of own jobs by its reply stream, of others by theirs."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from vessel.errors import ClientClosed, JobNotFound, Unreachable, WaitTimeout
from vessel.watch.calls import BLOCK_MS, Event, last_id, read_streams
from vessel.watch.readers import Readers
from vessel.watch.tail import Tail
from vessel.wire import TERMINAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vessel.jobs.model import Job
    from vessel.jobs.store import JobStore
    from vessel.keyspace.connect import AsyncRunner
    from vessel.keyspace.names import Keys

RECONNECT_S = 0.2
LOOK_AGAIN_S = 30.0
"""As in `threads`."""


class _Ending:
    """A job's end, as expected here."""

    __slots__ = ("events", "expected", "told", "wakes")

    def __init__(self) -> None:
        self.expected = 0
        """How many have registered and do not wait yet."""
        self.told = False
        """There was news since it was registered."""
        self.wakes: list[Callable[[], None]] = []
        self.events = ""
        """The job's own stream, where that is listened to."""

    def tell(self) -> None:
        self.told = True
        for wake in list(self.wakes):
            wake()

    def heard(self, rows: list[Event] | None) -> None:
        """Hear the job's own stream."""
        if rows is None or any(fields["state"] in TERMINAL for _, fields in rows):
            self.tell()


class AsyncWaiter:
    """Wait in coroutines: one tail per loop, started when first needed. `readers` reads answers as they come."""

    def __init__(self, url: str, keys: Keys, store: JobStore, runner: AsyncRunner) -> None:
        """Name this loop's reply stream; nothing is sent yet."""
        self.reply = keys.reply(secrets.token_hex(8))
        self._keys, self._store, self._runner = keys, store, runner
        self._endings: dict[str, _Ending] = {}
        self._tail = Tail(url, runner, self.reply, self._replied)
        self._closed = False
        self.readers = Readers(Tail(url, runner, keys.reply(secrets.token_hex(8))), store, runner, self)

    def register(self, job_id: str) -> None:
        """Expect a job's end; call it before the job is created with this waiter's `reply`. `wait` takes it up."""
        self._tail.start()
        self._endings.setdefault(job_id, _Ending()).expected += 1

    def forget(self, job_id: str) -> None:
        """Undo a `register` that no `wait` has taken up, if there is one; whoever waits goes on."""
        ending = self._endings.get(job_id)
        if ending is not None and ending.expected:
            ending.expected -= 1
            self._drop(job_id, ending)

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Wait for a job's end and return it whole. Raises WaitTimeout, JobNotFound, RedisUnreachable, ClientClosed."""
        woken = asyncio.Event()
        ending, registered = self._join(job_id, woken.set)
        try:
            async with asyncio.timeout(timeout_s):
                if registered:
                    if ending.told:
                        woken.set()
                elif (await self.look(job_id)).terminal:
                    return await self._read(job_id)
                return await self._end(job_id, woken)
        except TimeoutError:
            raise WaitTimeout from None
        finally:
            self.leave(job_id, woken.set)

    async def _end(self, job_id: str, woken: asyncio.Event) -> Job:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await woken.wait()
            woken.clear()
            if self._closed:
                raise ClientClosed
            job = await self._read(job_id)
            if job.terminal:
                return job

    async def _read(self, job_id: str) -> Job:
        read = self._store.read(job_id)
        try:
            job = await self._runner.run(read)
        except Unreachable:
            # A connection was cut, and the next one may be good; a server that is gone says so again.
            await asyncio.sleep(RECONNECT_S)
            job = await self._runner.run(read)
        if job is None:
            raise JobNotFound
        return job

    def join(self, job_id: str, wake: Callable[[], None]) -> bool:
        """Be woken when there is news of a job's end; then `look`, then wait, then look. `leave` ends it.

        True: it was registered before it was made, so the first look may be left out.
        """
        ending, registered = self._join(job_id, wake)
        if registered and ending.told:
            wake()
        return registered

    def _join(self, job_id: str, wake: Callable[[], None]) -> tuple[_Ending, bool]:
        """Tell also whether it was registered before the job was made, so that nothing needs to be looked at."""
        self._tail.start()
        ending = self._endings.setdefault(job_id, _Ending())
        registered = ending.expected > 0
        ending.expected -= registered
        ending.wakes.append(wake)
        return ending, registered

    def leave(self, job_id: str, wake: Callable[[], None]) -> None:
        """Be woken no more."""
        ending = self._endings.get(job_id)
        if ending is not None and wake in ending.wakes:
            ending.wakes.remove(wake)
            self._drop(job_id, ending)

    def _drop(self, job_id: str, ending: _Ending) -> None:
        if ending.wakes or ending.expected:
            return
        del self._endings[job_id]
        if ending.events:
            self._tail.leave(ending.events, ending.heard)

    async def look(self, job_id: str) -> Job:
        """Look at a job that was joined, without its payload, and listen to it if nobody tells us of its end.

        Raises JobNotFound, RedisUnreachable.
        """
        events = self._keys.events(job_id)
        # The stream's end is read before the job is: an ending in between is then in the stream, too.
        after = await self._runner.run(last_id(events))
        job = await self._runner.run(self._store.peek(job_id))
        if job is None:
            raise JobNotFound
        ending = self._endings.get(job_id)
        if ending is not None and not (ending.events or job.terminal or job.reply == self.reply):
            ending.events = events
            self._tail.join(events, after, ending.heard)
        return job

    def _replied(self, rows: list[Event] | None) -> None:
        if rows is None:
            for ending in list(self._endings.values()):
                ending.tell()
            return
        for _, fields in rows:
            ending_of = self._endings.get(fields["job"])
            if ending_of is not None:
                ending_of.tell()

    async def listen(self, after: Mapping[str, str], *, block_ms: int = BLOCK_MS) -> dict[str, list[Event]]:
        """Wait for entries of streams as `read_streams` does, but over the shared tail."""
        woken = asyncio.Event()

        def hear(_: list[Event] | None) -> None:
            woken.set()

        for stream, position in after.items():
            self._tail.join(stream, position, hear)
        try:
            read = read_streams(after, block_ms=0)
            found = await self._runner.run(read)
            if not found:
                with suppress(TimeoutError):
                    async with asyncio.timeout(block_ms / 1000):
                        await woken.wait()
                found = await self._runner.run(read)
            return found
        finally:
            for stream in after:
                self._tail.leave(stream, hear)

    async def close(self) -> None:
        """Wake whoever waits, with ClientClosed, and end the tails."""
        self._closed = True
        for ending in list(self._endings.values()):
            ending.tell()
        await self.readers.close()
        await self._tail.close()
