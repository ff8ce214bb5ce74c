"""How a simulator begins: settings, and scenario files that hold them.

A scenario is a TOML or JSON file whose fields are those of SimulatorConfig; docs/simulator.md has an example.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from vessel.simulator.keys import DEFAULT_ORG
from vessel.simulator.models import World
from vessel.simulator.plans import Plan
from vessel.simulator.tools import Reports

if TYPE_CHECKING:
    from pathlib import Path


class BadConfig(ValueError):
    """Settings that cannot be used."""


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """How a simulator begins; `POST /_sim/...` changes most of it while it runs. Raises BadConfig."""

    world: World = "today"
    plan: Plan = "developer"
    seed: int = 0
    org: str = DEFAULT_ORG
    keys: tuple[str, ...] = ()
    """Accepted keys, `KEY` or `ORG:KEY`; none: every `gsk_...` and `sim-...`."""
    latency_scale: float = 1.0
    latency_ms: float | None = None
    latency_median_ms: float | None = None
    latency_sigma: float = 0.4
    prompt_cache: bool = True
    limits: dict[str, dict[str, int | None]] = field(default_factory=dict)
    """Other limits, by model; `*` is every model."""
    tool_reports: Reports = "results"
    """How answers tell of the built-in tools that ran (tools.py)."""
    faults: tuple[dict[str, Any], ...] = ()
    models_removed: tuple[str, ...] = ()
    models_added: tuple[str | dict[str, Any], ...] = ()
    calls_kept: int = 200_000
    hang_s: float = 3600.0
    """After so long even a hanging call is cut."""

    def __post_init__(self) -> None:
        """Check what is a closed set."""
        closed = (("world", get_args(World)), ("plan", get_args(Plan)), ("tool_reports", get_args(Reports)))
        for name, allowed in closed:
            if getattr(self, name) not in allowed:
                raise BadConfig(f"{name} is one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        for name in ("latency_scale", "latency_ms", "latency_median_ms", "latency_sigma", "hang_s"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or value < 0):
                raise BadConfig(f"{name} is a number of at least 0; got {value!r}")


_LISTS = ("keys", "faults", "models_removed", "models_added")


def read_scenario(path: Path) -> dict[str, Any]:
    """Read the fields of SimulatorConfig that a scenario file sets. Raises BadConfig and OSError."""
    text = path.read_text("utf-8")
    try:
        found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise BadConfig(f"{path.name} is neither TOML nor, as .json, JSON: {error}") from error
    known = {f.name for f in dataclasses.fields(SimulatorConfig)}
    if not isinstance(found, dict) or set(found) - known:
        extra = f"; it has no {', '.join(sorted(set(found) - known))}" if isinstance(found, dict) else ""
        raise BadConfig(f"{path.name} may have the fields {', '.join(sorted(known))}{extra}")
    return {name: tuple(value) if name in _LISTS else value for name, value in found.items()}
