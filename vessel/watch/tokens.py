"""Reading a job's answer as it comes, from any point on and without polling: what readers share, and that of threads.

A thread's reader blocks on a connection of its own, on the job's tokens and its events together; those of an event loop
share one (`readers`). Each says in the background that it is there, however long its caller takes over a piece: a job
without readers is cancelled.
"""

from __future__ import annotations

import contextlib
import json
import math
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
    from collections.abc import Generator, Sequence

    from vessel.jobs.model import Job
    from vessel.jobs.store import JobStore
    from vessel.keyspace.connect import SyncRunner

BEGINNING = "0"
HEARTBEAT_S = 10.0
ATTEND_S = 3.0
"""How often a reader says that it is there."""

LOOK_AGAIN_S = 30.0
"""How often a reader looks at its job although no event came, as a record may go without one."""

PATIENCE_S = 30.0
RECONNECT_S = 0.2
AT_ONCE = 500
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


def together(found: Sequence[Tokens]) -> Tokens:
    """Make one of at least one, with the id of the last: whoever goes on after it has had them all."""
    head = next((tokens.head for tokens in found if tokens.head is not None), None)
    return Tokens(found[-1].id, tuple(piece for tokens in found for piece in tokens.pieces), head)


class Position:
    """How far a reader has read a job's answer, and what it knows of its end."""

    def __init__(self, store: JobStore, job_id: str, after: str, tenant: str | None) -> None:
        """Begin after an event. Raises InvalidRequest."""
        self.store, self.job_id, self.stream = store, job_id, store.keys.tokens(job_id)
        self._tenant, self.after = tenant, check_after(after)
        self.streamed = after != BEGINNING

    def check(self, job: Job | None) -> Job:
        """Return a job that is there for this reader. Raises JobNotFound."""
        if job is None or self._tenant not in {None, job.tenant}:
            raise JobNotFound
        return job

    def rest(self) -> Call[list[Event]]:
        """Read what is there by now, a page of AT_ONCE entries at most."""
        return command("XRANGE", self.stream, f"({self.after}", "+", "COUNT", AT_ONCE, parse=events_in)

    def read(self, rows: list[Event]) -> list[Tokens]:
        """Take entries in."""
        found = []
        for event_id, fields in rows:
            self.after = event_id
            head = json.loads(fields["head"]) if "head" in fields else None
            found.append(Tokens(event_id, tuple(json.loads(fields["pieces"])), head))
        self.streamed = self.streamed or bool(found)
        return found

    def end(self, job: Job) -> Ended:
        """Give the last event. Raises JobFailed."""
        return Ended(succeeded(job), self.streamed)


class _Listening:
    """What a thread's connection of its own listens to: a job's tokens and events, together."""

    def __init__(self, position: Position, job: Job) -> None:
        self.position, self.over = position, job.terminal
        self._events, self._seen = position.store.keys.events(job.id), BEGINNING

    def listen(self, block_ms: int) -> Call[dict[str, list[Event]]]:
        return read_streams({self.position.stream: self.position.after, self._events: self._seen}, block_ms=block_ms)

    def heard(self, streams: dict[str, list[Event]]) -> list[Tokens]:
        for event_id, fields in streams.get(self._events, ()):
            self._seen, self.over = event_id, self.over or fields["state"] in TERMINAL
        return self.position.read(streams.get(self.position.stream, []))


class Beat:
    """When a reader was last given something, and when it is to look again."""

    def __init__(self, every_s: float) -> None:
        """Begin now."""
        self._every_s = every_s
        self.spoken()
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        self._lost_at: float | None = None

    def spoken(self) -> None:
        """Note that it was given something."""
        self._due = time.monotonic() + self._every_s

    @property
    def left_s(self) -> float:
        """Tell how long it may stay silent."""
        return max(0.001, self._due - time.monotonic())

    def due(self) -> bool:
        """Tell whether it is to be told of the silence; true once."""
        if time.monotonic() < self._due:
            return False
        self.spoken()
        return True

    def looks(self) -> bool:
        """Tell whether it is to look at its job; true once."""
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_AGAIN_S
        return True

    def lost(self) -> bool:
        """Tell whether Redis has been away for longer than a reader waits."""
        self._lost_at = self._lost_at or time.monotonic()
        return time.monotonic() - self._lost_at > PATIENCE_S

    def found(self) -> None:
        """Note that Redis is there."""
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

    position, beat = Position(store, job_id, after, tenant), Beat(heartbeat_s)
    tail = _Listening(position, position.check(runner.run(store.peek(job_id))))
    gone = threading.Event()
    threading.Thread(target=_attend, args=(runner, store, job_id, gone), name="vessel-reader", daemon=True).start()
    client = connect(url)
    try:
        listener = SyncRunner(client)
        while not tail.over:
            try:
                found = tail.heard(listener.run(tail.listen(min(BLOCK_MS, math.ceil(1000 * beat.left_s)))))
                if beat.looks():
                    tail.over = position.check(runner.run(store.peek(job_id))).terminal
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
        while found := position.read(runner.run(position.rest())):
            yield from found
        yield position.end(position.check(runner.run(store.read(job_id))))
    finally:
        gone.set()
        client.close()


def _attend(runner: SyncRunner, store: JobStore, job_id: str, gone: threading.Event) -> None:
    while True:
        with contextlib.suppress(VesselError):
            runner.run(attend(store.keys, job_id))
        if gone.wait(ATTEND_S):
            return
