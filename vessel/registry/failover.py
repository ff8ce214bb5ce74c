"""The model that serves in an outage: what the settings name, with the registry's figures where it has them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING

from vessel.registry.model import OPENAI_PREFIX, Feature, Kind, Limits, Model, Prices, Status, Vessel

if TYPE_CHECKING:
    from vessel.registry.model import Registry
    from vessel.settings import Settings

_WINDOW, _MOST_OUTPUT = 128_000, 16_384
_ASSUMED = frozenset(
    {Feature.TOOLS, Feature.PARALLEL_TOOLS, Feature.JSON_OBJECT, Feature.JSON_SCHEMA, Feature.STRICT_SCHEMA}
    | {Feature.VISION}
)
"""An endpoint that lacks one of them says so, and the job goes back to its chain."""


@dataclass(frozen=True, slots=True)
class Failover:
    """The failover vessel's model under its own limits. `priced`: its prices are known, so that a cap can hold."""

    model: Model
    priced: bool


def failover_of(registry: Registry, settings: Settings) -> Failover | None:
    """Return the model that VESSEL_FAILOVER_MODEL arms, or None.

    Prices are those set, else the registry's; for a model that neither knows the dearest of the registry's stand in,
    marked as estimated.
    """
    if settings.failover_model is None:
        return None
    known = registry.failover.get(settings.failover_model)
    model = known or _unknown(registry, settings.failover_model)
    priced = known is not None
    if settings.failover_price_input is not None and settings.failover_price_output is not None:
        prices = Prices(settings.failover_price_input, None, settings.failover_price_output)
        model, priced = replace(model, prices=prices, price_estimated=False), True
    limits = Limits(rpm=settings.failover_rpm, tpm=settings.failover_tpm)
    # Groq's plans say nothing about this endpoint.
    both = MappingProxyType({"developer": limits, "free": limits})
    return Failover(replace(model, limits=both), priced)


def _unknown(registry: Registry, name: str) -> Model:
    known = registry.failover.values()
    dearest = Prices(
        max((m.prices.input for m in known), default=Decimal(10)),
        None,
        max((m.prices.output for m in known), default=Decimal(10)),
    )
    return Model(
        id=OPENAI_PREFIX + name,
        tier="",
        kind=Kind.CHAT,
        status=Status.PRODUCTION,
        context_window=_WINDOW,
        max_output=_MOST_OUTPUT,
        prices=dearest,
        price_estimated=True,
        features=_ASSUMED,
        vessel=Vessel.OPENAI,
    )
