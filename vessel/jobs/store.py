"""The only writer of job state: each edge of TRANSITIONS is one script call (`start` books as well)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vessel.gate.limiter import Bucket, Charge, GiveBack
from vessel.jobs.model import TRANSITIONS, Hop, Job, Verb, sources
from vessel.jobs.record import NewJob, dump, read_job
from vessel.keyspace.names import JobKeys, Keys, job_keys
from vessel.keyspace.script import Arg, Call, command, load, pairs, word
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN = "unknown"
ORPHANED = "orphaned"
MAX_KILLS = 3
"""Workers lost in the middle of a job's call, before it is given up as the likely cause."""

MAX_LAPSES = 10
"""Leases lost at all, also before anything was sent; else a body that kills its worker in planning would loop."""

LIGHT_FIELDS = (
    *("id", "state", "gen", "tenant", "priority", "tier", "model", "hops", "hop", "policy", "reasons", "created"),
    *("updated", "est", "queue", "idem", "reply", "tools", "booking", "until", "deadline", "finished", "kills"),
    *("lapses", "reason", "message", "usage", "cost", "served_model", "served_tier", "retry_of", "cancel"),
)
"""A record without its payloads and attempts."""


@dataclass(frozen=True, slots=True)
class Held:
    """A running job as the process that claimed it knows it: the fence of every further step."""

    job: Job
    generation: int
    owner: str
    keys: JobKeys


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: its row, its ledger row (empty: not charged) and what goes back into the buckets."""

    number: int
    label: str
    row: str
    ledger_row: str = ""
    give_back: tuple[GiveBack, ...] = ()


NO_ATTEMPT = Ending(0, "", "")


@dataclass(frozen=True, slots=True)
class Final:
    """What a job ends with."""

    state: JobState
    fields: dict[str, str | bytes] = field(default_factory=dict, repr=False)
    valid: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A script's answer: a word, a number or text that goes with it, and the limit it is about."""

    word: str
    detail: str = ""
    limit: str = ""


@dataclass(frozen=True, slots=True)
class Due:
    """What a sweep should look at."""

    parked: tuple[str, ...]
    leased: tuple[str, ...]
    deadlines: tuple[str, ...]
    now_ms: int


def _answer(raw: Sequence[Any]) -> Answer:
    return Answer(word(raw[0]), word(raw[1]) if len(raw) > 1 else "")


def _repr(hop: Hop) -> str:
    return f"{hop.tier} {hop.model}"


def _triples(give_back: Sequence[GiveBack]) -> tuple[list[str], list[Arg]]:
    args: list[Arg] = []
    for item in give_back:
        args += [item.bucket.capacity, item.bucket.period_ms, item.amount]
    return [item.bucket.key for item in give_back], args


def _named(keys: JobKeys, **more: str) -> dict[str, str]:
    return {name: getattr(keys, name) for name in keys.__slots__} | more


def encode_booking(charges: Sequence[Charge]) -> str:
    """Write charges so that whoever frees the booking can give them back."""
    return dump([[c.bucket.name, c.bucket.key, c.bucket.capacity, c.bucket.period_ms, c.cost] for c in charges])


def decode_booking(text: str) -> tuple[GiveBack, ...]:
    """Read a booking back as what it gives back."""
    rows = json.loads(text) if text else []
    return tuple(GiveBack(Bucket(n, k, c, p), cost) for n, k, c, p, cost in rows)


@dataclass(frozen=True, slots=True)
class JobStore:
    """Build the calls that change jobs. `template` is the Celery envelope; times are milliseconds."""

    keys: Keys
    template: str
    ttl_ms: int
    lease_ms: int

    def of(self, job: Job) -> JobKeys:
        """Collect a job's keys from its record."""
        return job_keys(self.keys, job.id, queue=job.queue, idem=job.idem, reply=job.reply)

    def create(self, new: NewJob, queue: str, *, issue: bool) -> Call[Answer]:
        """Create: answers created, exists or conflict with the id that holds the key."""
        key = new.idempotency_key
        idem = self.keys.idempotency(new.tenant, key) if key else ""
        args: dict[str, Arg] = {
            "id": new.id,
            "body_hash": new.body_hash,
            "use_key": "1" if key else "0",
            "issue": "1" if issue else "0",
            "template": self.template,
            "queue_name": queue,
            "repr": _repr(new.hops[0]),
            "deadline_ms": new.deadline_ms,
            "to": JobState.QUEUED,
        }
        names = _named(job_keys(self.keys, new.id, queue=queue, idem=idem))
        return load("create").call(names, args, _answer, more_args=new.fields(queue, idem))

    def claim(self, job_id: str, generation: int, queue: str, owner: str) -> Call[Held | Answer]:
        """Claim: answers the held job, or stale or missing."""
        names = _named(job_keys(self.keys, job_id, queue=queue))
        args: dict[str, Arg] = {
            "id": job_id,
            "ticket_generation": generation,
            "owner": owner,
            "lease_ms": self.lease_ms,
            "from": sources(Verb.CLAIM),
            "to": JobState.RUNNING,
        }

        def parse(raw: Sequence[Any]) -> Held | Answer:
            if word(raw[0]) != "claimed":
                return _answer(raw)
            job = read_job(pairs(raw[1]))
            return Held(job, job.generation, owner, self.of(job))

        return load("claim").call(names, args, parse)

    def start(self, held: Held, attempt: int, row: str, unknown_row: str, gate: str, *, charges: Sequence[Charge],
              book_ms: int) -> Call[Answer]:  # fmt: skip
        """Book and start: answers started, booked, wait, too_large, cancel_requested or superseded."""
        args: dict[str, Arg] = {
            "generation": held.generation,
            "owner": held.owner,
            "attempt": attempt,
            "row": row,
            "unknown_row": unknown_row,
            "booking": encode_booking(charges),
            "book_ms": book_ms,
            "from": sources(Verb.START),
        }
        limits: list[Arg] = []
        for item in charges:
            limits += [item.bucket.capacity, item.bucket.period_ms, item.cost]

        def parse(raw: Sequence[Any]) -> Answer:
            words = [word(part) for part in raw]
            named = {"wait": 2, "too_large": 1}.get(words[0])
            which = int(words[named]) if named else 0
            limit = charges[which - 1].bucket.name if which else ""
            return Answer(words[0], words[1] if len(words) > 1 else "", limit)

        keys = [c.bucket.key for c in charges]
        return load("start").call(_named(held.keys, gate=gate), args, parse, more_keys=keys, more_args=limits)

    def renew(self, held: Sequence[Held]) -> Call[list[str]]:
        """Renew the leases of one process: one word per job, ok, cancel or lost."""
        more: list[Arg] = []
        for item in held:
            more += [item.job.id, item.generation, item.owner]
        return load("renew").call(
            {"leases": self.keys.leases},
            {"lease_ms": self.lease_ms, "from": sources(Verb.RENEW)},
            lambda raw: [word(w) for w in raw],
            more_keys=[item.keys.job for item in held],
            more_args=more,
        )

    def finish(self, held: Held, ending: Ending, final: Final) -> Call[Answer]:
        """Finish: answers finished, late, superseded or missing; a call's ending is booked in every case."""
        keys, triples = _triples(ending.give_back)
        words: list[Arg] = [part for pair in final.fields.items() for part in pair]
        args = self._ending(held, ending) | {
            "late_label": ORPHANED,
            "valid": "1" if final.valid else "0",
            "from": sources(Verb.FINISH),
            "when_running": JobState.RUNNING,
            "to": final.state,
        }
        more = [len(words), *words, *triples]
        return load("finish").call(_named(held.keys), args, _answer, more_keys=keys, more_args=more)

    def park(self, held: Held, ending: Ending, hop: int, *, delay_ms: int, reason: str, message: str) -> Call[Answer]:
        """Park until the delay is over, on the hop it will go on with."""
        keys, triples = _triples(ending.give_back)
        args = self._ending(held, ending) | self._onward(held, hop, reason, message) | {
            "from": sources(Verb.PARK),
            "to": JobState.PARKED,
            "delay_ms": max(1, delay_ms),
        }  # fmt: skip
        return load("park").call(_named(held.keys), args, _answer, more_keys=keys, more_args=triples)

    def requeue(self, held: Held, ending: Ending, hop: int, queue: str, *, reason: str, message: str) -> Call[Answer]:
        """Requeue on the hop's own queue, ticket in the same step."""
        return self._send_on(held, ending, hop, queue, reason=reason, message=message, verb=Verb.REQUEUE)

    def release(self, held: Held, booking: Sequence[GiveBack] = ()) -> Call[Answer]:
        """Release a job that has not started: no attempt is used and its booking goes back."""
        ending = Ending(0, "", "", give_back=tuple(booking))
        return self._send_on(held, ending, held.job.hop, held.job.queue, reason="", message="", verb=Verb.RELEASE)

    def _send_on(self, held: Held, ending: Ending, hop: int, queue: str, *, reason: str, message: str,
                 verb: Verb) -> Call[Answer]:  # fmt: skip
        keys, triples = _triples(ending.give_back)
        args = self._ending(held, ending) | self._onward(held, hop, reason, message, queue) | {
            "from": sources(verb),
            "to": JobState.QUEUED,
            "verb": f"{verb}d",
            "template": self.template,
            "repr": _repr(held.job.hops[hop]),
        }  # fmt: skip
        target = job_keys(self.keys, held.job.id, queue=queue, idem=held.job.idem, reply=held.job.reply)
        return load("requeue").call(_named(target), args, _answer, more_keys=keys, more_args=triples)

    def _ending(self, held: Held, ending: Ending) -> dict[str, Arg]:
        return {
            "id": held.job.id,
            "generation": held.generation,
            "owner": held.owner,
            "attempt": ending.number,
            "label": ending.label,
            "unknown": UNKNOWN,
            "outcome_row": ending.row,
            "ledger_row": ending.ledger_row,
            "ttl_ms": self.ttl_ms,
        }

    def _onward(self, held: Held, hop: int, reason: str, message: str, queue: str = "") -> dict[str, Arg]:
        target = held.job.hops[hop]
        return {
            "reason": reason,
            "message": message,
            "hop": hop,
            "tier": target.tier,
            "model": target.model,
            "queue_name": queue or held.job.queue,
        }

    def promote(self, job: Job) -> Call[Answer]:
        """Promote a parked job that is due."""
        return load("promote").call(_named(self.of(job)), self._ticket(job, Verb.PROMOTE) | {"to": JobState.QUEUED},
                                    _answer)  # fmt: skip

    def reissue(self, job: Job, queue: str, issued_ms: int) -> Call[Answer]:
        """Reissue the ticket that was noted in this queue at that time and got lost; its job still waits there."""
        args = self._ticket(job, Verb.REISSUE) | {
            "generation": job.generation,
            "queue_name": queue,
            "issued": issued_ms,
        }
        return load("reissue").call(_named(job_keys(self.keys, job.id, queue=queue)), args, _answer)

    def rescue(self, job: Job, booking: Sequence[GiveBack] = ()) -> Call[Answer]:
        """Rescue a running job whose lease is over, giving back its `booking` as decoded; often killed ones fail."""
        keys, triples = _triples(booking)
        args = self._ticket(job, Verb.RESCUE) | {
            "to_queued": JobState.QUEUED,
            "to_failed": JobState.FAILED,
            "booking": job.booking,
            "max_kills": MAX_KILLS,
            "max_lapses": MAX_LAPSES,
            "ttl_ms": self.ttl_ms,
            "poison_reason": "poison_job",
            "poison_message": f"Its worker was lost {MAX_KILLS} times in mid-call, or {MAX_LAPSES} times in all, so it "
            "is not run again. Look at the request before you submit it anew.",
            "unknown": UNKNOWN,
        }
        return load("rescue").call(_named(self.of(job)), args, _answer, more_keys=keys, more_args=triples)

    def _ticket(self, job: Job, verb: Verb) -> dict[str, Arg]:
        return {
            "id": job.id,
            "from": sources(verb),
            "queue_name": job.queue,
            "template": self.template,
            "repr": _repr(job.current),
        }

    def cancel(self, job: Job) -> Call[Answer]:
        """Cancel: answers closed, flagged (it runs and will be told), terminal or missing."""
        made = "nothing more was sent" if job.attempts else "nothing was sent"
        return self._close(job, JobState.CANCELLED, JobState.CANCELLED, f"It was cancelled while it waited; {made}.")

    def expire(self, job: Job) -> Call[Answer]:
        """Expire a waiting job whose deadline passed."""
        message = "Its deadline passed while it waited; nothing more was sent. Give a longer deadline."
        return self._close(job, JobState.EXPIRED, "deadline", message)

    def _close(self, job: Job, state: JobState, reason: str, message: str) -> Call[Answer]:
        idle = sorted(TRANSITIONS[Verb.EXPIRE].sources)
        args: dict[str, Arg] = {
            "id": job.id,
            "from": ",".join(idle),
            "when_running": JobState.RUNNING,
            "to": state,
            "reason": reason,
            "message": message,
            "ttl_ms": self.ttl_ms,
            "only_after_deadline": "1" if state is JobState.EXPIRED else "0",
        }
        return load("close").call(_named(self.of(job)), args, _answer)

    def due(self, limit: int = 200) -> Call[Due]:
        """Ask what sweeps should look at."""

        def parse(raw: Sequence[Any]) -> Due:
            ids = [tuple(word(i) for i in part) for part in raw[:3]]
            return Due(ids[0], ids[1], ids[2], int(word(raw[3])))

        names = {"leases": self.keys.leases, "parked": self.keys.parked, "deadlines": self.keys.deadlines}
        args: dict[str, Arg] = {"limit": limit, "lease_ms": self.lease_ms, "gap_ms": max(5000, self.lease_ms // 3)}
        return load("due").call(names | {"sweep": self.keys.sweep}, args, parse)

    def peek(self, job_id: str) -> Call[Job | None]:
        """Read a job without its payloads, or None."""

        def parse(raw: Sequence[Any]) -> Job | None:
            record = {name: value for name, value in zip(LIGHT_FIELDS, raw, strict=True) if value is not None}
            return read_job(record) if "state" in record else None

        return command("HMGET", self.keys.job(job_id), *LIGHT_FIELDS, parse=parse)

    def read(self, job_id: str) -> Call[Job | None]:
        """Read a whole job, or None."""

        def parse(raw: Any) -> Job | None:
            record = pairs(raw)
            return read_job(record) if "state" in record else None

        return command("HGETALL", self.keys.job(job_id), parse=parse)
