"""One claimed job as a sentence: plan, admit, call, price, decide, and finish, park or send on."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from typing import TYPE_CHECKING, assert_never

from vessel.dispatch.queues import queue_for
from vessel.errors import Unreachable
from vessel.execute.admit import CANCELLED, DRAINING, Admission
from vessel.execute.failover import way_out
from vessel.execute.persist import persist, reason_of
from vessel.execute.plan import Plan, plan
from vessel.execute.streaming import UNREAD, Readers, left_unread
from vessel.execute.tracing import calling, ended
from vessel.gate.learn import Started, learn
from vessel.gate.limiter import PERIOD_MS
from vessel.jobs.steps import NO_ATTEMPT, Answer, Final, Wait
from vessel.observe.logs import get_logger
from vessel.registry import Vessel, vessel_of
from vessel.routing.fallback import Complete, Decision, Fail, Park, Reroute, Retry, Situation, decide, unfit
from vessel.upstream.outcome import Charge, Failure, Outcome, Reason, Success
from vessel.usage.rows import Call, bill_of, counts, ending, usage_of
from vessel.wire import JobState, Policy

if TYPE_CHECKING:
    from vessel.execute.process import Executor
    from vessel.jobs.steps import Held
    from vessel.keyspace.script import Call as ScriptCall

_CANCELLED = Fail(JobState.CANCELLED, "cancelled", "It was cancelled before anything more was sent.")

log = get_logger(__name__)


def _unfit(outcome: Outcome | None) -> bool:
    return isinstance(outcome, Failure) and unfit(outcome)


class JobRun:
    """One claim of one job."""

    def __init__(self, executor: Executor, held: Held) -> None:
        """Read the policy once; nothing is sent yet."""
        self.executor = executor
        self.held = held
        self.job = held.job
        self.policy = Policy.model_validate(self.job.policy)
        self.hop = self.job.hop
        self.model = self.job.model
        """The model that was or is asked, once that is decided; shown in logs and in Flower."""
        self.ended = NO_ATTEMPT
        self.sending: asyncio.Future[Outcome] | None = None
        self.cut = ""
        self.streamed = False

    async def serve(self) -> str:
        """Carry the job one step: to its end, or to its next queue or wait. Returns the word for the log."""
        refused = self._refuse()
        if refused is not None:
            return await self._follow(refused, None)
        planned = plan(self.executor, self.job, self.policy, self.hop)
        if isinstance(planned, Failure):
            return await self._follow(self._decide(planned), planned)
        self.model = planned.call.model.id
        admission = Admission(self.executor, self.held, planned.call)
        refusal = await admission.pass_gate()
        self.ended = admission.ending
        if refusal is not None:
            return await self._turn_back(refusal, planned.call)
        outcome = await self._send(planned, probes=admission.probes)
        self.executor.measured.attempt(planned.call, outcome, self.executor.now_ms())
        outage = await self._learn(planned.call, outcome, admission.started)
        self.executor.history.note(planned.kind, planned.call, outcome)
        counted = counts(outcome) and not ((outage or self._extra(planned.call)) and isinstance(outcome, Failure))
        self.ended = ending(planned.call, outcome, counted=counted)
        decision = self._decide(outcome, counted=counted, outage=outage)
        return await self._follow(decision, outcome, planned.call, at_gate=self._gate_knows(outcome, planned.call))

    def _gate_knows(self, outcome: Outcome, call: Call) -> bool:
        """Tell whether the gate has learned the limit that refused a call: it knows best when to go on."""
        if not isinstance(outcome, Failure) or outcome.reason is not Reason.RATE_LIMITED:
            return False
        return outcome.limit_name in PERIOD_MS and self._feeder_sees(outcome, call)

    def _feeder_sees(self, refusal: Failure, call: Call) -> bool:
        """Tell whether the feeder looks at what refused a call. A job that a gate of flex refuses waits by time."""
        of_the_gate = refusal.reason is Reason.RATE_LIMITED or refusal.detail == "model"
        return call.charge.model == call.model.id or not of_the_gate

    def _extra(self, call: Call) -> bool:
        """Tell whether a call is one of the failover vessel's in a job that has a chain: it uses up no attempt."""
        return call.model.vessel is Vessel.OPENAI and any(vessel_of(h.model) is Vessel.GROQ for h in self.job.hops)

    async def _turn_back(self, refusal: Failure | str, call: Call) -> str:
        """Follow what the gate said instead of going: nothing was sent, so a retry is only another wait."""
        if isinstance(refusal, Failure):
            self.executor.measured.refused(call, refusal)
            return await self._follow(self._decide(refusal), refusal, at_gate=self._feeder_sees(refusal, call))
        if refusal == CANCELLED:
            return await self._follow(_CANCELLED, None)
        if refusal == DRAINING:
            return await self._release()
        return refusal

    def _refuse(self) -> Fail | None:
        """Say what ends the job before anything more is sent: a cancel, its deadline, or calls cut by dying workers."""
        if self.job.cancel_requested:
            return _CANCELLED
        if left_unread(self.executor, self.job):
            return Fail(JobState.CANCELLED, "cancelled", f"{UNREAD}, so it was cancelled before it was sent.")
        if self.job.source and not self.job.body:
            text = "Its batch's input file is gone, so nothing was sent. Submit it again."
            return Fail(JobState.FAILED, "input_gone", text)
        if self.job.deadline_at is not None and self.executor.now_ms() >= self.job.deadline_at:
            return Fail(JobState.EXPIRED, "deadline", "Its deadline passed while it waited. Give a longer deadline.")
        elsewhere = vessel_of(self.job.current.model) is Vessel.OPENAI and self.hop > 0  # it costs no attempt
        if self.job.counted_attempts >= self.policy.max_attempts and not elsewhere:
            text = f"All {self.policy.max_attempts} attempts are used up. `vessel job {self.job.id}` lists them."
            return Fail(JobState.FAILED, "attempts_exhausted", text)
        return None

    async def _send(self, planned: Plan, *, probes: bool) -> Outcome:
        """Call the upstream; a cancel of the job or a second TERM cuts the call and leaves it unknown."""
        number = planned.call.number
        async with Readers(self.executor, self.held, number, self.cancel) as readers:
            task = asyncio.ensure_future(self._call(readers, planned, f"{self.job.id}/{number}", probes=probes))
            self.sending = task
            try:
                outcome = await task
            except asyncio.CancelledError:
                if not self.cut:
                    raise
                text = f"{self.cut} while the call ran; the call was cut and may be billed."
                outcome = Failure(planned.call.model.id, Reason.CANCELLED, text, charge=Charge.UNKNOWN)
            finally:
                self.sending = None
        self.streamed = readers.served
        return outcome

    async def _call(self, readers: Readers, planned: Plan, attempt: str, *, probes: bool) -> Outcome:
        with calling(self.executor, planned) as span:
            outcome = await readers.call(planned, attempt, probes=probes)
            ended(span, outcome)
            return outcome

    def cancel(self, why: str = "The job was cancelled") -> None:
        """Cut the call in flight, because the job was cancelled or nobody would get the answer."""
        if self.sending is not None and not self.cut:
            self.cut = why
            self.sending.cancel()

    async def _learn(self, call: Call, outcome: Outcome, started: Started) -> bool:
        """Tell all workers at once what this answer says about the model; true when its breaker is open now.

        Of a success nobody waits for that: the step that ends the job goes along in the same round trip.
        """
        plans = call.model.limits if call.charge.model == call.model.id else {}
        told = learn(self.executor.store.gate(self.job, call.charge), call.charge, outcome, started, plans,
                     call_id=f"{self.job.id}/{call.number}")  # fmt: skip
        if isinstance(outcome, Success):
            self.executor.tell(told)
            return False
        state = ""
        with suppress(Unreachable):
            if outcome.reason is Reason.MODEL_GONE and call.model.vessel is Vessel.GROQ:
                await self.executor.mark_gone(call.model.id)
            elif outcome.reason is Reason.RATE_LIMITED and outcome.retry_after_s:
                self.executor.note_blocked(call.model.id, outcome.retry_after_s * 1000)
            state = await self.executor.runner.run(told)
            if state == "open":
                self.executor.note_outage(call.model.id, str(outcome.reason))
        return state == "open"

    def _decide(self, outcome: Outcome, *, counted: bool = False, outage: bool = False) -> Decision:
        if isinstance(outcome, Success):
            return Complete()
        number = len(self.job.attempts)
        before = self.job.counted_attempts
        here = sum(1 for a in self.job.attempts if a.counted and a.tier == self.job.hops[self.hop].tier)
        if self.ended.number:
            number, before, here = number + 1, before + counted, here + counted
        way = way_out(self.executor, self.job, self.policy)
        return decide(
            Situation(
                hops=self.job.hops,
                hop=self.hop,
                policy=self.policy,
                counted_attempts=before,
                uncounted_attempts=number - before,
                attempts_on_this_hop=here,
                now_ms=self.executor.now_ms(),
                deadline_at=self.job.deadline_at,
                jitter=random.random(),  # noqa: S311  jitter, not a secret
                unavailable=self.executor.unavailable(self.job.hops),
                unfit=self.job.unfit,
                outage=outage,
                wait_ms=self.executor.wait_ms(self.job.hops),
                created_at=self.job.waits_since,
                tried=frozenset(attempt.model for attempt in self.job.attempts),
                failover=way.hop,
                failover_note=way.note,
                failover_in_ms=way.in_ms,
                streamed=self.streamed,
            ),
            outcome,
        )

    async def _follow(
        self, decision: Decision, outcome: Outcome | None, call: Call | None = None, *, at_gate: bool = False
    ) -> str:
        """Carry out a decision in one script; what the gate refused waits in the backlog until the gate has room."""
        match decision:
            case Complete():
                if not isinstance(outcome, Success) or call is None:
                    raise RuntimeError("only a success completes a job")
                return await self._finish(self._result(outcome, call))
            case Retry() | Park():
                hop = decision.hop if isinstance(decision, Park) else self.hop
                note, timed = (decision.note, decision.timed) if isinstance(decision, Park) else ("", False)
                told = f"{self._text(outcome)} {note}".strip()
                wait = Wait(decision.delay_ms, decision.reason, told, at_gate and not timed, self._look_ms(),
                            unfit=_unfit(outcome))  # fmt: skip
                return await self._send_on(self.executor.store.park(self.held, self.ended, hop, wait), JobState.PARKED)
            case Reroute():
                return await self._reroute(decision, outcome)
            case Fail():
                fields: dict[str, str | bytes] = {"reason": decision.reason, "message": decision.message}
                return await self._finish(Final(decision.state, fields))
            case _ as never:
                assert_never(never)

    async def _reroute(self, decision: Reroute, outcome: Outcome | None) -> str:
        """Go on with the chain in the next tier's queue, or in this one when nobody serves that tier."""
        tier = self.job.hops[decision.hop].tier
        queue = queue_for(tier, self.job.priority) if self.executor.alive.get(tier) else self.job.queue
        log.info("job.rerouted", job_id=self.job.id, tier=tier, model=self.job.hops[decision.hop].model,
                 reason=decision.reason)  # fmt: skip
        return await self._send_on(self.executor.store.requeue(
            self.held, self.ended, decision.hop, queue, reason=decision.reason, message=self._text(outcome),
            unfit=_unfit(outcome),
        ), JobState.QUEUED)  # fmt: skip

    def _look_ms(self) -> int:
        """Say in how long the job's max_wait is over, when it is to be decided anew."""
        if self.policy.max_wait is None:
            return 0
        return max(1, int(self.job.waits_since + self.policy.max_wait * 1000 - self.executor.now_ms()))

    def _text(self, outcome: Outcome | None) -> str:
        return outcome.message if isinstance(outcome, Failure) else ""

    def _result(self, success: Success, call: Call) -> Final:
        billed = bill_of(call, success)
        fields: dict[str, str | bytes] = {
            "response": success.body,
            "usage": json.dumps(usage_of(success, billed), separators=(",", ":")),
            "cost": format(billed.usd, "f"),
            "served_model": call.model.served_id,
            "served_tier": call.tier,
            "served_vessel": str(call.model.vessel),
            "reason": "",
            "message": "",
        }
        return Final(JobState.SUCCEEDED, fields, valid=True)

    async def _finish(self, final: Final) -> str:
        call = self.executor.store.finish(self.held, self.ended, final)
        answer = await self._deliver(call)
        return answer.detail if answer.word == "finished" else answer.word

    async def _send_on(self, call: ScriptCall[Answer], done: JobState) -> str:
        answer = await self._deliver(call)
        return done if answer.word == "done" else answer.word

    async def _deliver(self, call: ScriptCall[Answer]) -> Answer:
        """Run a step that carries an attempt's ending; one that Redis does not take is spooled.

        Where the disk does not take it either, it is offered to both in turn for as long as the process lives.
        """
        while True:
            try:
                return await persist(self.executor.runner, call)
            except Unreachable:
                if await self._keep(call):
                    return Answer("spooled")

    async def _keep(self, call: ScriptCall[Answer]) -> bool:
        """Write a step to disk, away from the loop; tell why where that fails, since the call has been paid for."""
        # The owner as well: after Redis lost its newest writes, two claims may have the same generation and number.
        name = f"{self.job.id}-{self.held.generation}-{self.ended.number}-{self.held.owner}"
        try:
            await asyncio.to_thread(self.executor.spool.keep, call, name)
        except OSError as error:
            then = "it is offered to Redis and the disk again, and lost only if this process ends before one takes it"
            log.error("job.not_spooled", job_id=self.job.id, reason=reason_of(error), then=then)  # noqa: TRY400  no texts
            return False
        log.error("job.spooled", job_id=self.job.id)
        return True

    async def _release(self) -> str:
        await persist(self.executor.runner, self.executor.store.release(self.held, self.ended))
        return "released"
