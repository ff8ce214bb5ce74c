"""Passing the gate: book and start in one step, sleep to a booked start, and read a refusal as a failure."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from vessel.execute.persist import persist
from vessel.gate.learn import Started
from vessel.jobs.steps import NO_ATTEMPT, Answer, Ending, Start
from vessel.registry import Vessel
from vessel.upstream.outcome import NEVER, Failure, Reason
from vessel.usage.rows import Call, attempt_row, unknown_row
from vessel.wire import Priority

if TYPE_CHECKING:
    from vessel.execute.process import Executor
    from vessel.jobs.steps import Held

BOOK_MS = {Priority.INTERACTIVE: 2000, Priority.NORMAL: 1000, Priority.BATCH: 250}
"""How far ahead a start may be booked; a longer wait parks (architecture, The gate)."""

CANCELLED, DRAINING, SUPERSEDED = "cancel_requested", "draining", "superseded"


class Admission:
    """One call at the gate. After `pass_gate`, `ending` says what a step that ends the claim has to give back."""

    def __init__(self, executor: Executor, held: Held, call: Call) -> None:
        """Ask nothing yet."""
        self.executor, self.held, self.call = executor, held, call
        self.ending = NO_ATTEMPT
        self.started = Started()
        self.probes = False
        """Whether this call is the one that looks if what was held back works again."""

    async def pass_gate(self) -> Failure | str | None:
        """Start the call. None: go; a failure: the gate refused; text: cancelled, draining or not ours any more."""
        if self.executor.draining:
            return DRAINING
        answer = await self._ask()
        while answer.word == "booked":
            self.ending = Ending(0, "", "", charge=self.call.charge)
            if await self.executor.sleep_until_woken(self.held.job.id, float(answer.detail) / 1000):
                return DRAINING
            answer = await self._ask()
        if answer.word == "started":
            self.ending = NO_ATTEMPT
            self.started = Started(answer.limit, answer.why)
            self.probes = answer.detail == "probe"
            return None
        if answer.word in {SUPERSEDED, CANCELLED}:
            return answer.word
        return self._refusal(answer)

    async def _ask(self) -> Answer:
        call, executor = self.call, self.executor
        start = Start(
            attempt=call.number,
            row=attempt_row(call),
            unknown_row=unknown_row(call),
            tier=call.tier,
            charge=call.charge,
            book_ms=BOOK_MS[self.held.job.priority],
            call_ms=round(executor.settings.call_timeout * 1000) + 5000,
            channel=executor.channel,
        )
        return await persist(executor.runner, executor.store.start(self.held, start))

    def _refusal(self, answer: Answer) -> Failure:
        model = self.call.model.id
        elsewhere = self.call.model.vessel is Vessel.OPENAI
        match answer.word:
            case "wait":
                self.executor.note_blocked(model, float(answer.detail))
                text = f"{_WAITS.get(answer.limit, f'The quota of {model} ({answer.limit}) is used up for now.')}"
                return Failure(model, Reason.RATE_LIMITED, text.format(model=model),
                               retry_after_s=float(answer.detail) / 1000, limit_name=answer.limit)  # fmt: skip
            case "held":
                reason = _HELD[answer.limit]
                if reason is Reason.BREAKER_OPEN:
                    self.executor.note_blocked(model, float(answer.detail))
                kind = "failover" if elsewhere and answer.limit == "provider" else answer.limit
                kind = "batch" if kind == "budget" and answer.why == "batch" else kind
                text = _TEXTS[kind].format(model=model, why=self._why(kind, answer.why))
                return Failure(model, reason, text, retry_after_s=float(answer.detail) / 1000, detail=answer.limit)
            case "too_large":
                sizes = f"{self.call.prompt_tokens} prompt + {self.call.output_tokens} output tokens"
                limit, name = answer.limit, answer.detail
                text = f"{model} allows {limit} {name.upper()}, fewer than this request needs ({sizes}). Shorten the "
                text += "prompt or lower max_completion_tokens."
                return Failure(model, Reason.TOO_LARGE, text, limit_name=name)
            case "too_dear":
                return Failure(model, Reason.OVER_BUDGET, self._too_dear(answer), detail=NEVER)
            case _:
                raise RuntimeError(f"start.lua answered {answer.word}")

    def _why(self, kind: str, why: str) -> str:
        return "that of {} for the {}".format(*self._cap(why)) if kind == "budget" else why or "no reason was given"

    def _cap(self, told: str) -> tuple[str, str]:
        """Name whose cap a script speaks of, and for which span: it says `whole day` or `tenant month`."""
        whose, _, span = told.partition(" ")
        return ("everybody" if whose == "whole" else f"tenant {self.held.job.tenant}"), span

    def _too_dear(self, answer: Answer) -> str:
        """Say which cap has no room for the call, now and later, and what to do."""
        worst, cap = (
            f"{Decimal(nano).scaleb(-9).normalize():f}" for nano in (self.call.charge.nano_usd, int(answer.limit))
        )
        told = f"A call on {self.call.model.id} may cost up to {worst} USD, and it was not made:"
        if answer.detail == "batch":
            rest = f"its batch may cost {cap} USD (max_cost_usd), and too little of that is left. Submit these lines"
            return f"{told} {rest} as a batch of their own, or with a lower max_completion_tokens."
        of, span = self._cap(answer.detail)
        rest = f"the spend cap of {of} is {cap} USD a {span}, so waiting would not help."
        return f"{told} {rest} Raise it with `vessel budget set`, or lower max_completion_tokens."


_HELD = {
    "maintenance": Reason.MAINTENANCE,
    "provider": Reason.BREAKER_OPEN,
    "model": Reason.BREAKER_OPEN,
    "budget": Reason.OVER_BUDGET,
}
_TEXTS = {
    "failover": "The failover endpoint cannot be used now ({why}), so calls to it are held back.",
    "maintenance": "Vessel is in maintenance ({why}), so nothing was sent.",
    "provider": "Groq cannot be used now ({why}), so calls are held back; it is looked at every few seconds.",
    "model": "{model} failed too often lately ({why}), so calls to it are held back; one every few seconds looks.",
    "budget": "A spend cap is used up for now ({why}), so nothing was sent. `vessel budget show` "
    "tells when it begins anew.",
    "batch": "Calls of its batch that are under way have reserved what is left of max_cost_usd, so the job is held "
    "until one of them ends.",
}
_WAITS = {
    "retry-after": "Groq asked to wait before {model} is called again.",
    "concurrency": "As many calls to {model} are under way as are allowed at once.",
    "ramp": "{model} has just recovered and is used a little more each second.",
}
