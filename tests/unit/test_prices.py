"""Prices: exact decimals, whole nano-USD rounded up, and the same figures as another table of prices."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price
from hypothesis import given
from hypothesis import strategies as st

from vessel.registry import Kind, Model, load_registry
from vessel.upstream.outcome import Usage
from vessel.usage.prices import cost_usd, nano, tools_reserve_nano_usd, worst_case_nano_usd

REGISTRY = load_registry()
PRICED = [m for m in REGISTRY.routable() if not m.price_estimated and m.kind is not Kind.SYSTEM]
# Not in genai-prices' table under this id.
THEIRS = {"moonshotai/kimi-k2-instruct-0905": "moonshotai/kimi-k2-instruct"}

tokens = st.integers(min_value=0, max_value=10**9)


def test_the_seeds_example_of_costs_holds() -> None:
    """A million tokens each way cost the seed's 0.13 USD on the 8B and 0.75 on gpt-oss-120b."""
    million = Usage(1_000_000, 1_000_000)

    assert cost_usd(REGISTRY.model("llama-3.1-8b-instant"), million) == Decimal("0.13")
    assert cost_usd(REGISTRY.model("openai/gpt-oss-120b"), million) == Decimal("0.75")


def test_cached_tokens_cost_their_own_price() -> None:
    """Half a prompt from the cache costs three quarters; without a known discount it costs the whole."""
    usage = Usage(1_000_000, 0, cached_tokens=500_000)

    assert cost_usd(REGISTRY.model("openai/gpt-oss-120b"), usage) == Decimal("0.1125")
    assert cost_usd(REGISTRY.model("qwen/qwen3.8-27b"), usage) == Decimal("0.8")


def test_one_token_is_priced_exactly() -> None:
    """No digit is lost on the smallest call, which floats could not hold."""
    assert cost_usd(REGISTRY.model("openai/gpt-oss-20b"), Usage(1, 1)) == Decimal("0.000000375")


@pytest.mark.parametrize("model", PRICED, ids=lambda model: model.id)
def test_prices_agree_with_genai_prices(model: Model) -> None:
    """An independent table of prices comes to the same cost for every model whose price Groq publishes."""
    theirs = calc_price(
        TheirUsage(input_tokens=1_000_000, output_tokens=500_000),
        model_ref=THEIRS.get(model.id, model.id),
        provider_id="groq",
        genai_request_timestamp=datetime(2026, 11, 23, tzinfo=UTC),
    )

    assert cost_usd(model, Usage(1_000_000, 500_000)) == theirs.total_price


@pytest.mark.parametrize("model_id", ["openai/gpt-oss-120b", "openai/gpt-oss-20b", "openai/gpt-oss-safeguard-20b"])
def test_cache_prices_agree_with_genai_prices(model_id: str) -> None:
    """The discount of live models for cached tokens is the one that others know."""
    theirs = calc_price(
        TheirUsage(input_tokens=1_000_000, cache_read_tokens=400_000, output_tokens=0),
        model_ref=model_id,
        provider_id="groq",
    )

    assert cost_usd(REGISTRY.model(model_id), Usage(1_000_000, 0, cached_tokens=400_000)) == theirs.total_price


@given(st.sampled_from(PRICED), tokens, tokens, tokens)
def test_no_call_costs_more_than_its_worst_case(model: Model, prompt: int, output: int, cached: int) -> None:
    """Whatever was cached, the worst case bounds the cost, and by less than a nano-USD when nothing was."""
    worst = worst_case_nano_usd(model, prompt, output)

    assert nano(cost_usd(model, Usage(prompt, output, cached_tokens=cached))) <= worst
    assert 0 <= worst - cost_usd(model, Usage(prompt, output)).scaleb(9) < 1


@pytest.mark.parametrize(
    ("usd", "whole"), [("0", 0), ("1", 10**9), ("0.0000000001", 1), ("0.0000000010", 1), ("0.0000000011", 2)]
)
def test_nano_rounds_up(usd: str, whole: int) -> None:
    """A counter never shows less than what was spent."""
    assert nano(Decimal(usd)) == whole


def test_models_priced_by_other_units_are_refused() -> None:
    """An hour of audio has no price by tokens."""
    with pytest.raises(ValueError, match="audio_hour"):
        cost_usd(REGISTRY.model("whisper-large-v3"), Usage(1, 1))


@pytest.mark.parametrize(
    ("model_id", "tools", "usd"),
    [
        ("groq/compound", ("web_search",), "0.08"),  # ten of the advanced searches
        ("groq/compound-mini", ("web_search", "visit_website"), "0.008"),
        ("openai/gpt-oss-120b", ("web_search",), "0.025"),
        ("openai/gpt-oss-120b", ("code_execution",), "0.006"),  # two minutes at 0.18 an hour
        ("openai/gpt-oss-20b", ("web_search", "code_execution"), "0.031"),
        ("openai/gpt-oss-20b", (), "0"),
        ("llama-3.3-70b-versatile", ("web_search",), "0"),
    ],
)
def test_fees_of_tools_are_set_aside(model_id: str, tools: tuple[str, ...], usd: str) -> None:
    """As many runs of the dearest tool as the model may make, and the whole time of a call."""
    assert tools_reserve_nano_usd(REGISTRY, REGISTRY.model(model_id), tools, 120.0) == nano(Decimal(usd))
