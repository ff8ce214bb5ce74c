"""Builders for the job store's contract: jobs in every state, by the store's own verbs, on any server."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from tests.waiting import wait_until
from vessel.dispatch.ticket import parse, template
from vessel.gate.limiter import NAMES, NOTHING, Charge, GiveBack
from vessel.gate.view import GateView, look
from vessel.jobs.model import Hop, Job
from vessel.jobs.record import NewJob, new_job_id
from vessel.jobs.steps import NO_ATTEMPT, UNKNOWN, Answer, Ending, Feed, Final, Held, Issue, Start, Wait
from vessel.jobs.store import JobStore
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import GateKeys, Keys, gate_keys
from vessel.wire import JobState, Priority

if TYPE_CHECKING:
    from vessel.keyspace.script import Call

T = TypeVar("T")
TIER, OTHER_TIER = "ultra_fast", "power"
HOPS = (Hop("llama-3.1-8b-instant", TIER), Hop("llama-3.3-70b-versatile", OTHER_TIER))
HOUR_MS = 3_600_000
DAY_MS = 86_400_000
MODEL, ORG = HOPS[0].model, "default"
TTL_MS = HOUR_MS
ROW = '{"model":"llama-3.1-8b-instant","tier":"ultra_fast","worker":"w","worst_nano_usd":7}'
UNKNOWN_ROW = '{"estimated":true}'
ENDING_ROW = '{"status":200,"cost_nano_usd":5}'
_numbers = itertools.count(1)


def success(
    number: int = 1, answer: bytes = b'{"choices":[1]}', charge: Charge | None = None, back: GiveBack = NOTHING
) -> tuple[Ending, Final]:
    """Build the ending and the result of a call that answered."""
    ending = Ending(number, JobState.SUCCEEDED, ENDING_ROW, f'{{"attempt":{number}}}', charge, back)
    return ending, Final(JobState.SUCCEEDED, {"response": answer}, valid=True)


def failure(number: int = 1, state: JobState = JobState.FAILED) -> tuple[Ending, Final]:
    """Build the ending of a call that failed for good and cost nothing."""
    return Ending(number, "bad_request", '{"status":400}'), Final(state, {"reason": "bad_request", "message": "no"})


def cut(number: int = 1) -> Ending:
    """Build the ending of a call whose answer is never seen."""
    return Ending(number, UNKNOWN, '{"status":null}', UNKNOWN_ROW)


def charge(prompt: int = 1, output: int = 0, *, model: str = MODEL, nano_usd: int = 0, concurrency: int = 0,
           **limits: int) -> Charge:  # fmt: skip
    """Charge one call to a model with these limits; without any the gate knows that there is none."""
    figures = tuple(limits.get(name, 0) for name in NAMES)
    return Charge(model, ORG, figures, prompt, output, nano_usd, concurrency)


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

    def queued(self, *, issue: Issue = Issue.TICKET, **more: Any) -> Job:
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

    def start(
        self, held: Held, attempt: int = 1, of: Charge | None = None, *, book_ms: int = 0, channel: str = ""
    ) -> Answer:
        """Start an attempt; without a charge at a gate whose limits are far away."""
        start = Start(attempt, ROW, UNKNOWN_ROW, TIER, of or charge(rpd=10**6), book_ms, channel=channel)
        return self.run(self.store.start(held, start))

    def started(self, owner: str = "w/1", *, lapsed: bool = False, **more: Any) -> Held:
        """Create, claim and start a job."""
        held = self.running(owner, lapsed=lapsed, **more)
        assert self.start(held).word == "started"
        return held

    def park(self, held: Held, ending: Ending = NO_ATTEMPT, *, delay_ms: int = 1) -> Answer:
        """Park on the hop it is on."""
        return self.run(self.store.park(held, ending, 0, Wait(delay_ms, "quota", "full")))

    def wait(self, held: Held, ending: Ending = NO_ATTEMPT, *, look_ms: int = 0) -> Answer:
        """Let it wait in the backlog until the gate has room."""
        return self.run(self.store.park(held, ending, 0, Wait(60_000, "quota", "full", for_gate=True, look_ms=look_ms)))

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
        """Promote a parked job as soon as its time has come, and feed it."""
        wait_until(lambda: self.run(self.store.promote(self.job(job.id))).word == "done")
        return self.fed(job)

    def fed(self, job: Job, tokens: int = 0) -> Job:
        """Give a job of the backlog its ticket, if it has none."""
        self.run(self.store.feed(self.job(job.id), self.gate(), Feed(tokens)))
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

    def gate(self, model: str = MODEL) -> GateKeys:
        """The keys of a model's gate."""
        return gate_keys(self.keys, ORG, model, "t")

    def freeze(self, model: str = MODEL, **levels: float) -> None:
        """Write levels that stay for the next hour unless they are charged: the gate's clock is ahead."""
        key = self.gate(model).gate
        self.client.hset(key, mapping={f"l:{name}": level for name, level in levels.items()})
        self.client.hdel(key, *(f"k:{name}" for name in levels))
        self.client.hset(key, "at", self.now_ms() + HOUR_MS)
        self.client.pexpire(key, HOUR_MS)

    def level(self, name: str = "rpm", model: str = MODEL) -> float:
        """Read a limit's level as last written."""
        return float(self.client.hget(self.gate(model).gate, f"l:{name}"))

    def view(self, of: Charge) -> GateView:
        """Look at the gate of a charge."""
        return self.run(look(self.gate(of.model), of.figures))

    def bookings(self, model: str = MODEL) -> int:
        """Count the booked starts."""
        return int(self.client.zcard(self.gate(model).bookings))

    def now_ms(self) -> int:
        """Read Redis' clock."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000

    def tick(self) -> None:
        """Wait until Redis' clock shows another millisecond."""
        now = self.now_ms()
        wait_until(lambda: self.now_ms() > now)

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
                case b"set":
                    content = sorted(self.client.smembers(name))
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
