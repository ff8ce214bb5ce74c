"""The rows a call leaves behind: its write-ahead attempt row, its ending, and its ledger entry in the seed's format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, assert_never

from vessel.gate.limiter import NOTHING, GiveBack, refund, settle
from vessel.jobs.steps import FAILED, UNKNOWN, Ending
from vessel.upstream.outcome import UNCOUNTED, Charge, Failure, Outcome, Reason, Success, Usage
from vessel.usage.prices import Bill, bill, cost_usd, nano

if TYPE_CHECKING:
    from vessel.gate.limiter import Charge as GateCharge
    from vessel.jobs.model import Job
    from vessel.registry import Model, Registry

SUCCEEDED = "succeeded"
NANO = Decimal(10) ** 9
_COST, _FEES = "@COST@", "@FEES@"


@dataclass(frozen=True, slots=True)
class Call:
    """One call about to be made: which attempt of which job on which model, and what it may cost at most."""

    job: Job
    number: int
    model: Model
    tier: str
    worker: str
    prompt_tokens: int
    output_tokens: int
    worst_nano_usd: int
    charge: GateCharge
    notes: tuple[str, ...] = ()
    """What of the request was put otherwise for this model."""
    registry: Registry | None = None
    """Prices of built-in tools and of the models behind a system; without it an answer costs its tokens."""


def _dump(row: dict[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":"), ensure_ascii=False)


def attempt_row(call: Call) -> str:
    """Write the write-ahead row of an attempt."""
    row: dict[str, Any] = {"model": call.model.id, "tier": call.tier, "worker": call.worker}
    row["worst_nano_usd"] = call.worst_nano_usd
    return _dump(row | ({"notes": call.notes} if call.notes else {}))


def ledger_row(
    call: Call,
    usage: Usage,
    cost: Decimal,
    request_id: str | None,
    *,
    estimated: bool,
    more: dict[str, Any] | None = None,
) -> str:
    """Write a ledger entry as the seed's usage log has it, with ids and `more` added; the cost is an exact JSON number.

    Time, entry id and outcome are added by whoever reads the ledger: Redis gives them.
    """
    row: dict[str, Any] = {
        "model": call.model.served_id,
        "tokens": {"input": usage.prompt_tokens, "output": usage.completion_tokens, "cached": usage.cached_tokens},
        "cost_usd": _COST,
        "vessel": str(call.model.vessel),
        "job_id": call.job.id,
        "attempt": call.number,
        "request_id": request_id,
        "tier": call.tier,
        "tenant": call.job.tenant,
    }
    if estimated:
        row["estimated"] = True
    row |= more or {}
    tags = call.job.policy.get("tags")
    if tags:
        row["tags"] = tags
    return _dump(row).replace(f'"{_COST}"', format(cost, "f"), 1)  # before tags, which may hold any text


def unknown_row(call: Call) -> str:
    """Write the entry of a call whose answer is never seen: booked at its worst case, marked as estimated."""
    usage = Usage(call.prompt_tokens, call.output_tokens)
    return ledger_row(call, usage, Decimal(call.worst_nano_usd) / NANO, None, estimated=True)


def bill_of(call: Call, success: Success) -> Bill:
    """Price an answer: its tokens, and the fees of built-in tools where they are known."""
    if call.registry is None:
        return Bill(cost_usd(call.model, success.usage), estimated=call.model.price_estimated)
    return bill(call.registry, call.model, success)


def usage_of(success: Success, billed: Bill) -> dict[str, Any]:
    """Return an answer's usage as its job keeps it: tokens, and what is known of its tools and of its price."""
    tokens = success.usage
    found: dict[str, Any] = {
        "prompt_tokens": tokens.prompt_tokens,
        "completion_tokens": tokens.completion_tokens,
        "total_tokens": tokens.total_tokens,
        "cached_tokens": tokens.cached_tokens,
        "reasoning_tokens": tokens.reasoning_tokens,
    }
    if success.tools:
        found |= {"tools": dict(success.tools), "tool_cost_usd": format(billed.tools_usd, "f")}
    return found | ({"cost_estimated": True} if billed.estimated else {})


def ending(call: Call, outcome: Outcome, *, counted: bool) -> Ending:
    """Price an outcome: the attempt's ending, its ledger entry if it was charged, and what goes back to the gate."""
    match outcome:
        case Success():
            billed = bill_of(call, outcome)
            more = _more(outcome)
            booked = ledger_row(
                call, outcome.usage, billed.usd, outcome.request_id, estimated=billed.estimated, more=more
            )
            if outcome.tools:
                booked = booked.replace(f'"{_FEES}"', format(billed.tools_usd, "f"), 1)
            cost_nano = nano(billed.usd)
            row = _ending_row(outcome, "", 200, counted=True, cost_nano=cost_nano)
            back = settle(call.charge, outcome.usage, cost_nano)
            return Ending(call.number, SUCCEEDED, row, booked, call.charge, back)
        case Failure():
            return _failed(call, outcome, counted=counted)
        case _ as never:
            assert_never(never)


def _more(success: Success) -> dict[str, Any]:
    """Say in the ledger which tools ran, what of the cost they are, and which models were behind a system."""
    more: dict[str, Any] = {}
    if success.tools:
        more |= {"tools": dict(success.tools), "tool_cost_usd": _FEES}
    if success.parts:
        more["models"] = [
            {"model": name, "tokens": {"input": usage.prompt_tokens, "output": usage.completion_tokens}}
            for name, usage in success.parts
        ]
    return more


def _failed(call: Call, failure: Failure, *, counted: bool) -> Ending:
    label, booked, cost_nano = str(failure.reason), "", 0
    if failure.charge is Charge.UNKNOWN:
        label, booked, cost_nano = UNKNOWN, unknown_row(call), call.worst_nano_usd
    elif failure.charge is Charge.KNOWN and failure.usage is not None:
        cost = cost_usd(call.model, failure.usage)
        cost_nano = nano(cost)
        booked = ledger_row(call, failure.usage, cost, failure.request_id, estimated=call.model.price_estimated)
        label = FAILED
    row = _ending_row(failure, failure.message, failure.status, counted=counted, cost_nano=cost_nano)
    return Ending(call.number, label, row, booked, call.charge, _given_back(call.charge, failure, cost_nano))


def _given_back(charge: GateCharge, failure: Failure, cost_nano: int) -> GiveBack:
    if failure.usage is not None:
        return settle(charge, failure.usage, cost_nano)
    if failure.charge is Charge.UNKNOWN:
        return NOTHING
    untouched = failure.reason in {Reason.RATE_LIMITED, Reason.CONNECT_FAILED, Reason.NO_KEY, Reason.TOO_LARGE}
    return refund(charge, requests=untouched)


def _ending_row(outcome: Outcome, message: str, status: int | None, *, counted: bool, cost_nano: int) -> str:
    row: dict[str, Any] = {
        "status": status,
        "message": message,
        "counted": counted,
        "request_id": outcome.request_id,
        "cost_nano_usd": cost_nano,
        "duration_ms": outcome.duration_ms,
    }
    if isinstance(outcome, Failure):
        row["reason"] = str(outcome.reason)
    return _dump(row)


def counts(outcome: Outcome) -> bool:
    """Tell whether an attempt counts against `max_attempts`."""
    return not (isinstance(outcome, Failure) and outcome.reason in UNCOUNTED)
