"""What a call costs: exact decimals for the ledger, whole nano-USD rounded up for counters and caps."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from vessel.registry import PricedPer

if TYPE_CHECKING:
    from vessel.registry import Model, Prices
    from vessel.upstream.outcome import Usage

_PER_MILLION = -6
_NANO = 9


def cost_usd(model: Model, usage: Usage) -> Decimal:
    """Return the exact price of a call in USD, cached prompt tokens at their own price where one is known.

    Reasoning tokens are part of the completion. Raises ValueError for models that are not priced by tokens.
    """
    prices = _token_prices(model)
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    cached_price = prices.input if prices.cached_input is None else prices.cached_input
    total = (
        (usage.prompt_tokens - cached) * prices.input + cached * cached_price + usage.completion_tokens * prices.output
    )
    return total.scaleb(_PER_MILLION)


def worst_case_nano_usd(model: Model, prompt_tokens: int, output_tokens: int) -> int:
    """Return what a call can cost at most in nano-USD, rounded up: nothing cached, the whole output bound used."""
    prices = _token_prices(model)
    return nano((prompt_tokens * prices.input + output_tokens * prices.output).scaleb(_PER_MILLION))


def nano(usd: Decimal) -> int:
    """Return an amount of USD in nano-USD, rounded up."""
    return int(usd.scaleb(_NANO).to_integral_value(ROUND_CEILING))


def _token_prices(model: Model) -> Prices:
    if model.priced_per is not PricedPer.MILLION_TOKENS:
        raise ValueError(f"{model.id} is priced per {model.priced_per}, not by tokens")
    return model.prices
