"""The simulated Groq: its models, its organisation's limits, its keys, its faults and its clock."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vessel.simulator.answers import digest
from vessel.simulator.buckets import NAMES, ModelLimits
from vessel.simulator.faults import Faults, read_rule
from vessel.simulator.models import Plan, SimModel, World, models_of
from vessel.simulator.stats import Stats

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

ORG = "org_simulated"


@dataclass(frozen=True, slots=True)
class SimulatorConfig:
    """How a simulator behaves from its start; all but the keys can be changed while it runs."""

    world: World = "today"
    plan: Plan = "developer"
    org: str = ORG
    keys: tuple[str, ...] = ()
    """Accepted keys; none: every `gsk_...` and `sim-...` is."""
    latency_scale: float = 1.0
    latency_ms: float | None = None
    latency_median_ms: float | None = None
    latency_sigma: float = 0.4
    seed: int = 0
    faults: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    limits: dict[str, dict[str, int | None]] = field(default_factory=dict)


class Simulation:
    """The state behind the endpoints."""

    def __init__(
        self, config: SimulatorConfig, clock: Callable[[], float] = time.time, log: IO[str] | None = None
    ) -> None:
        """Start with full buckets; `clock` gives seconds."""
        self.config, self.clock = config, clock
        self.models = models_of(config.world)
        self.removed: dict[str, SimModel] = {}
        self.stats = Stats(log=log)
        self.faults = Faults(config.seed)
        self.faults.rules = [read_rule(rule, clock()) for rule in config.faults]
        self.keys = set(config.keys)
        self.revoked: set[str] = set()
        self.latency = (config.latency_scale, config.latency_ms, config.latency_median_ms)
        self._overrides = dict(config.limits)
        self._limits: dict[str, ModelLimits] = {}
        self._dice = random.Random(config.seed)  # noqa: S311  repeatable on purpose

    digest = staticmethod(digest)

    def accepts(self, authorization: str) -> bool:
        """Tell whether a key is good."""
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key or key in self.revoked:
            return False
        return key in self.keys if self.keys else key.startswith(("gsk_", "sim-"))

    def limits_of(self, model: SimModel) -> ModelLimits:
        """Return a model's buckets, made when first asked for."""
        found = self._limits.get(model.id)
        if found is None:
            figures = model.free if self.config.plan == "free" else model.developer
            limits: dict[str, int | None] = dict(zip(("rpm", "rpd", "tpm", "tpd"), figures, strict=True))
            limits |= self._overrides.get("*", {}) | self._overrides.get(model.id, {})
            found = self._limits[model.id] = ModelLimits(limits, self.clock())
        return found

    def set_limits(self, model: str, limits: dict[str, Any]) -> None:
        """Change a model's limits (`*`: all models'); its buckets start full again. Raises ValueError."""
        if unknown := set(limits) - set(NAMES):
            raise ValueError(f"unknown limits: {', '.join(sorted(unknown))}; known: {', '.join(NAMES)}")
        self._overrides[model] = self._overrides.get(model, {}) | limits
        for name in list(self._limits) if model == "*" else [model]:
            self._limits.pop(name, None)

    def change_models(self, remove: list[str], add: list[str]) -> None:
        """Take models out of service, or bring them back."""
        for name in remove:
            if name in self.models:
                self.removed[name] = self.models.pop(name)
        everything = models_of("seed") | models_of("today") | self.removed
        for name in add:
            self.models[name] = everything[name]

    async def sleep(self, seconds: float) -> None:
        """Take the time a computation takes, as configured."""
        scale, constant, median = self.latency
        if constant is not None:
            seconds = constant / 1000
        elif median is not None:
            seconds = self._dice.lognormvariate(0, self.config.latency_sigma) * median / 1000
        seconds *= scale
        if seconds > 0:
            await asyncio.sleep(seconds)

    def reset(self) -> None:
        """Go back to the start: models, limits, faults, counters."""
        self.models = models_of(self.config.world)
        self.faults = Faults(self.config.seed)
        self.stats.reset()
        self.revoked.clear()
        self._overrides = dict(self.config.limits)
        self._limits.clear()
