"""Outcomes as workers tell them to the gate."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from tests.contract.world import MODEL, World, charge
from vessel.gate.learn import Started, learn
from vessel.upstream.outcome import Failure, Outcome, RateHeaders, Reason, Success, Usage

if TYPE_CHECKING:
    from vessel.gate.limiter import Charge

UNKNOWN_LIMITS = charge(100, 100)
_numbers = itertools.count()


def answered(**headers: Any) -> Success:
    """Build an answer with rate-limit headers."""
    return Success(MODEL, b"{}", Usage(100, 100), None, "stop", RateHeaders(**headers))


def failed(reason: Reason, **more: Any) -> Failure:
    """Build a failure."""
    return Failure(MODEL, reason, "No.", **more)


def refused(name: str, cap: int, used: int | None = None, retry_after_s: float | None = None) -> Failure:
    """Build a 429 whose text names a limit."""
    return failed(Reason.RATE_LIMITED, limit_name=name, limit_value=cap, limit_used=used, retry_after_s=retry_after_s)


def tell(world: World, outcome: Outcome, of: Charge = UNKNOWN_LIMITS, started: Started | None = None) -> str:
    """Tell the gate of an outcome; gives the breaker's state."""
    call_id = f"job_1/{next(_numbers)}"
    return world.run(learn(world.gate(of.model), of, outcome, started or Started(), call_id=call_id))
