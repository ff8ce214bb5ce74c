"""What a span of the ledger took and cost, by group, and what routing saved: the seed's cost example, computed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.observe.moments import moment
from vessel.registry import PricedPer, resolve
from vessel.upstream.outcome import Usage
from vessel.usage.prices import cost_usd
from vessel.wire import PICO

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.registry import Availability, Model, Registry
    from vessel.usage.sums import Sum


@dataclass(frozen=True, slots=True)
class Saving:
    """What the tokens of answered calls would have cost on the most expensive tier, and what they did cost.

    Calls whose answer was not seen are in neither, since nobody knows their tokens; nor are fees of built-in tools,
    which are the same everywhere.
    """

    tier: str
    model: str
    there_usd: Decimal
    here_usd: Decimal

    @property
    def usd(self) -> Decimal:
        """Return what was saved; below zero where a model beyond the tiers cost more."""
        return self.there_usd - self.here_usd

    @property
    def percent(self) -> Decimal | None:
        """Return it as a part of what it would have cost there; None where that is nothing."""
        return self.usd * 100 / self.there_usd if self.there_usd else None

    def as_dict(self) -> dict[str, Any]:
        """Describe it in JSON."""
        percent = None if self.percent is None else float(round(self.percent, 1))
        return {
            "tier": self.tier,
            "model": self.model,
            "cost_there_usd": float(self.there_usd),
            "cost_here_usd": float(self.here_usd),
            "saved_usd": float(self.usd),
            "saved_percent": percent,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A span of time, from `since` up to and without `until` in epoch ms of Redis' clock, by one kind of group."""

    since: int
    until: int
    by: str
    groups: Mapping[str, Sum]
    total: Sum
    saving: Saving | None

    def as_dict(self) -> dict[str, Any]:
        """Describe it in JSON; times are UTC."""
        return {
            "object": "usage",
            "since": moment(self.since),
            "until": moment(self.until),
            "timezone": "UTC",
            "by": self.by,
            "data": [found.as_dict(name) for name, found in self.groups.items()],
            "total": self.total.as_dict(None),
            "saving": None if self.saving is None else self.saving.as_dict(),
        }


def saving(registry: Registry, availability: Availability, of: Sum) -> Saving | None:
    """Compare with the tier whose model would have taken the most money for the same tokens; None without tokens."""
    known = Usage(
        of.input_tokens - of.guessed_input_tokens,
        of.output_tokens - of.guessed_output_tokens,
        of.cached_tokens - of.guessed_cached_tokens,
    )
    if known.total_tokens <= 0:
        return None
    there = [  # of tiers that a model serves alike, the one that was made for it
        (cost_usd(model, known), tier.model == model.id, name, model.id)
        for name, tier in registry.tiers.items()
        if (model := _serving(registry, availability, tier.model)) is not None
    ]
    if not there:
        return None
    dearest, _, name, model_id = max(there, key=lambda found: found[:2])
    here = Decimal(of.pico_usd - of.guessed_pico_usd - of.fees_pico_usd).scaleb(PICO)
    return Saving(name, model_id, dearest, here)


def _serving(registry: Registry, availability: Availability, wanted: str) -> Model | None:
    found = resolve(registry, wanted, availability)
    model = registry.model(found) if found else None
    if model is None or model.priced_per is not PricedPer.MILLION_TOKENS or model.price_estimated:
        return None  # compound systems bill what they call, so nobody can say what these tokens cost there
    return model
