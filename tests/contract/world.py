"""Builders for the job store's contract: jobs in every state, by the store's own verbs, on any server."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tests.waiting import wait_until
from vessel.dispatch.ticket import parse, template
from vessel.gate.limiter import Bucket, Charge, GiveBack
from vessel.jobs.model import Hop, Job
from vessel.jobs.record import NewJob, new_job_id
from vessel.jobs.store import NO_ATTEMPT, UNKNOWN, Answer, Ending, Final, Held, JobStore
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import Keys
from vessel.wire import JobState, Priority

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.keyspace.script import Call

T = TypeVar("T")
TIER, OTHER_TIER = "ultra_fast", "power"
HOPS = (Hop("llama-3.1-8b-instant", TIER), Hop("llama-3.3-70b-versatile", OTHER_TIER))
HOUR_MS = 3_600_000
SLOW_MS = 10**12
"""A limit's window in which nothing refills while a test runs; and how far ahead a start may then be booked."""

TTL_MS = HOUR_MS
ROW = '{"model":"llama-3.1-8b-instant","tier":"ultra_fast","worker":"w","worst_nano_usd":7}'
UNKNOWN_ROW = '{"estimated":true}'
ENDING_ROW = '{"status":200,"cost_nano_usd":5}'
_numbers = itertools.count(1)


def success(number: int = 1, answer: bytes = b'{"choices":[1]}', back: Sequence[GiveBack] = ()) -> tuple[Ending, Final]:
    """Build the ending and the result of a call that answered."""
    ending = Ending(number, JobState.SUCCEEDED, ENDING_ROW, f'{{"attempt":{number}}}', tuple(back))
    return ending, Final(JobState.SUCCEEDED, {"response": answer}, valid=True)


def failure(number: int = 1, state: JobState = JobState.FAILED) -> tuple[Ending, Final]:
    """Build the ending of a call that failed for good and cost nothing."""
    return Ending(number, "bad_request", '{"status":400}'), Final(state, {"reason": "bad_request", "message": "no"})


def cut(number: int = 1) -> Ending:
    """Build the ending of a call whose answer is never seen."""
    return Ending(number, UNKNOWN, '{"status":null}', UNKNOWN_ROW)


def charges(bucket: Bucket, cost: int) -> tuple[Charge, ...]:
    """Charge one bucket."""
    return (Charge(bucket, cost),)


@dataclass
class World:
    """A store on one server, with leases that never end by themselves and one that makes leases already over."""

    client: Any  # a redis.Redis; its own annotations say that every answer may be None
    keys: Keys = field(default_factory=lambda: Keys(f"contract{next(_numbers)}"))
    lease_ms: int = HOUR_MS

    def __post_init__(self) -> None:
        """Bind the store to the keys."""
        self.runner = SyncRunner(self.client)
        self.store = JobStore(self.keys, template(), ttl_ms=TTL_MS, lease_ms=self.lease_ms)
        self.lapsing = replace(self.store, lease_ms=0)

    def run(self, call: Call[T]) -> T:
        """Run one call."""
        return self.runner.run(call)

    def words(self, *calls: Call[Answer]) -> list[str]:
        """Run calls one after the other and give their words."""
        return [self.run(call).word for call in calls]

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def new(self, **more: Any) -> NewJob:
        """Describe a job."""
        given: dict[str, Any] = {
            "id": new_job_id(),
            "tenant": "t",
            "priority": Priority.NORMAL,
            "hops": HOPS,
            "policy": {"max_attempts": 5},
            "reasons": ("explicit",),
            "body": b'{"messages":[]}',
            "body_hash": "h",
            "estimated_tokens": 10,
        }
        return NewJob(**given | more)

    def queued(self, *, issue: bool = True, **more: Any) -> Job:
        """Create a job."""
        new = self.new(**more)
        assert self.run(self.store.create(new, TIER, issue=issue)).word == "created"
        return self.job(new.id)

    def claim(self, job: Job, owner: str = "w/1", *, lapsed: bool = False) -> Held:
        """Claim a queued job with its current ticket; `lapsed`: its lease is over at once."""
        store = self.lapsing if lapsed else self.store
        held = self.run(store.claim(job.id, self.job(job.id).generation, job.queue, owner))
        assert isinstance(held, Held), held
        return held

    def running(self, owner: str = "w/1", *, lapsed: bool = False, **more: Any) -> Held:
        """Create and claim a job."""
        return self.claim(self.queued(**more), owner, lapsed=lapsed)

    def start(self, held: Held, attempt: int = 1, of: Sequence[Charge] = (), *, book_ms: int = 0) -> Answer:
        """Start an attempt under a gate that is open."""
        call = self.store.start(held, attempt, ROW, UNKNOWN_ROW, self.gate, charges=of, book_ms=book_ms)
        return self.run(call)

    def started(self, owner: str = "w/1", *, lapsed: bool = False, **more: Any) -> Held:
        """Create, claim and start a job."""
        held = self.running(owner, lapsed=lapsed, **more)
        assert self.start(held).word == "started"
        return held

    def park(self, held: Held, ending: Ending = NO_ATTEMPT, *, delay_ms: int = 1) -> Answer:
        """Park on the hop it is on."""
        return self.run(self.store.park(held, ending, 0, delay_ms=delay_ms, reason="quota", message="full"))

    def requeue(self, held: Held, ending: Ending = NO_ATTEMPT) -> Answer:
        """Send on to the second hop's queue."""
        return self.run(self.store.requeue(held, ending, 1, OTHER_TIER, reason="step_down", message=""))

    def finish(self, held: Held, how: tuple[Ending, Final]) -> Answer:
        """Finish."""
        return self.run(self.store.finish(held, *how))

    def rescue(self, job: Job) -> Answer:
        """Rescue as the sweep does: read, then act."""
        return self.run(self.store.rescue(self.job(job.id)))

    def promoted(self, job: Job) -> Job:
        """Promote a parked job as soon as its time has come."""
        wait_until(lambda: self.run(self.store.promote(self.job(job.id))).word == "done")
        return self.job(job.id)

    def run_next(self, held: Held, attempt: int) -> Held:
        """Claim a job that was sent on, and start its next attempt."""
        again = self.claim(self.job(held.job.id), f"w/{attempt}")
        assert self.start(again, attempt).word == "started"
        return again

    def job(self, job_id: str) -> Job:
        """Read a job that is there."""
        job = self.run(self.store.read(job_id))
        assert job is not None
        return job

    # --- what is in Redis ---------------------------------------------------------------------------------------------

    @property
    def gate(self) -> str:
        """The gate of the one model."""
        return self.keys.gate("org", "model")

    def bucket(self, capacity: int = 10, name: str = "rpm", level: float | None = None) -> Bucket:
        """Make a bucket, written with a level if one is given."""
        bucket = Bucket(name, self.keys.bucket(f"{name}/{next(_numbers)}"), capacity, SLOW_MS)
        if level is not None:
            self.client.hset(bucket.key, mapping={"level": level, "at": self.now_ms()})
            self.client.pexpire(bucket.key, HOUR_MS)
        return bucket

    def level(self, bucket: Bucket) -> float:
        """Read a bucket's level as last written."""
        return float(self.client.hget(bucket.key, "level") or bucket.capacity)

    def now_ms(self) -> int:
        """Read Redis' clock."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def record(self, job: Job) -> dict[bytes, bytes]:
        """Read a job's whole hash."""
        found: dict[bytes, bytes] = self.client.hgetall(self.keys.job(job.id))
        return found

    def ledger(self) -> list[dict[str, str]]:
        """Read the ledger, oldest first, each entry with its `entry` id."""
        rows = self.client.xrange(self.keys.ledger)
        return [{"entry": i.decode()} | {k.decode(): v.decode() for k, v in f.items()} for i, f in rows]

    def booked(self) -> list[tuple[str, str]]:
        """Read the ledger's calls, as attempt number and outcome."""
        return [(row["call"].partition("/")[2], row["outcome"]) for row in self.ledger()]

    def tickets(self, queue: str = TIER) -> list[tuple[str, int]]:
        """Read the tickets in a queue's list, the next one to be consumed first."""
        raw: list[bytes] = self.client.lrange(self.keys.queue(queue), 0, -1)
        return [pair for message in reversed(raw) for pair in parse(message)]

    def events(self, job: Job) -> list[str]:
        """Read the names of a job's events."""
        return [fields[b"event"].decode() for _, fields in self.client.xrange(self.keys.events(job.id))]

    def everything(self) -> dict[str, Any]:
        """Read all keys with their content, but not their time to live, and not the readings of clocks."""
        found: dict[str, Any] = {}
        for name in sorted(self.client.scan_iter(f"{self.keys.namespace}:*")):
            match self.client.type(name):
                case b"hash":
                    content: Any = self.client.hgetall(name)
                case b"zset":
                    content = self.client.zrange(name, 0, -1, withscores=True)
                case b"list":
                    content = self.client.lrange(name, 0, -1)
                case b"stream":
                    content = self.client.xrange(name)
                case _:
                    content = self.client.get(name)
            found[name.decode()] = content
        return found


def as_json(text: str) -> Any:
    """Read a row."""
    return json.loads(text)
