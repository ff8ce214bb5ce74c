"""How long an answer takes: the queue, the prompt, and every token at the model's own speed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from vessel.simulator.models import SimModel

QUEUE_S = 0.004
PROMPT_SPEEDUP = 20
"""A prompt is read this much faster than an answer is written."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The parts of an answer's time, in seconds, as its usage reports them."""

    queue_s: float
    prompt_s: float
    completion_s: float

    @property
    def total_s(self) -> float:
        """Return the time from arrival to the last token."""
        return self.queue_s + self.prompt_s + self.completion_s

    def stretched(self, total_s: float) -> Timing:
        """Return the same proportions over another total."""
        factor = total_s / self.total_s if self.total_s else 0.0
        return Timing(self.queue_s * factor, self.prompt_s * factor, self.completion_s * factor)


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """The model's speed, or instead of it a constant, or a lognormal draw.

    `scale` shortens or stretches what is waited for, not what usage reports; a constant or a draw is waited for and
    reported as it is.
    """

    scale: float = 1.0
    constant_ms: float | None = None
    median_ms: float | None = None
    sigma: float = 0.4

    def timing(self, model: SimModel, prompt: int, output: int, dice: random.Random) -> tuple[Timing, float]:
        """Return the time to report and the seconds to wait."""
        speed = model.speed_tps
        natural = Timing(QUEUE_S, prompt / (speed * PROMPT_SPEEDUP), output / speed)
        if self.constant_ms is not None:
            drawn = natural.stretched(self.constant_ms / 1000)
            return drawn, drawn.total_s
        if self.median_ms is not None:
            drawn = natural.stretched(dice.lognormvariate(0, self.sigma) * self.median_ms / 1000)
            return drawn, drawn.total_s
        return natural, natural.total_s * self.scale

    def changed(self, changes: Mapping[str, Any]) -> LatencyModel:
        """Return this with some fields replaced; `ms` and `median_ms` exclude each other. Raises ValueError."""
        names = {"scale": "scale", "ms": "constant_ms", "median_ms": "median_ms", "sigma": "sigma"}
        if unknown := set(changes) - set(names):
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(names)}")
        for name, value in changes.items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and value >= 0) and not (value is None and name in {"ms", "median_ms"}):
                raise ValueError(f"{name} is a number of at least 0; got {value!r}")
        fields = {names[name]: value for name, value in changes.items()}
        if changes.get("ms") is not None:
            fields.setdefault("median_ms", None)
        if changes.get("median_ms") is not None:
            fields.setdefault("constant_ms", None)
        return replace(self, **fields)
