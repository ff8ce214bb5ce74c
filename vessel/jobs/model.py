"""The job, its attempts, and TRANSITIONS: the only state table; Lua gets its from-states as arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from vessel.wire import TERMINAL, JobState, Priority

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal


class Verb(StrEnum):
    """An edge of the state machine: one atomic step. `book` is the start script's answer when a start must wait."""

    CREATE = "create"
    CLAIM = "claim"
    BOOK = "book"
    START = "start"
    RENEW = "renew"
    STREAM = "stream"
    FINISH = "finish"
    PARK = "park"
    REQUEUE = "requeue"
    RELEASE = "release"
    PROMOTE = "promote"
    FEED = "feed"
    REISSUE = "reissue"
    RESCUE = "rescue"
    CANCEL = "cancel"
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class Transition:
    """From which states a verb may act, where it may lead, and what it means in one sentence."""

    sources: frozenset[JobState]
    targets: frozenset[JobState]
    note: str
    from_waiting: frozenset[JobState] | None = None
    """Where it leads from queued and parked, when that is not all of `targets`."""
    from_running: frozenset[JobState] | None = None
    """The same for running."""

    def leads(self, source: JobState) -> frozenset[JobState]:
        """Return where the verb may lead from one of its sources."""
        narrowed = self.from_running if source is JobState.RUNNING else self.from_waiting
        return self.targets if narrowed is None else narrowed


_QUEUED, _RUNNING, _PARKED = JobState.QUEUED, JobState.RUNNING, JobState.PARKED
_OPEN = frozenset({_QUEUED, _RUNNING, _PARKED})
_WAITING = frozenset({_QUEUED, _PARKED})


def _edge(
    sources: Iterable[JobState],
    targets: Iterable[JobState],
    note: str,
    *,
    from_waiting: Iterable[JobState] | None = None,
    from_running: Iterable[JobState] | None = None,
) -> Transition:
    waiting = None if from_waiting is None else frozenset(from_waiting)
    running = None if from_running is None else frozenset(from_running)
    return Transition(frozenset(sources), frozenset(targets), note, waiting, running)


TRANSITIONS: dict[Verb, Transition] = {
    Verb.CREATE: _edge([], [_QUEUED], "writes record, idempotency key and ticket in one step"),
    Verb.CLAIM: _edge([_QUEUED], [_RUNNING], "the generation grows, a lease begins; older tickets drop"),
    Verb.BOOK: _edge([_RUNNING], [_RUNNING], "a start time from the bucket, owned by the lease"),
    Verb.START: _edge([_RUNNING], [_RUNNING], "admits, charges and writes the attempt row before the bytes leave"),
    Verb.RENEW: _edge([_RUNNING], [_RUNNING], "extends the lease and returns cancel flags"),
    Verb.STREAM: _edge([_RUNNING], [_RUNNING], "pieces of the answer for readers; the first bind the job to this call"),
    Verb.FINISH: _edge(
        _OPEN,
        TERMINAL,
        "the first valid result wins, from a lost lease too; all else needs the lease",
        from_waiting=[JobState.SUCCEEDED],
    ),
    Verb.PARK: _edge([_RUNNING], [_PARKED], "waits for quota, breaker, maintenance or retry-after"),
    Verb.REQUEUE: _edge([_RUNNING], [_QUEUED], "a fallback hop to the next tier's queue"),
    Verb.RELEASE: _edge([_RUNNING], [_QUEUED], "given back before its start, no attempt used"),
    Verb.PROMOTE: _edge(_WAITING, [_QUEUED], "its time has come; the backlog feeds it in its turn"),
    Verb.FEED: _edge(_WAITING, [_QUEUED], "its ticket, out of the backlog, just ahead of its admission"),
    Verb.REISSUE: _edge([_QUEUED], [_QUEUED], "its ticket was lost; the generation grows"),
    Verb.RESCUE: _edge(
        [_RUNNING],
        [_QUEUED, JobState.FAILED],
        "its lease is over; after three kills it fails as poison_job, once streamed as stream_broken",
    ),
    Verb.CANCEL: _edge(
        _OPEN,
        [JobState.CANCELLED, _RUNNING],
        "running: a flag, seen at renew and start",
        from_waiting=[JobState.CANCELLED],
        from_running=[_RUNNING],
    ),
    Verb.EXPIRE: _edge(_WAITING, [JobState.EXPIRED], "its deadline passed before it could run"),
}


def sources(verb: Verb) -> str:
    """Return the verb's from-states as the comma-separated argument its script takes."""
    return ",".join(sorted(TRANSITIONS[verb].sources))


@dataclass(frozen=True, slots=True)
class Hop:
    """One candidate of a job's chain: which model, carried by which tier's queue."""

    model: str
    tier: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call: its write-ahead row, and its ending once known (`unknown` until then)."""

    number: int
    model: str
    tier: str
    started_at: int
    worker: str
    outcome: str = "unknown"
    status: int | None = None
    message: str = ""
    counted: bool = True
    reason: str = ""
    duration_ms: int | None = None
    request_id: str | None = None
    cost_nano_usd: int = 0
    notes: tuple[str, ...] = ()
    """What of the request was put otherwise for the model."""

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain JSON values, times as epoch milliseconds of Redis' clock."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Job:
    """A job as its record in Redis tells it. Times are epoch milliseconds of Redis' clock."""

    id: str
    state: JobState
    generation: int
    tenant: str
    priority: Priority
    tier: str
    model: str
    hops: tuple[Hop, ...]
    hop: int
    policy: dict[str, Any]
    reasons: tuple[str, ...]
    created_at: int
    updated_at: int
    estimated_tokens: int
    prompt_bytes: int
    body: bytes = field(repr=False, default=b"")
    response: bytes | None = field(repr=False, default=None)
    attempts: tuple[Attempt, ...] = ()
    kills: int = 0
    lapses: int = 0
    reason: str = ""
    message: str = ""
    deadline_at: int | None = None
    parked_until: int | None = None
    finished_at: int | None = None
    cancel_requested: bool = False
    usage: dict[str, Any] | None = None
    cost_usd: Decimal | None = None
    served_model: str | None = None
    served_tier: str | None = None
    served_vessel: str | None = None
    retry_of: str | None = None
    queue: str = ""
    idem: str = ""
    reply: str = ""
    builtin_tools: tuple[str, ...] = ()
    at_model: str = ""
    """The model whose gate it has a booking or a call at."""
    waits_for_gate: bool = False
    unfit: frozenset[int] = frozenset()
    """Hops whose model said that it can never take the job; also the gate says so, of which no attempt tells."""
    start_at: int | None = None
    asked_at: int | None = None
    """When its batch was made, where its `max_wait` counts from then."""
    output_tokens: int = 0
    streams: bool = False
    """Whether its answer is written for readers as it comes."""
    streamed: bool = False
    """Whether the first pieces of it are written: no other call can serve the job any more."""
    read_at: int | None = None
    """When a reader was last there."""
    trace: str = ""
    """The `traceparent` under which it was submitted, and the REST request that did."""
    request_id: str = ""
    batch: str = ""
    line: str = ""
    """Its place in its batch, `group:position`."""
    source: str = ""
    """Where its body lies, as `file offset length`; empty where the record holds it."""

    @property
    def terminal(self) -> bool:
        """Tell whether the job has ended."""
        return self.state in TERMINAL

    @property
    def counted_attempts(self) -> int:
        """Return how many attempts count against `max_attempts`."""
        return sum(1 for attempt in self.attempts if attempt.counted)

    @property
    def spent_nano_usd(self) -> int:
        """Return what its calls cost so far; a call without an answer counts at its worst case."""
        return sum(attempt.cost_nano_usd for attempt in self.attempts)

    @property
    def waits_since(self) -> int:
        """Return from when on its `max_wait` counts."""
        return self.asked_at or self.created_at

    @property
    def current(self) -> Hop:
        """Return the hop the job is on."""
        return self.hops[self.hop]

    def request(self) -> dict[str, Any]:
        """Return the stored body as a new dict; Python's own number forms survive."""
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed
