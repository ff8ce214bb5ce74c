"""What a call costs: exact decimals for the ledger, whole nano-USD rounded up for counters and caps."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TYPE_CHECKING

from vessel.registry import Feature, Kind, PricedPer
from vessel.upstream.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Collection

    from vessel.registry import Model, Prices, Registry
    from vessel.upstream.outcome import Success

_PER_MILLION = -6
_NANO = 9
_HOUR_S = 3600
_FINEST = Decimal("0.000000001")


@dataclass(frozen=True, slots=True)
class Bill:
    """What an answer costs in USD, how much of it are fees of built-in tools, and whether either is our estimate."""

    usd: Decimal
    tools_usd: Decimal = Decimal(0)
    estimated: bool = False


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


def bill(registry: Registry, model: Model, success: Success) -> Bill:
    """Price an answer: a system's tokens by the models behind it, and the runs of built-in tools by the registry.

    Tokens that the breakdown leaves out, and those of a model nobody knows, cost what the system's do. A tool priced by
    the hour is taken to have run as long as the call. Raises ValueError for models that are not priced by tokens.
    """
    tokens, estimated = _tokens_usd(registry, model, success)
    hours = Decimal(success.duration_ms) / (1000 * _HOUR_S)
    fees = Decimal(0)
    for name, runs in success.tools:
        price = registry.builtin_tools.get(name)
        if price is not None and runs > 0:
            fees += runs * price.per_call + hours * price.per_hour
    fees = fees.quantize(_FINEST, ROUND_CEILING)
    return Bill(tokens + fees, fees, estimated or bool(success.tools))


def tools_reserve_nano_usd(registry: Registry, model: Model, tools: Collection[str], seconds: float) -> int:
    """Return what is set aside for the built-in tools of a call of at most `seconds`, in nano-USD, rounded up.

    As many runs of the dearest as the registry has for the model. On gpt-oss Groq bounds their number nowhere, so that
    more may be booked in the end than was set aside.
    """
    if not model.can(Feature.BUILTIN_TOOLS):
        return 0
    prices = [price for name in tools if (price := registry.builtin_tools.get(name)) is not None]
    system = model.kind is Kind.SYSTEM
    dearest = max((price.per_call_most if system else price.per_call for price in prices), default=Decimal(0))
    hourly = sum((price.per_hour for price in prices), Decimal(0))
    return nano(dearest * model.tool_calls + hourly * Decimal(str(seconds)) / _HOUR_S)


def _tokens_usd(registry: Registry, model: Model, success: Success) -> tuple[Decimal, bool]:
    if model.kind is not Kind.SYSTEM or not success.parts:
        return cost_usd(model, success.usage), model.price_estimated
    total, estimated = Decimal(0), False
    for name, usage in success.parts:
        behind = registry.models.get(name)
        known = behind is not None and behind.priced_per is PricedPer.MILLION_TOKENS and not behind.price_estimated
        total += cost_usd(behind if known and behind is not None else model, usage)
        estimated = estimated or not known
    prompt = success.usage.prompt_tokens - sum(usage.prompt_tokens for _, usage in success.parts)
    completion = success.usage.completion_tokens - sum(usage.completion_tokens for _, usage in success.parts)
    rest = Usage(max(0, prompt), max(0, completion))
    return total + cost_usd(model, rest), estimated or rest.total_tokens > 0


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
