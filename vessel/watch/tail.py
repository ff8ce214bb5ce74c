"""One blocking read for everything that a process listens to, however many of its coroutines do.

A connection for each waiter would be hundreds. The tail reads all streams together; who joins while it waits at the
server wakes it through a stream of its own, within a round trip. What a stream holds after a position reaches whoever
joined there: first join, then look, then wait, and nothing is missed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.keyspace.script import command
from vessel.observe.logs import get_logger
from vessel.watch.calls import BLOCK_MS, order_of, read_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vessel.watch.calls import Event

    Hear = Callable[[list[Event] | None], None]
    """Takes a stream's new entries, oldest first; None: Redis was away, so look for yourself."""

RECONNECT_S = 0.2
AT_ONCE = 100
"""Entries of one stream in one read: whoever is far behind does not hold up the others."""

PAUSE_PER_STREAM_S, LEAST_PAUSE_S = 10e-6, 0.002
"""Between two reads that found something: reading costs a few microseconds a stream, at both ends, and a round trip.

What comes meanwhile is read together, so that a model's fast tokens cost no read, task switch and packet each.
"""

WAKES_KEPT, WAKE_TTL_MS = 10_000, 3_600_000
"""As `ended.lua` has it, which writes to the same streams."""

log = get_logger(__name__)


class _Stream:
    """A stream that is listened to, how far it was read, and by whom."""

    __slots__ = ("after", "hears")

    def __init__(self, after: str) -> None:
        self.after = after
        self.hears: list[Hear] = []


class Tail:
    """Read many streams over one connection of a loop's own; it is opened when first needed."""

    def __init__(self, url: str, runner: AsyncRunner, wake: str, hear: Hear | None = None) -> None:
        """Name the stream that wakes it; `hear` is given what else is written there, and None as others are."""
        self._url, self._runner, self._wake, self._hear = url, runner, wake, hear
        self._streams: dict[str, _Stream] = {}
        self._woken, self._lost_at = "0", 0.0
        self._asking = self._kicked = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to read."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._read_on())

    def join(self, stream: str, after: str, hear: Hear) -> bool:
        """Have a stream's entries told from now on.

        True: all after `after` are, maybe earlier ones too. False: others have read further; read once for yourself.
        """
        self.start()
        found = self._streams.get(stream)
        if found is None:
            found = self._streams[stream] = _Stream(after)
            self._kick()
        found.hears.append(hear)
        return order_of(found.after) <= order_of(after)

    def leave(self, stream: str, hear: Hear) -> None:
        """Be told no more; a stream without listeners is left out of the next read."""
        found = self._streams.get(stream)
        if found is not None and hear in found.hears:
            found.hears.remove(hear)
            if not found.hears:
                del self._streams[stream]

    @property
    def away_s(self) -> float:
        """For how long Redis has not answered."""
        return time.monotonic() - self._lost_at if self._lost_at else 0.0

    def _kick(self) -> None:
        """Have a read that waits at the server, or is on its way there, come back and ask anew."""
        if not self._asking or self._kicked:
            return
        self._kicked = True
        wake = command("XADD", self._wake, "MAXLEN", "~", WAKES_KEPT, "*", "job", "", parse=bytes)
        for call in (wake, command("PEXPIRE", self._wake, WAKE_TTL_MS, parse=int)):
            self._runner.post(call).add_done_callback(ignored)  # should it fail, the read ends by itself soon

    async def _read_on(self) -> None:
        runner = AsyncRunner(connect_async(self._url, blocking_s=BLOCK_MS / 1000))
        try:
            while True:
                pause_s = await self._read(runner)
                await asyncio.sleep(pause_s)
        finally:
            await runner.close()

    async def _read(self, runner: AsyncRunner) -> float:
        """Read once; returns the pause before the next read, in seconds."""
        asked = {self._wake: self._woken} | {name: stream.after for name, stream in self._streams.items()}
        self._asking, self._kicked = True, False
        try:
            found = await runner.run(read_streams(asked, block_ms=BLOCK_MS, most=AT_ONCE))
        except Exception as error:  # noqa: BLE001  whatever it is, nobody may wait for ever
            if not self._lost_at:
                log.info("tail.lost", error=type(error).__name__)
                self._lost_at = time.monotonic()
            return RECONNECT_S
        finally:
            self._asking = False
        if self._lost_at:
            self._lost_at = 0.0
            self._tell_back()
        self._tell(asked, found)
        return max(LEAST_PAUSE_S, len(asked) * PAUSE_PER_STREAM_S) if found else 0.0

    def _tell(self, asked: Mapping[str, str], found: Mapping[str, list[Event]]) -> None:
        for name, rows in found.items():
            if name == self._wake:
                self._woken = rows[-1][0]
                if self._hear is not None:
                    self._hear(rows)
                continue
            stream = self._streams.get(name)
            if stream is not None and stream.after == asked[name]:  # else everybody left, and somebody joined elsewhere
                stream.after = rows[-1][0]
                for hear in list(stream.hears):
                    hear(rows)

    def _tell_back(self) -> None:
        if self._hear is not None:
            self._hear(None)
        for stream in list(self._streams.values()):
            for hear in list(stream.hears):
                hear(None)

    async def close(self) -> None:
        """End it; nobody is told."""
        if self._task is not None:
            self._kick()  # closing waits for the read that is at the server
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None


def ignored(done: asyncio.Future[Any]) -> None:
    """Take the error of a call that nobody waits for."""
    with suppress(asyncio.CancelledError):
        done.exception()
