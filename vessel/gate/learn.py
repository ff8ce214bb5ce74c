"""What an answer teaches the gate: limits and remains from its headers, a refusal's figures, a model's health.

Requests in the headers are per day, tokens per minute (groq-facts 1.7); the text of a 429 names one limit exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from vessel.gate.limiter import configured
from vessel.keyspace.script import Arg, Call, load, word
from vessel.upstream.outcome import Failure, Reason, Success

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.gate.limiter import Charge
    from vessel.keyspace.names import GateKeys
    from vessel.registry import Limits
    from vessel.upstream.outcome import Outcome, RateHeaders

_TO_OPEN = {
    Reason.OVER_CAPACITY: 5,
    Reason.SERVER_ERROR: 5,
    Reason.TIMEOUT: 5,
    Reason.CONNECTION_LOST: 5,
    Reason.CONNECT_FAILED: 3,
    Reason.UNAUTHORIZED: 3,
    Reason.FORBIDDEN: 3,
    Reason.SPEND_LIMIT: 3,
}
"""Failures in a row that open a breaker, with no answer in between: one worker's old key must not stop all."""

_OF_ALL_MODELS = frozenset({Reason.CONNECT_FAILED, Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.SPEND_LIMIT})
_SAYS_NOTHING = frozenset({Reason.CANCELLED, Reason.RESPONSE_TOO_LARGE, Reason.PROTOCOL_ERROR, Reason.NO_KEY})
_FLEX_CAPACITY = 498


@dataclass(frozen=True, slots=True)
class Started:
    """What was left of the minute's tokens right after a call was charged, and how much drift was known then."""

    level: str = ""
    drift: str = "0"


def learn(
    keys: GateKeys,
    charge: Charge,
    outcome: Outcome,
    started: Started,
    plans: Mapping[str, Limits] = MappingProxyType({}),
    *,
    call_id: str = "",
) -> Call[str]:
    """Tell the gate what an outcome says, before the call is settled; answers the breaker: closed, open or ramp.

    `plans` are the model's limits by plan, as the registry knows them: the headers may name another than is set.
    Telling the failure of a call twice counts once.
    """
    health, scope, why, to_open = _health(outcome)
    headers = outcome.headers
    args: dict[str, Arg] = {
        "configured": charge.figures,
        "call": call_id,
        "health": health,
        "scope": scope,
        "why": why,
        "failures_to_open": to_open,
        "limit_requests": _known(headers.limit_requests),
        "remaining_requests": _known(headers.remaining_requests),
        "limit_tokens": _known(headers.limit_tokens),
        "remaining_tokens": _known(headers.remaining_tokens),
        "level_before": started.level,
        "drift_before": started.drift or "0",
        "charged": charge.prompt_tokens + charge.output_tokens,
    }
    args |= _refusal(charge, outcome) | {"plan": _plan(headers, plans)}
    names = {n: getattr(keys, n) for n in ("gate", "inflight", "provider")}
    return load("learn").call(names, args, word)


def _plan(headers: RateHeaders, plans: Mapping[str, Limits]) -> str:
    """Give all limits of the plan whose requests a day and tokens a minute the headers name, "" where none has them."""
    found = [
        limits
        for limits in plans.values()
        if limits.tpm == headers.limit_tokens and limits.rpd in {None, headers.limit_requests}
    ]
    return " ".join(map(str, configured(found[0]))) if len(found) == 1 and headers.limit_tokens else ""


def _refusal(charge: Charge, outcome: Outcome) -> dict[str, Arg]:
    if not (isinstance(outcome, Failure) and outcome.reason in {Reason.RATE_LIMITED, Reason.TOO_LARGE}):
        return {"refused_limit": "", "refused_cap": "", "refused_used": "", "refused_cost": 0, "retry_after_ms": 0}
    return {
        "refused_limit": outcome.limit_name or "",
        "refused_cap": _known(outcome.limit_value),
        "refused_used": _known(outcome.limit_used),
        "refused_cost": charge.cost(outcome.limit_name or "rpm"),
        "retry_after_ms": round((outcome.retry_after_s or 0) * 1000),
    }


def _health(outcome: Outcome) -> tuple[str, str, str, int]:
    if isinstance(outcome, Success):
        return "good", "model", "", 0
    reason = outcome.reason
    to_open = _TO_OPEN.get(reason, 0)
    if reason in _SAYS_NOTHING or outcome.status == _FLEX_CAPACITY:
        return "none", "model", "", 0
    if not to_open:  # it answered, and its answer was about the request
        return "good", "model", "", 0
    return "bad", "provider" if reason in _OF_ALL_MODELS else "model", str(reason), to_open


def _known(value: int | None) -> Arg:
    return "" if value is None else value
