"""One claimed job as a sentence: plan, admit, call, price, decide, and finish, park or send on."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from vessel.dispatch.queues import queue_for
from vessel.errors import Unreachable
from vessel.execute.persist import persist
from vessel.gate.limiter import GiveBack, buckets_of, charge
from vessel.gate.tokens import max_prompt_tokens
from vessel.jobs.store import NO_ATTEMPT, Answer, Ending, Final
from vessel.keyspace.script import Arg, load, word
from vessel.observe.logs import get_logger
from vessel.registry import resolve
from vessel.routing.fallback import Complete, Decision, Fail, Park, Reroute, Retry, Situation, decide
from vessel.routing.output import affordable_output_tokens, output_tokens
from vessel.upstream.outcome import Charge, Failure, Outcome, Reason, Success
from vessel.upstream.translate import translate
from vessel.usage.prices import worst_case_nano_usd
from vessel.usage.rows import Call, attempt_row, cost_of, counts, ending, unknown_row
from vessel.wire import ChatRequest, JobState, Policy, Priority

if TYPE_CHECKING:
    from vessel.execute.process import Executor
    from vessel.jobs.store import Held
    from vessel.keyspace.script import Call as ScriptCall

BOOK_MS = {Priority.INTERACTIVE: 2000, Priority.NORMAL: 1000, Priority.BATCH: 250}
"""How far ahead a start may be booked; a longer wait parks (architecture, The gate)."""

MAX_PARK_MS = 60_000
"""A quota wait is looked at again at least this often: limits and holds change."""

_CANCELLED = Fail(JobState.CANCELLED, "cancelled", "It was cancelled before anything more was sent.")

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is about to be sent."""

    call: Call
    body: dict[str, object]
    deadline_s: float


class JobRun:
    """One claim of one job."""

    def __init__(self, executor: Executor, held: Held) -> None:
        """Read the policy once; nothing is sent yet."""
        self.executor = executor
        self.held = held
        self.job = held.job
        self.policy = Policy.model_validate(self.job.policy)
        self.hop = self.job.hop
        self.ended = NO_ATTEMPT
        self.sending: asyncio.Future[Outcome] | None = None
        self.cut = False

    async def serve(self) -> str:
        """Carry the job one step: to its end, or to its next queue or wait. Returns the word for the log."""
        refused = self._refuse()
        if refused is not None:
            return await self._follow(refused, None)
        planned = self._plan()
        if isinstance(planned, Failure):
            return await self._follow(self._decide(planned), planned)
        admitted = await self._admit(planned.call)
        if isinstance(admitted, str):
            return admitted
        if isinstance(admitted, (Park, Fail, Reroute)):
            return await self._follow(admitted, None)
        outcome = await self._send(planned)
        self.ended = ending(planned.call, outcome, counted=counts(outcome))
        await self._learn(planned.call, outcome)
        return await self._follow(self._decide(outcome), outcome, planned.call)

    def _refuse(self) -> Fail | None:
        """Say what ends the job before anything more is sent: a cancel, its deadline, or calls cut by dying workers."""
        if self.job.cancel_requested:
            return _CANCELLED
        if self.job.deadline_at is not None and self.executor.now_ms() >= self.job.deadline_at:
            return Fail(JobState.EXPIRED, "deadline", "Its deadline passed while it waited. Give a longer deadline.")
        if self.job.counted_attempts >= self.policy.max_attempts:
            text = f"All {self.policy.max_attempts} attempts are used up. `vessel job {self.job.id}` lists them."
            return Fail(JobState.FAILED, "attempts_exhausted", text)
        return None

    def _plan(self) -> Plan | Failure:
        """Choose model, output bound and body for this hop, or say why nothing can be sent."""
        hop = self.job.hops[self.hop]
        model_id = resolve(self.executor.registry, hop.model, self.executor.availability)
        if model_id is None:
            return Failure(hop.model, Reason.MODEL_GONE, f"{hop.model} is not served any more and has no successor.")
        model = self.executor.registry.model(model_id)
        request = ChatRequest.model_validate(self.job.request())
        limits = model.limits.get(self.executor.settings.groq_plan)
        wanted = output_tokens(request, model, limits, self.job.estimated_tokens)
        most_prompt = max_prompt_tokens(len(self.job.body))
        cap, spent = self.policy.max_cost_usd, self.job.spent_nano_usd
        output = affordable_output_tokens(
            request, model, wanted, most_prompt_tokens=most_prompt, cap_usd=cap, spent_nano=spent
        )
        if output is None:
            text = f"Another call on {model_id} could pass max_cost_usd={cap}; it was not made."
            return Failure(model_id, Reason.TOO_LARGE, text, detail="max_cost_usd")
        body, notes = translate(
            self.job.request(),
            model_id=model_id,
            features=frozenset(str(f) for f in model.features),
            reasoning_efforts=model.reasoning_efforts,
            builtin_tools=self.job.builtin_tools,
            max_completion_tokens=output,
        )
        for note in notes:
            log.info("job.translated", job_id=self.job.id, model=model_id, note=note)
        buckets = buckets_of(self.executor.keys, self.executor.settings.org, model_id, limits) if limits else ()
        priced_prompt = most_prompt if cap is not None else self.job.estimated_tokens
        call = Call(
            job=self.job,
            number=len(self.job.attempts) + 1,
            model=model,
            tier=hop.tier,
            worker=self.executor.worker,
            prompt_tokens=self.job.estimated_tokens,
            output_tokens=output,
            worst_nano_usd=worst_case_nano_usd(model, priced_prompt, output),
            charges=charge(buckets, self.job.estimated_tokens, output),
        )
        return Plan(call, body, self._deadline_s())

    def _deadline_s(self) -> float:
        limit = float(self.executor.settings.call_timeout)
        if self.job.deadline_at is None:
            return limit
        left = (self.job.deadline_at - self.executor.now_ms()) / 1000
        return max(0.001, min(limit, left))

    async def _admit(self, call: Call) -> Park | Fail | Reroute | str | None:
        """Book and start in one step; sleep to a booked start. None: go; text: it is not ours any more."""
        if self.executor.draining:
            return await self._release(())
        answer = await self._start(call)
        booking = tuple(GiveBack(c.bucket, c.cost) for c in call.charges)
        while answer.word == "booked":
            self.ended = Ending(0, "", "", give_back=booking)
            if await self.executor.sleep_unless_draining(float(answer.detail) / 1000):
                return await self._release(booking)
            answer = await self._start(call)
            self.ended = NO_ATTEMPT if answer.word == "started" else self.ended
        return self._admitted(call, answer)

    def _admitted(self, call: Call, answer: Answer) -> Park | Fail | Reroute | str | None:
        """Read the gate's answer. None: go; text: the job is not ours any more."""
        match answer.word:
            case "started" | "superseded":
                return None if answer.word == "started" else answer.word
            case "cancel_requested":
                return _CANCELLED
            case "wait":
                if not answer.limit:
                    self.executor.note_blocked(call.model.id, float(answer.detail))
                return self._wait(float(answer.detail), answer.limit or "retry-after")
            case "too_large":
                sizes = f"{call.prompt_tokens} prompt + {call.output_tokens} output tokens"
                text = f"{call.model.id} allows fewer {answer.limit.upper()} than this request needs ({sizes})."
                return self._refused(Failure(call.model.id, Reason.TOO_LARGE, text, limit_name=answer.limit))
            case _:
                raise RuntimeError(f"start.lua answered {answer.word}")

    async def _start(self, call: Call) -> Answer:
        gate = self.executor.keys.gate(self.executor.settings.org, call.model.id)
        started = self.executor.store.start(
            self.held, call.number, attempt_row(call), unknown_row(call), gate,
            charges=call.charges, book_ms=BOOK_MS[self.job.priority],
        )  # fmt: skip
        return await persist(self.executor.runner, started)

    def _wait(self, wait_ms: float, which: str) -> Park | Reroute | Fail:
        """Answer a refusal of the gate: wait for the quota, or step down when the next model need not wait so long."""
        failure = Failure(
            self.job.hops[self.hop].model,
            Reason.RATE_LIMITED,
            f"The organisation's quota ({which}) is used up for now.",
            retry_after_s=wait_ms / 1000,
            limit_name=which,
        )
        return self._refused(failure)

    def _refused(self, failure: Failure) -> Park | Reroute | Fail:
        """Decide on a refusal of the gate; nothing was sent, so a retry is only another wait."""
        decision = self._decide(failure)
        match decision:
            case Park() | Retry():
                hop = decision.hop if isinstance(decision, Park) else self.hop
                return Park(min(MAX_PARK_MS, decision.delay_ms), decision.reason, hop)
            case Reroute() | Fail():
                return decision
            case Complete():
                raise RuntimeError("a refusal cannot complete a job")
            case _ as never:
                assert_never(never)

    async def _send(self, plan: Plan) -> Outcome:
        """Call the upstream; a cancel of the job or a second TERM cuts the call and leaves it unknown."""
        attempt = f"{self.job.id}/{plan.call.number}"
        task = asyncio.ensure_future(
            self.executor.upstream.call(plan.call.model.id, plan.body, deadline_s=plan.deadline_s, attempt=attempt)
        )
        self.sending = task
        try:
            return await task
        except asyncio.CancelledError:
            if not self.cut:
                raise
            text = "The job was cancelled while the call ran; the call was cut and may be billed."
            return Failure(plan.call.model.id, Reason.CANCELLED, text, charge=Charge.UNKNOWN)
        finally:
            self.sending = None

    def cancel(self) -> None:
        """Cut the call in flight because the job was cancelled."""
        if self.sending is not None and not self.cut:
            self.cut = True
            self.sending.cancel()

    async def _learn(self, call: Call, outcome: Outcome) -> None:
        """Tell all workers at once what this answer says about the model, as far as Redis is there."""
        if isinstance(outcome, Failure):
            with suppress(Unreachable):
                await self._tell(call, outcome)

    async def _tell(self, call: Call, outcome: Failure) -> None:
        if outcome.reason is Reason.MODEL_GONE:
            await self.executor.mark_gone(call.model.id)
        elif outcome.reason is Reason.RATE_LIMITED and outcome.retry_after_s:
            self.executor.note_blocked(call.model.id, outcome.retry_after_s * 1000)
            gate = self.executor.keys.gate(self.executor.settings.org, call.model.id)
            args: dict[str, Arg] = {
                "wait_ms": int(outcome.retry_after_s * 1000),
                "reason": outcome.limit_name or "rate_limited",
            }
            await self.executor.runner.run(load("block").call({"gate": gate}, args, word))

    def _too_small(self) -> frozenset[str]:
        """Name the models that have already said that this request is too large for them."""
        sizes = {Reason.TOO_LARGE, Reason.CONTEXT_LENGTH}
        return frozenset(attempt.model for attempt in self.job.attempts if attempt.reason in sizes)

    def _decide(self, outcome: Outcome) -> Decision:
        number = len(self.job.attempts)
        counted = self.job.counted_attempts
        here = sum(1 for a in self.job.attempts if a.counted and a.tier == self.job.hops[self.hop].tier)
        if self.ended.number:
            number, counted, here = number + 1, counted + counts(outcome), here + counts(outcome)
        return decide(
            Situation(
                hops=self.job.hops,
                hop=self.hop,
                policy=self.policy,
                counted_attempts=counted,
                uncounted_attempts=number - counted,
                attempts_on_this_hop=here,
                now_ms=self.executor.now_ms(),
                deadline_at=self.job.deadline_at,
                jitter=random.random(),  # noqa: S311  jitter, not a secret
                unavailable=self.executor.unavailable(self.job.hops) | self._too_small(),
                wait_ms=self.executor.wait_ms(self.job.hops),
                created_at=self.job.created_at,
            ),
            outcome,
        )

    async def _follow(self, decision: Decision, outcome: Outcome | None, call: Call | None = None) -> str:
        """Carry out a decision in one script."""
        match decision:
            case Complete():
                if not isinstance(outcome, Success) or call is None:
                    raise RuntimeError("only a success completes a job")
                return await self._finish(self._result(outcome, call))
            case Retry() | Park():
                hop = decision.hop if isinstance(decision, Park) else self.hop
                return await self._send_on(self.executor.store.park(
                    self.held, self.ended, hop, delay_ms=decision.delay_ms, reason=decision.reason,
                    message=self._text(outcome),
                ), JobState.PARKED)  # fmt: skip
            case Reroute():
                return await self._reroute(decision, self._text(outcome))
            case Fail():
                fields: dict[str, str | bytes] = {"reason": decision.reason, "message": decision.message}
                return await self._finish(Final(decision.state, fields))
            case _ as never:
                assert_never(never)

    async def _reroute(self, decision: Reroute, message: str) -> str:
        """Go on with the chain in the next tier's queue, or in this one when nobody serves that tier."""
        tier = self.job.hops[decision.hop].tier
        queue = queue_for(tier, self.job.priority) if self.executor.alive.get(tier) else self.job.queue
        log.info("job.rerouted", job_id=self.job.id, tier=tier, model=self.job.hops[decision.hop].model,
                 reason=decision.reason)  # fmt: skip
        return await self._send_on(self.executor.store.requeue(
            self.held, self.ended, decision.hop, queue, reason=decision.reason, message=message
        ), JobState.QUEUED)  # fmt: skip

    def _text(self, outcome: Outcome | None) -> str:
        return outcome.message if isinstance(outcome, Failure) else ""

    def _result(self, success: Success, call: Call) -> Final:
        cost = cost_of(call, success)
        usage = {
            "prompt_tokens": success.usage.prompt_tokens,
            "completion_tokens": success.usage.completion_tokens,
            "total_tokens": success.usage.total_tokens,
            "cached_tokens": success.usage.cached_tokens,
            "reasoning_tokens": success.usage.reasoning_tokens,
        }
        fields: dict[str, str | bytes] = {
            "response": success.body,
            "usage": json.dumps(usage, separators=(",", ":")),
            "cost": format(cost, "f"),
            "served_model": call.model.id,
            "served_tier": call.tier,
            "reason": "",
            "message": "",
        }
        return Final(JobState.SUCCEEDED, fields, valid=True)

    async def _finish(self, final: Final) -> str:
        call = self.executor.store.finish(self.held, self.ended, final)
        answer = await self._deliver(call)
        return answer.detail or answer.word

    async def _send_on(self, call: ScriptCall[Answer], done: JobState) -> str:
        answer = await self._deliver(call)
        return done if answer.word == "done" else answer.word

    async def _deliver(self, call: ScriptCall[Answer]) -> Answer:
        """Run a step that carries an attempt's ending; one that Redis does not take is spooled."""
        try:
            return await persist(self.executor.runner, call)
        except Unreachable:
            self.executor.spool.keep(call, f"{self.job.id}-{self.held.generation}-{self.ended.number}")
            log.error("job.spooled", job_id=self.job.id)  # noqa: TRY400  a traceback could hold the answer
            return Answer("spooled")

    async def _release(self, booking: tuple[GiveBack, ...]) -> str:
        await persist(self.executor.runner, self.executor.store.release(self.held, booking))
        return "released"
