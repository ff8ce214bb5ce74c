"""The only writer of job state: each edge of TRANSITIONS is one script call (`start` books as well)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.jobs.flows import flow_of, group_of, in_outage
from vessel.jobs.model import TRANSITIONS, Hop, Job, Verb, sources
from vessel.jobs.record import NewJob, read_job
from vessel.jobs.steps import (
    BROKEN_BY_LOSS,
    FAILED,
    LANES,
    NO_ATTEMPT,
    ORPHANED,
    STREAM_BROKEN,
    UNKNOWN,
    Answer,
    Due,
    Ending,
    Feed,
    Final,
    Held,
    Issue,
    Start,
    Wait,
)
from vessel.keyspace.names import GateKeys, JobKeys, Keys, gate_keys, job_keys
from vessel.keyspace.script import Arg, Call, command, load, pairs, word
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.gate.limiter import Charge

MAX_KILLS = 3
"""Workers lost in the middle of a job's call, before it is given up as the likely cause."""

MAX_LAPSES = 10
"""Leases lost at all, also before anything was sent; else a body that kills its worker in planning would loop."""

LIGHT_FIELDS = (
    *("id", "state", "gen", "tenant", "priority", "tier", "model", "hops", "hop", "policy", "reasons", "created"),
    *("updated", "est", "out", "queue", "idem", "reply", "tools", "at_model", "until", "deadline", "finished", "kills"),
    *(
        "lapses",
        "reason",
        "message",
        "usage",
        "cost",
        "charged",
        "served_model",
        "served_tier",
        "served_vessel",
        "retry_of",
        "cancel",
        "waits",
        "start_at",
        "streams",
        "streamed",
        "read_at",
        "batch",
        "line",
        "source",
    ),
)
"""A record without its payloads and attempts."""


def _answer(raw: Sequence[Any]) -> Answer:
    return Answer(word(raw[0]), word(raw[1]) if len(raw) > 1 else "")


def _repr(hop: Hop) -> str:
    return f"{hop.tier} {hop.model}"


def _named(*keys: JobKeys | GateKeys) -> dict[str, str]:
    return {name: getattr(some, name) for some in keys for name in some.__slots__}


@dataclass(frozen=True, slots=True)
class JobStore:
    """Build the calls that change jobs. `template` is the Celery envelope; times are milliseconds."""

    keys: Keys
    template: str
    ttl_ms: int
    lease_ms: int
    org: str = "default"

    def of(self, job: Job, *, queue: str = "", model: str = "") -> JobKeys:
        """Collect a job's keys from its record; `queue` and `model` are those it goes on with."""
        onto = queue or job.queue
        return job_keys(
            self.keys,
            job.id,
            queue=onto,
            idem=job.idem,
            reply=job.reply,
            group=group_of(model or job.model, job.priority),
            flow=flow_of(onto, job.tenant, outage=in_outage(job)),
            batch=job.batch,
            tenant=job.tenant,
        )

    def gate(self, job: Job, charge: Charge | None) -> GateKeys:
        """Collect the keys of the gate that a charge is for."""
        model, org = (charge.model, charge.org) if charge else (job.at_model, self.org)
        return gate_keys(self.keys, org, model, job.tenant)

    def create(self, new: NewJob, queue: str, *, issue: Issue) -> Call[Answer]:
        """Create: answers created, exists or conflict with the id that holds the key."""
        key = new.idempotency_key
        idem = self.keys.idempotency(new.tenant, key) if key else ""
        args: dict[str, Arg] = {
            "id": new.id,
            "tenant": new.tenant,
            "body_hash": new.body_hash,
            "use_key": "1" if key else "0",
            "issue": issue,
            "template": self.template,
            "queue_name": queue,
            "repr": _repr(new.hops[0]),
            "deadline_ms": new.deadline_ms,
            "look_ms": new.max_wait_ms,
            "to": JobState.QUEUED,
            "group": group_of(new.hops[0].model, new.priority),
            "flow": flow_of(queue, new.tenant, outage=in_outage(new)),
        }
        names = _named(job_keys(self.keys, new.id, queue=queue, idem=idem, group=str(args["group"]),
                                flow=str(args["flow"]), tenant=new.tenant))  # fmt: skip
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

    def start(self, held: Held, call: Start) -> Call[Answer]:
        """Book and start: answers started, booked, wait, held, too_large, cancel_requested or superseded."""
        args: dict[str, Arg] = {
            "id": held.job.id,
            "generation": held.generation,
            "owner": held.owner,
            "attempt": call.attempt,
            "row": call.row,
            "unknown_row": call.unknown_row,
            "from": sources(Verb.START),
            "model": call.charge.model,
            "tier": call.tier,
            "lane": LANES[held.job.priority],
            "prompt": call.charge.prompt_tokens,
            "output": call.charge.output_tokens,
            "book_ms": call.book_ms,
            "configured": call.charge.figures,
            "concurrency": call.charge.concurrency,
            "call_ms": call.call_ms,
            "worst_nano": call.charge.nano_usd,
            "channel": call.channel,
        }

        def parse(raw: Sequence[Any]) -> Answer:
            words = [*(word(part) for part in raw), "", "", ""]
            return Answer(words[0], words[1], words[2], words[3])

        return load("start").call(_named(held.keys, self.gate(held.job, call.charge)), args, parse)

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
        words: list[Arg] = [part for pair in final.fields.items() for part in pair]
        args = self._ending(held, ending) | self._waits_in(held.job) | {
            "late_label": ORPHANED,
            "valid": "1" if final.valid else "0",
            "from": sources(Verb.FINISH),
            "when_running": JobState.RUNNING,
            "to": final.state,
        }  # fmt: skip
        names = _named(held.keys, self.gate(held.job, ending.charge))
        return load("finish").call(names, args, _answer, more_args=words)

    def park(self, held: Held, ending: Ending, hop: int, wait: Wait) -> Call[Answer]:
        """Park on the hop the job will go on with: for a time, or in the backlog until the gate has room."""
        target = held.job.hops[hop]
        args = self._ending(held, ending) | self._onward(held, hop, wait.reason, wait.message, unfit=wait.unfit) | {
            "from": sources(Verb.PARK),
            "to": JobState.PARKED,
            "delay_ms": max(1, wait.delay_ms),
            "in_backlog": "1" if wait.for_gate else "0",
            "look_ms": wait.look_ms,
            "group": group_of(target.model, held.job.priority),
            "flow": flow_of(held.job.queue, held.job.tenant, outage=in_outage(held.job)),
        }  # fmt: skip
        names = _named(self.of(held.job, model=target.model), self.gate(held.job, ending.charge))
        return load("park").call(names, args, _answer)

    def requeue(self, held: Held, ending: Ending, hop: int, queue: str, *, reason: str, message: str,
                unfit: bool = False) -> Call[Answer]:  # fmt: skip
        """Requeue on the hop's own queue, ticket in the same step; `unfit` as in `Wait`."""
        return self._send_on(held, ending, self._onward(held, hop, reason, message, queue, unfit=unfit), Verb.REQUEUE)

    def release(self, held: Held, ending: Ending = NO_ATTEMPT) -> Call[Answer]:
        """Release a job that has not started: no attempt is used and its booking goes back."""
        return self._send_on(held, ending, self._onward(held, held.job.hop, "", ""), Verb.RELEASE)

    def _send_on(self, held: Held, ending: Ending, onward: dict[str, Arg], verb: Verb) -> Call[Answer]:
        args = self._ending(held, ending) | onward | {
            "from": sources(verb),
            "to": JobState.QUEUED,
            "verb": f"{verb}d",
            "template": self.template,
            "repr": _repr(held.job.hops[int(onward["hop"])]),
        }  # fmt: skip
        names = _named(self.of(held.job, queue=str(onward["queue_name"])), self.gate(held.job, ending.charge))
        return load("requeue").call(names, args, _answer)

    def _ending(self, held: Held, ending: Ending) -> dict[str, Arg]:
        return {
            "id": held.job.id,
            "generation": held.generation,
            "owner": held.owner,
            "attempt": ending.number,
            "label": ending.label,
            "unknown": UNKNOWN,
            "failed": FAILED,
            "outcome_row": ending.row,
            "ledger_row": ending.ledger_row,
            "ttl_ms": self.ttl_ms,
            "configured": ending.charge.figures if ending.charge else "",
            "back_requests": ending.back.requests,
            "back_prompt": ending.back.prompt_tokens,
            "back_output": ending.back.output_tokens,
            "back_nano": ending.back.nano_usd,
        }

    def _onward(self, held: Held, hop: int, reason: str, message: str, queue: str = "", *,
                unfit: bool = False) -> dict[str, Arg]:  # fmt: skip
        target, never = held.job.hops[hop], held.job.unfit | ({held.job.hop} if unfit else set())
        return {
            "reason": reason, "message": message, "hop": hop, "tier": target.tier, "model": target.model,
            "queue_name": queue or held.job.queue, "unfit": ",".join(map(str, sorted(never))),
        }  # fmt: skip

    def _waits_in(self, job: Job) -> dict[str, Arg]:
        flow = flow_of(job.queue, job.tenant, outage=in_outage(job))
        return {"group": group_of(job.model, job.priority), "flow": flow}

    def promote(self, job: Job) -> Call[Answer]:
        """Promote a parked job that is due."""
        args = self._ticket(job, Verb.PROMOTE) | self._waits_in(job) | {"to": JobState.QUEUED, "model": job.model}
        return load("promote").call(_named(self.of(job)), args, _answer)

    def feed(self, job: Job, gate: GateKeys, feed: Feed) -> Call[Answer]:
        """Feed a job out of the backlog: its ticket is issued, and its flow has had so many tokens more."""
        queue = feed.queue
        args = self._ticket(job, Verb.FEED) | self._waits_in(job) | {"to": JobState.QUEUED, "tokens": feed.tokens}
        args |= {"queue_name": queue or job.queue, "was": job.queue, "least": feed.least}
        args |= {"lane": LANES[job.priority], "waited_ms": feed.waited_ms}
        issued = job_keys(self.keys, job.id, queue=queue or job.queue)
        names = _named(self.of(job), gate) | {"queue": issued.queue, "tickets": issued.tickets}
        return load("feed").call(names, args, _answer)

    def forget(self, job_id: str, group: str, flow: str) -> Call[int]:
        """Forget a job of the backlog whose record has gone."""
        names = {"backlog": self.keys.backlog(group, flow), "flows": self.keys.flows(group), "groups": self.keys.groups}
        return load("forget").call(names, {"id": job_id, "group": group, "flow": flow}, int)

    def carry(self, job: Job, queue: str) -> Call[Answer]:
        """Carry a job whose ticket waits in a queue that nobody serves over to another one."""
        args = self._ticket(job, Verb.REISSUE) | {"generation": job.generation, "queue_name": queue, "was": job.queue}
        names = _named(job_keys(self.keys, job.id, queue=queue)) | {"was_tickets": self.keys.tickets(job.queue)}
        return load("carry").call(names, args, _answer)

    def reissue(self, job: Job, queue: str, issued_ms: int) -> Call[Answer]:
        """Reissue the ticket that was noted in this queue at that time and got lost; its job still waits there."""
        args = self._ticket(job, Verb.REISSUE) | {
            "generation": job.generation,
            "queue_name": queue,
            "issued": issued_ms,
        }
        return load("reissue").call(_named(job_keys(self.keys, job.id, queue=queue)), args, _answer)

    def rescue(self, job: Job) -> Call[Answer]:
        """Rescue a running job whose lease is over, giving back what it had booked; often killed ones fail."""
        args = self._ticket(job, Verb.RESCUE) | {
            "to_queued": JobState.QUEUED,
            "to_failed": JobState.FAILED,
            "at_model": job.at_model,
            "max_kills": MAX_KILLS,
            "max_lapses": MAX_LAPSES,
            "ttl_ms": self.ttl_ms,
            "poison_reason": "poison_job",
            "poison_message": f"Its worker was lost {MAX_KILLS} times in mid-call, or {MAX_LAPSES} times in all, so it "
            "is not run again. Look at the request before you submit it anew.",
            "broken_reason": STREAM_BROKEN,
            "broken_message": BROKEN_BY_LOSS,
            "unknown": UNKNOWN,
        }
        return load("rescue").call(_named(self.of(job), self.gate(job, None)), args, _answer)

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

    def abandon(self, job: Job, reason: str, message: str) -> Call[Answer]:
        """Cancel a job that its maker does not want to wait in an outage: as cancel, with the reason recorded."""
        return self._close(job, JobState.CANCELLED, reason, message)

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
        args |= self._waits_in(job)
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
