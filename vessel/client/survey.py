"""What could serve a request and at what price: a route without a job, the models, the tiers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.client.gates import by_tier, flows, tickets
from vessel.client.steps import Run, Steps
from vessel.dispatch.queues import queues_of
from vessel.errors import Unreachable
from vessel.registry import Availability, PricedPer, resolve
from vessel.routing.output import output_tokens
from vessel.usage.prices import worst_case_nano_usd

if TYPE_CHECKING:
    from vessel.client.asking import Asking
    from vessel.client.request import Ask
    from vessel.jobs.model import Hop
    from vessel.registry import Model

TYPICAL_OUTPUT_TOKENS = 500
"""An answer of ordinary length, for estimates; the bound is what a budget must allow for."""


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Where a request would go and what it would cost; nothing was submitted.

    `as_listed` tells whether Groq's own list of models decided (as a worker last read it) or, without one, the dates
    in the registry. `live_workers` is None where Redis could not be asked.
    """

    tier: str
    model: str
    hops: tuple[Hop, ...]
    reasons: tuple[str, ...]
    builtin_tools: tuple[str, ...]
    estimated_tokens: int
    max_output_tokens: int
    typical_cost_usd: Decimal
    worst_cost_usd: Decimal
    as_listed: bool
    live_workers: int | None

    def as_dict(self) -> dict[str, Any]:
        """Describe it for JSON; costs are exact, as Decimal."""
        return {
            "tier": self.tier,
            "model": self.model,
            "reasons": list(self.reasons),
            "chain": [{"model": hop.model, "tier": hop.tier} for hop in self.hops],
            "builtin_tools": list(self.builtin_tools),
            "estimated_tokens": self.estimated_tokens,
            "max_output_tokens": self.max_output_tokens,
            "typical_cost_usd": self.typical_cost_usd,
            "worst_cost_usd": self.worst_cost_usd,
            "as_listed": self.as_listed,
            "live_workers": self.live_workers,
        }


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of the registry, whether it is served today, and by which one else."""

    model: Model
    served: bool
    stand_in: str | None


@dataclass(frozen=True, slots=True)
class TierInfo:
    """A tier: what serves it now, who works on it, and how many jobs wait for one of them (None: Redis is away).

    `waiting` counts jobs with a ticket that nobody has taken yet, and those in the backlog, which have none.
    """

    name: str
    model: str
    served_by: str | None
    live_workers: int | None
    waiting: int | None


def route(asking: Asking, ask: Ask) -> Steps[RoutePlan]:
    """Route and price a request. Raises InvalidRequest and its kin; works without Redis, by the registry's dates."""
    availability, alive = yield from _seen(asking)
    submission, found, estimate = asking.door.plan(ask.body, ask.policy, availability=availability)
    first = found.hops[0]
    model = asking.door.model_of(first.model)
    limits = model.limits.get(asking.door.settings.groq_plan)
    output = output_tokens(submission.request, model, limits, estimate)
    return RoutePlan(
        tier=first.tier,
        model=first.model,
        hops=found.hops,
        reasons=found.reasons,
        builtin_tools=found.builtin_tools,
        estimated_tokens=estimate,
        max_output_tokens=output,
        typical_cost_usd=_cost(model, estimate, min(output, TYPICAL_OUTPUT_TOKENS)),
        worst_cost_usd=_cost(model, estimate, output)
        + Decimal(asking.door.tools_reserve(model, found.builtin_tools)).scaleb(-9),
        as_listed=availability.listed is not None,
        live_workers=None if alive is None else alive.get(first.tier, 0),
    )


def models(asking: Asking) -> Steps[list[ModelInfo]]:
    """List every model of the registry. Works without Redis, by the registry's dates."""
    availability, _ = yield from _seen(asking)
    registry = asking.door.registry
    found = []
    for model in registry.models.values():
        served = availability.serves(model)
        found.append(ModelInfo(model, served, None if served else resolve(registry, model.id, availability)))
    return found


def tiers(asking: Asking) -> Steps[list[TierInfo]]:
    """List every tier. Works without Redis, by the registry's dates."""
    availability, alive = yield from _seen(asking)
    registry = asking.door.registry
    waiting: dict[str, int] = {}
    if alive is not None:
        queues = queues_of(registry.tiers)
        issued = yield Run(tickets(asking.door, queues))
        waiting = by_tier(registry, zip(queues, issued, strict=True), (yield from flows(asking.door)))
    return [
        TierInfo(
            name,
            tier.model,
            resolve(registry, tier.model, availability),
            None if alive is None else alive.get(name, 0),
            waiting.get(name),
        )
        for name, tier in registry.tiers.items()
    ]


def _seen(asking: Asking) -> Steps[tuple[Availability, dict[str, int] | None]]:
    try:
        return (yield from asking.seen(alive=True))
    except Unreachable:
        return Availability(listed=None, gone=frozenset(), today=datetime.now(UTC).date()), None


def _cost(model: Model, prompt_tokens: int, output: int) -> Decimal:
    if model.priced_per is not PricedPer.MILLION_TOKENS:
        return Decimal(0)
    return Decimal(worst_case_nano_usd(model, prompt_tokens, output)).scaleb(-9)
