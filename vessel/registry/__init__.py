"""What models there are, what they can do and cost, which tier carries them, and which are served today."""

from vessel.registry.availability import Availability, resolve
from vessel.registry.load import load_registry
from vessel.registry.model import Counts, Feature, Kind, Limits, Model, PricedPer, Prices, Registry, Status, Tier
from vessel.registry.suggest import suggest

__all__ = [
    "Availability",
    "Counts",
    "Feature",
    "Kind",
    "Limits",
    "Model",
    "PricedPer",
    "Prices",
    "Registry",
    "Status",
    "Tier",
    "load_registry",
    "resolve",
    "suggest",
]
