"""What models there are, what they can do and cost, which tier carries them, and which are served today."""

from vessel.registry.availability import Availability, resolve
from vessel.registry.failover import Failover, failover_of
from vessel.registry.load import load_registry
from vessel.registry.model import (
    OPENAI_PREFIX,
    Counts,
    Feature,
    Kind,
    Limits,
    Model,
    PricedPer,
    Prices,
    Registry,
    Status,
    Tier,
    ToolPrice,
    Vessel,
    vessel_of,
)
from vessel.registry.suggest import no_tier, suggest

__all__ = [
    "OPENAI_PREFIX",
    "Availability",
    "Counts",
    "Failover",
    "Feature",
    "Kind",
    "Limits",
    "Model",
    "PricedPer",
    "Prices",
    "Registry",
    "Status",
    "Tier",
    "ToolPrice",
    "Vessel",
    "failover_of",
    "load_registry",
    "no_tier",
    "resolve",
    "suggest",
    "vessel_of",
]
