"""The state behind the endpoints: models, organisations with their limits, keys, faults, latency and the log."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Any

from vessel.simulator import problems
from vessel.simulator.buckets import Gate
from vessel.simulator.cache import PromptCache
from vessel.simulator.catalog import Catalog
from vessel.simulator.clock import Clock, SystemClock
from vessel.simulator.faults import FaultBook
from vessel.simulator.keys import KeyRing
from vessel.simulator.latency import LatencyModel
from vessel.simulator.models import Feature, SimModel
from vessel.simulator.plans import Limits, Plan, limits_of
from vessel.simulator.stats import Call, Stats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

    from vessel.simulator.config import SimulatorConfig
    from vessel.simulator.exchange import Exchange

FLEX_FACTOR = 10
"""The flex tier has so many times the on_demand limits."""


class Simulation:
    """One simulated Groq."""

    def __init__(self, config: SimulatorConfig, clock: Clock | None = None, log: IO[str] | None = None) -> None:
        """Begin as configured, with nothing used of any limit. Raises ValueError for faults in the settings."""
        self.config = config
        self.clock = clock or SystemClock()
        self.stats = Stats(config.calls_kept, log)
        self._ids = random.Random()  # noqa: S311  ids only have to differ
        self._fingerprints: dict[str, str] = {}
        self._begin()

    def _begin(self) -> None:
        config = self.config
        self.plan: Plan = config.plan
        self.catalog = Catalog(config.world)
        self.catalog.add(config.models_added)
        self.catalog.remove(config.models_removed)
        self.keys = KeyRing(config.keys, config.org)
        self.faults = FaultBook(config.seed)
        self.faults.add(config.faults, self.clock.now())
        self.latency = LatencyModel(
            config.latency_scale, config.latency_ms, config.latency_median_ms, config.latency_sigma
        )
        self.dice = random.Random(config.seed)  # noqa: S311  repeatable on purpose
        self._cache = PromptCache()
        self._overrides = {model: dict(changes) for model, changes in config.limits.items()}
        for changes in self._overrides.values():
            Limits().changed(changes)
        self._gates: dict[tuple[str, str, str], Gate] = {}

    def reset(self) -> None:
        """Go back to the beginning: models, keys, limits and their use, faults, latency, cache, log."""
        self._begin()
        self.stats.reset()

    # --- organisations and limits

    def org_of(self, exchange: Exchange) -> str:
        """Return whose request it is. Raises Problem 401."""
        org = self.keys.org_of(exchange.headers.get(b"authorization", b""))
        if org is None:
            raise problems.invalid_key()
        return org

    def gate(self, org: str, model: str, tier: str = "on_demand") -> Gate:
        """Return an organisation's buckets for a model; flex has its own, performance shares on_demand's."""
        key = (org, model, "flex" if tier == "flex" else "on_demand")
        gate = self._gates.get(key)
        if gate is None:
            gate = Gate(self._limits(model, key[2]), self.clock.now())
            if model in self.catalog.served:
                self._gates[key] = gate
        return gate

    def _limits(self, model: str, tier: str) -> Limits:
        limits = limits_of(self.plan, model)
        for name in ("*", model):
            limits = limits.changed(self._overrides.get(name, {}))
        return limits.times(FLEX_FACTOR) if tier == "flex" else limits

    def change_limits(self, model: str, changes: Mapping[str, Any]) -> None:
        """Change a model's limits for all organisations (`*`: every model's); use stays. Raises ValueError."""
        Limits().changed(changes)
        self._overrides.setdefault(model, {}).update(changes)
        self._apply_limits()

    def restore_limits(self) -> None:
        """Go back to the plan's limits; use stays."""
        self._overrides = {}
        self._apply_limits()

    def change_plan(self, plan: Plan) -> None:
        """Put every organisation on a plan; use stays."""
        self.plan = plan
        self._apply_limits()

    def empty_buckets(self) -> None:
        """Forget what was used of every limit."""
        self._gates.clear()

    def _apply_limits(self) -> None:
        now = self.clock.now()
        for (_, model, tier), gate in self._gates.items():
            gate.change(self._limits(model, tier), now)

    def limits_shown(self) -> list[dict[str, Any]]:
        """Return limit and use of every bucket that was touched."""
        now = self.clock.now()
        return [
            {"org": org, "model": model, "tier": tier, "limits": gate.used(now)}
            for (org, model, tier), gate in self._gates.items()
        ]

    # --- parts of answers

    def cached(self, org: str, model: SimModel, messages: Sequence[dict[str, Any]], mark: str, now: float) -> int:
        """Return how many prompt tokens come from the model's cache."""
        if not self.config.prompt_cache or Feature.CACHE not in model.features:
            return 0
        return self._cache.look(org, model.id, messages, mark, now)

    def completion_id(self) -> str:
        """Make an id of a completion, `chatcmpl-` and a UUID."""
        text = f"{self._ids.getrandbits(128):032x}"
        return f"chatcmpl-{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def fingerprint(self, model: SimModel) -> str:
        """Return what stands for the backend that serves a model."""
        found = self._fingerprints.get(model.id)
        if found is None:
            found = "fp_" + hashlib.sha256(model.id.encode()).hexdigest()[:10]
            self._fingerprints[model.id] = found
        return found

    @staticmethod
    def seed_of(body: Mapping[str, Any], call: Call) -> int:
        """Return the seed that an answer names: the caller's, else one of the messages."""
        asked = body.get("seed")
        return asked if isinstance(asked, int) else int((call.digest or "0")[:8], 16)
