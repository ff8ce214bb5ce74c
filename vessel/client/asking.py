"""Making jobs, and waiting for those that were asked interactively: the verbs behind query, submit and their kin."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from vessel.client.carrier import carried, no_worker, outage_of
from vessel.client.gates import explained
from vessel.client.looking import with_body
from vessel.client.steps import Await, Run, Steps, run
from vessel.control import cancel, retry
from vessel.dispatch.queues import tiers_of
from vessel.errors import JobNotFound, NoWorkers, RedisUnreachable, UnsupportedContent, VesselError, WaitTimeout
from vessel.observe.moments import local
from vessel.watch import succeeded
from vessel.watch.waiting import Why
from vessel.wire import JobState, OnOutage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.client.request import Ask
    from vessel.jobs.model import Job
    from vessel.registry import Availability
    from vessel.submit import Accepted, Door, Prepared

AVAILABILITY_S = 2.0
"""How long a producer believes what it knows about the models served."""

LOOK_S, LONGEST_LOOK_S = 1.5, 60.0
"""A waiting call looks for a worker after this long: an outage is told within two seconds. With nothing to tell it
looks again, ever more rarely."""

_TOLD = frozenset({Why.MAINTENANCE, Why.OUTAGE, Why.BUDGET})

_RAISE = "It goes on when the cap is raised with `vessel budget set`; to give it up: `vessel cancel"

log = logging.getLogger("groq_vessel")


class Replies(Protocol):
    """What verbs need of a waiter; both waiters have it."""

    @property
    def reply(self) -> str:
        """Name the stream that a job's end is written to."""

    def register(self, job_id: str) -> object:
        """Expect a job's end."""

    def forget(self, job_id: str) -> None:
        """Stop expecting it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A job that was accepted, and where its end will be announced."""

    id: str
    tier: str
    model: str
    existing: bool
    marked: bool = False
    """Whether the answer may hold citation marks: it was asked for with built-in tools."""


class Asking:
    """The verbs that make jobs, for one tenant. Keeps nothing but what it last knew about the models served."""

    def __init__(self, door: Door, tenant: str) -> None:
        """Make jobs through this door."""
        self.door = door
        self.tenant = tenant
        self._known: tuple[float, Availability] | None = None

    def seen(self, *, alive: bool) -> Steps[tuple[Availability, dict[str, int]]]:
        """Learn what is served and, where asked, which workers live: one round trip at most."""
        known = self._known
        fresh = known is not None and time.monotonic() - known[0] < AVAILABILITY_S
        calls: list[Any] = ([] if fresh else [self.door.availability()]) + ([self.door.alive()] if alive else [])
        answers: list[Any] = (yield Run(calls)) if calls else []
        workers: dict[str, int] = answers.pop() if alive else {}
        if answers:
            known = self._known = (time.monotonic(), answers[0])
        return known[1], workers  # type: ignore[index]  # known or just learned

    def submit(self, ask: Ask, reply: str, *, waits: bool = False) -> Steps[Asked]:
        """Make a job and do not wait here; `waits`: somebody is going to.

        Raises NoWorkers where somebody waits, or where the job is to fail in an outage.
        """
        prepared = yield from self._prepared(ask, reply, waits=waits)
        accepted = yield from run(self.door.create(prepared))
        return replace(_asked(accepted), marked=bool(prepared.new.builtin_tools))

    def answer(self, ask: Ask, replies: Replies, timeout_s: float | None, *, lasting: bool = False) -> Steps[Job]:
        """Make a job and wait for its result; an interrupt cancels it. Raises NoWorkers before anything is written.

        `lasting`: the job needs no worker yet and outlives an interrupt, as one that was submitted.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        prepared = yield from self._prepared(ask, replies.reply, waits=not lasting)
        job_id = prepared.new.id
        replies.register(job_id)
        try:
            accepted = yield from run(self.door.create(prepared))
            if accepted.id == job_id:
                return succeeded((yield from self._follow(replies, prepared, until, timeout_s)))
        except GeneratorExit:
            raise
        except BaseException as error:
            if not (lasting or isinstance(error, Exception)):
                error.add_note((yield from self._cancel_quietly(job_id)))
            raise
        finally:
            replies.forget(job_id)
        return succeeded((yield from self.end_of(accepted.id, replies, _left(until))))

    def end_of(self, job_id: str, replies: Replies, timeout_s: float | None) -> Steps[Job]:
        """Wait for the end of any job and give it whole. Raises JobNotFound, WaitTimeout."""
        store = self.door.store
        job = yield from run(store.read(job_id))
        if job is None or job.tenant != self.tenant:
            raise JobNotFound
        if job.terminal:
            return job
        if job.reply == replies.reply:
            replies.register(job_id)  # only now: the tail of one that asks for ended or foreign jobs need not start
            try:
                ended = yield from run(store.peek(job_id))
            except BaseException:
                replies.forget(job_id)
                raise
            if ended is None or ended.terminal:
                replies.forget(job_id)
        return (yield from _wait(job_id, timeout_s, timeout_s))

    def retry(self, job_id: str, reply: str) -> Steps[Asked]:
        """Make a new job of an ended one. Raises JobNotFound, WrongState."""
        job = yield from run(self.door.store.read(job_id))
        if job is None or job.tenant != self.tenant:
            raise JobNotFound
        job = yield from with_body(self.door, job)
        availability, _ = yield from self.seen(alive=False)
        prepared = retry(self.door, job, availability=availability, reply=reply)
        return _asked((yield from run(self.door.create(prepared))))

    def prepare(self, ask: Ask, availability: Availability, alive: Mapping[str, int], reply: str) -> Prepared:
        """Check and route one request, and choose who carries it while its tier has no worker."""
        try:
            prepared = self.door.prepare(ask.body, ask.policy, availability=availability, tenant=self.tenant,
                                         reply=reply, streaming=ask.streaming)  # fmt: skip
        except UnsupportedContent:
            if ask.otherwise is None:
                raise
            return self.prepare(ask.otherwise, availability, alive, reply)
        return carried(prepared, alive)

    def _prepared(self, ask: Ask, reply: str, *, waits: bool) -> Steps[Prepared]:
        needs_workers = waits or ask.policy.get("on_outage", OnOutage.QUEUE) != OnOutage.QUEUE
        availability, alive = yield from self.seen(alive=needs_workers)
        prepared = self.prepare(ask, availability, alive, reply)
        if waits and not any(alive.values()):
            raise NoWorkers
        return prepared

    def _follow(
        self, replies: Replies, prepared: Prepared, until: float | None, given: float | None = None
    ) -> Steps[Job]:
        """Wait for an own and registered job, looking after its tier's workers; `given` is what a timeout tells."""
        job_id, fails, told = prepared.new.id, outage_of(prepared) is OnOutage.FAIL, False
        again_s = LOOK_S
        while True:
            left = _left(until)
            slice_s = left if told else again_s if left is None else min(again_s, left)
            try:
                return (yield from _wait(job_id, slice_s, given))
            except WaitTimeout:
                if until is not None and time.monotonic() >= until:
                    raise
            replies.register(job_id)
            job, alive = yield Run([self.door.store.peek(job_id), self.door.alive()])
            if job is None:
                raise JobNotFound
            if job.terminal:
                return (yield from self.end_of(job_id, replies, None))
            told = yield from self._look(job, alive, fails=fails)
            again_s = LOOK_S if fails else min(2 * again_s, LONGEST_LOOK_S)

    def look_after(self, job_id: str) -> Steps[bool]:
        """Look after a job whose answer is read as it comes; tells whether to look again.

        Warns of an outage, or raises NoWorkers where the job is to fail in one.
        """
        job, alive = yield Run([self.door.store.peek(job_id), self.door.alive()])
        if job is None or job.terminal:
            return False
        fails = bool(job.policy.get("on_outage") == OnOutage.FAIL)
        yield from self._look(job, alive, fails=fails)
        return fails

    def _look(self, job: Job, alive: Mapping[str, int], *, fails: bool) -> Steps[bool]:
        """Tell what holds a job for long; returns whether it was told."""
        carrier = tiers_of([job.queue])[0]  # a fallback may go on in the queue it came from
        if job.state is JobState.QUEUED and not alive.get(carrier):
            if fails:
                error = no_worker(carrier, f"Job {job.id} was cancelled, because on_outage is fail.")
                yield Run([self.door.store.abandon(job, error.code, error.message)])
                raise error
            log.warning("No worker serves tier %s; job %s waits in its queue until one does.", carrier, job.id)
            return True
        return False if fails else (yield from self._tell_why(job.id))

    def _tell_why(self, job_id: str) -> Steps[bool]:
        """Tell whoever waits what holds all jobs of the vessel or of a model, and until when."""
        # Whole, as what it may cost follows from its body.
        job: Job | None = yield from run(self.door.store.read(job_id))
        waiting = None if job is None else (yield from explained(self, job))
        told = waiting is not None and waiting.why in _TOLD
        if waiting is not None and told:
            when = f" until {local(waiting.until)} at the earliest" if waiting.until else ""
            out = f" {_RAISE} {job_id}`." if waiting.why is Why.BUDGET else ""
            log.warning("Job %s waits%s: %s.%s", job_id, when, waiting.detail, out)
        return told

    def _cancel_quietly(self, job_id: str) -> Steps[str]:
        """Cancel the job of a call that was interrupted, and say what became of it."""
        try:
            job = yield from run(self.door.store.peek(job_id))
            if job is None:
                return "Nothing was submitted."
            answer = yield from run(cancel(self.door, job))
        except VesselError:
            return f"Job {job_id} may go on, as Redis did not take its cancellation: `vessel cancel {job_id}`."
        if answer.word in {"closed", "flagged"}:
            return f"Job {job_id} was cancelled; `vessel retry {job_id}` runs it again."
        return f"Job {job_id} had ended before; `vessel job {job_id}` shows its answer."


def _asked(accepted: Accepted) -> Asked:
    return Asked(accepted.id, accepted.tier, accepted.model, accepted.existing)


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _wait(job_id: str, timeout_s: float | None, told_s: float | None) -> Steps[Job]:
    try:
        job: Job = yield Await(job_id, timeout_s)
    except WaitTimeout:
        raise WaitTimeout(
            f"Job {job_id} did not end within {told_s or 0:g} s; it goes on. Ask again with `vessel wait {job_id}`.",
            job_id=job_id,
        ) from None
    except RedisUnreachable:
        raise RedisUnreachable(
            f"Redis cannot be reached any more. Job {job_id} was accepted before and goes on once Redis is back; ask "
            f"again with `vessel wait {job_id}`."
        ) from None
    return job
