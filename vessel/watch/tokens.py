"""Reading a job's answer as it comes, from any point on: in threads and in coroutines, without polling.

Each reader blocks on a connection of its own, on the job's tokens and its events together, and says in the background
that it is there, however long its caller takes over a piece: a job without readers is cancelled.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vessel.errors import InvalidRequest, JobNotFound, Unreachable, VesselError
from vessel.jobs.tokens import attend
from vessel.keyspace.script import Call, command
from vessel.watch.calls import BLOCK_MS, Event, events_in, read_streams, succeeded
from vessel.wire import TERMINAL

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from vessel.jobs.model import Job
    from vessel.jobs.store import JobStore
    from vessel.keyspace.connect import AsyncRunner, SyncRunner

BEGINNING = "0"
HEARTBEAT_S = 10.0
ATTEND_S = 3.0
"""How often a reader says that it is there."""

LOOK_AGAIN_S = 30.0
"""How often a reader looks at its job although no event came, as a record may go without one."""

PATIENCE_S = 30.0
RECONNECT_S = 0.2
_AT_ONCE = 500
_ID = re.compile(r"\d{1,10}(-\d{1,10})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What came together: pieces as Groq's chunks have them (`delta`, `logprobs`). `head` comes with the first ones."""

    id: str
    pieces: tuple[dict[str, Any], ...] = field(repr=False)
    head: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The content of the pieces."""
        return "".join(piece["delta"].get("content") or "" for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Ended:
    """The job has succeeded: its whole record, in which the answer is as a call without a stream gives it.

    `streamed`: this reader has seen tokens. An answer that came as a whole, as from the failover vessel, has none.
    """

    job: Job
    streamed: bool


TokenEvent = Tokens | Ended | None
"""None: nothing has come for a while."""


def check_after(event_id: str) -> str:
    """Return the id of an event to go on after. Raises InvalidRequest."""
    if not _ID.fullmatch(event_id):
        raise InvalidRequest("last-event-id: it must be the id of an event of this stream.", param="last-event-id")
    return event_id


class _Tail:
    """How far a reader has read."""

    def __init__(self, store: JobStore, job_id: str, after: str, tenant: str | None) -> None:
        keys = store.keys
        self.store, self.job_id, self.tenant = store, job_id, tenant
        self.tokens, self.events = keys.tokens(job_id), keys.events(job_id)
        self._after, self._seen = check_after(after), BEGINNING
        self.over = False
        self.streamed = after != BEGINNING

    def look(self, job: Job | None) -> None:
        """Learn whether the job has ended. Raises JobNotFound."""
        if job is None or self.tenant not in {None, job.tenant}:
            raise JobNotFound
        self.over = job.terminal

    def listen(self, block_ms: int) -> Call[dict[str, list[Event]]]:
        return read_streams({self.tokens: self._after, self.events: self._seen}, block_ms=block_ms)

    def heard(self, streams: dict[str, list[Event]]) -> list[Tokens]:
        for event_id, fields in streams.get(self.events, ()):
            self._seen, self.over = event_id, self.over or fields["state"] in TERMINAL
        return self.read(streams.get(self.tokens, []))

    def rest(self) -> Call[list[Event]]:
        """Read what was written before the end."""
        return command("XRANGE", self.tokens, f"({self._after}", "+", "COUNT", _AT_ONCE, parse=events_in)

    def read(self, rows: list[Event]) -> list[Tokens]:
        found = []
        for event_id, fields in rows:
            self._after = event_id
            head = json.loads(fields["head"]) if "head" in fields else None
            found.append(Tokens(event_id, tuple(json.loads(fields["pieces"])), head))
        self.streamed = self.streamed or bool(found)
        return found

    def end(self, job: Job | None) -> Ended:
        """Give the last event. Raises JobFailed, JobNotFound."""
        if job is None:
            raise JobNotFound
        return Ended(succeeded(job), self.streamed)


class _Beat:
    """When a reader was last given something, and when it is to look again."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self.spoken()
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        self._lost_at: float | None = None

    def spoken(self) -> None:
        self._due = time.monotonic() + self._every_s

    @property
    def block_ms(self) -> int:
        return max(1, min(BLOCK_MS, int(1000 * (self._due - time.monotonic()))))

    def due(self) -> bool:
        if time.monotonic() < self._due:
            return False
        self.spoken()
        return True

    def looks(self) -> bool:
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        return True

    def lost(self) -> bool:
        """Tell whether Redis has been away for longer than a reader waits."""
        self._lost_at = self._lost_at or time.monotonic()
        return time.monotonic() - self._lost_at > PATIENCE_S

    def found(self) -> None:
        self._lost_at = None


def follow(
    url: str,
    store: JobStore,
    runner: SyncRunner,
    job_id: str,
    *,
    after: str = BEGINNING,
    tenant: str | None = None,
    heartbeat_s: float = HEARTBEAT_S,
) -> Generator[TokenEvent]:
    """Yield a job's tokens after an event's id, None when nothing came for `heartbeat_s`, and its end last.

    Raises JobFailed at the end of a job without a result; JobNotFound, also for another tenant's; RedisUnreachable.
    """
    from vessel.keyspace.connect import SyncRunner, connect  # noqa: PLC0415  producers import no Redis before they use it

    tail, beat = _Tail(store, job_id, after, tenant), _Beat(heartbeat_s)
    tail.look(runner.run(store.peek(job_id)))
    gone = threading.Event()
    threading.Thread(target=_attend, args=(runner, store, job_id, gone), name="vessel-reader", daemon=True).start()
    client = connect(url)
    try:
        listener = SyncRunner(client)
        while not tail.over:
            try:
                found = tail.heard(listener.run(tail.listen(beat.block_ms)))
                if beat.looks():
                    tail.look(runner.run(store.peek(job_id)))
                beat.found()
            except Unreachable:
                if beat.lost():
                    raise
                time.sleep(RECONNECT_S)
                found = []
            if found:
                yield from found
                beat.spoken()
            elif beat.due():
                yield None
        while found := tail.read(runner.run(tail.rest())):
            yield from found
        yield tail.end(runner.run(store.read(job_id)))
    finally:
        gone.set()
        client.close()


def _attend(runner: SyncRunner, store: JobStore, job_id: str, gone: threading.Event) -> None:
    while True:
        with contextlib.suppress(VesselError):
            runner.run(attend(store.keys, job_id))
        if gone.wait(ATTEND_S):
            return


async def follow_async(
    url: str,
    store: JobStore,
    runner: AsyncRunner,
    job_id: str,
    *,
    after: str = BEGINNING,
    tenant: str | None = None,
    heartbeat_s: float = HEARTBEAT_S,
) -> AsyncGenerator[TokenEvent]:
    """Yield what `follow` does, in coroutines; close the iterator to stop being a reader."""
    import asyncio  # noqa: PLC0415  a third of what the blocking client's import costs

    from vessel.keyspace.connect import AsyncRunner, connect_async  # noqa: PLC0415  as above

    tail, beat = _Tail(store, job_id, after, tenant), _Beat(heartbeat_s)
    tail.look(await runner.run(store.peek(job_id)))
    attending = asyncio.ensure_future(_attend_async(runner, store, job_id))
    listener = AsyncRunner(connect_async(url, blocking_s=BLOCK_MS / 1000))
    try:
        while not tail.over:
            try:
                found = tail.heard(await listener.run(tail.listen(beat.block_ms)))
                if beat.looks():
                    tail.look(await runner.run(store.peek(job_id)))
                beat.found()
            except Unreachable:
                if beat.lost():
                    raise
                await asyncio.sleep(RECONNECT_S)
                found = []
            for tokens in found:
                yield tokens
            if found:
                beat.spoken()
            elif beat.due():
                yield None
        while found := tail.read(await runner.run(tail.rest())):
            for tokens in found:
                yield tokens
        yield tail.end(await runner.run(store.read(job_id)))
    finally:
        attending.cancel()
        await listener.close()


async def _attend_async(runner: AsyncRunner, store: JobStore, job_id: str) -> None:
    import asyncio  # noqa: PLC0415  as above

    while True:
        with contextlib.suppress(VesselError):
            await runner.run(attend(store.keys, job_id))
        await asyncio.sleep(ATTEND_S)
