"""What a batch will cost and how long the quota makes it take, before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.registry import PricedPer
from vessel.routing.output import default_output_tokens
from vessel.usage.prices import worst_case_nano_usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vessel.batches.lines import Tally
    from vessel.gate.view import Level
    from vessel.registry import Model

TYPICAL_OUTPUT_TOKENS = 500
"""An answer of ordinary length."""


@dataclass(frozen=True, slots=True)
class ModelEstimate:
    """One model's part. Seconds are those that its buckets need to refill; None where no limit is known."""

    model: str
    lines: int
    prompt_tokens: int
    typical_output_tokens: int
    most_output_tokens: int
    typical_cost_usd: Decimal
    worst_cost_usd: Decimal
    seconds: float | None

    def with_fees(self, usd: Decimal) -> ModelEstimate:
        """Add what is set aside for built-in tools to the worst case; how many runs are typical nobody knows."""
        return replace(self, worst_cost_usd=self.worst_cost_usd + usd)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Estimate:
    """The whole batch; models work side by side, so that it takes as long as the slowest."""

    models: tuple[ModelEstimate, ...]

    @property
    def lines(self) -> int:
        """Count the lines."""
        return sum(part.lines for part in self.models)

    @property
    def typical_cost_usd(self) -> Decimal:
        """Return the cost with answers of ordinary length."""
        return sum((part.typical_cost_usd for part in self.models), Decimal(0))

    @property
    def worst_cost_usd(self) -> Decimal:
        """Return the cost with every answer as long as it may be."""
        return sum((part.worst_cost_usd for part in self.models), Decimal(0))

    @property
    def seconds(self) -> float | None:
        """Return the time that the quota allows it in; None where no limit is known."""
        known = [part.seconds for part in self.models if part.seconds is not None]
        return max(known) if known else None


def estimated(model: Model, levels: Mapping[str, Level], tally: Tally) -> ModelEstimate:
    """Estimate one model's part of a batch by its gate's limits, as they are and as full as they are."""
    most = tally.asked_output + tally.unbounded * default_output_tokens(model)
    typical = min(most, tally.lines * TYPICAL_OUTPUT_TOKENS)
    prompt = tally.prompt_tokens
    return ModelEstimate(
        model.id,
        tally.lines,
        prompt,
        typical,
        most,
        _cost(model, prompt, typical),
        _cost(model, prompt, most),
        _seconds(levels.values(), tally.lines, prompt, typical),
    )


def _cost(model: Model, prompt_tokens: int, output_tokens: int) -> Decimal:
    if model.priced_per is not PricedPer.MILLION_TOKENS:
        return Decimal(0)
    return Decimal(worst_case_nano_usd(model, prompt_tokens, output_tokens)).scaleb(-9)


def _seconds(levels: Iterable[Level], requests: int, prompt: int, output: int) -> float | None:
    """Say how long buckets that refill evenly take to let so much through."""
    amounts = {"r": requests, "t": prompt + output, "i": prompt, "o": output}
    return max((level.wait_ms(amounts[level.name[0]]) / 1000 for level in levels), default=None)
