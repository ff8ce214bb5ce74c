"""How much a call may answer with: the caller's bound, the model's, the organisation's, and what the cap leaves."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.registry import Limits, Model, load_registry
from vessel.routing.output import (
    DEFAULT_OUTPUT_TOKENS,
    LEAST_OUTPUT_TOKENS,
    REASONING_OUTPUT_TOKENS,
    affordable_output_tokens,
    output_tokens,
)
from vessel.usage.prices import nano, worst_case_nano_usd
from vessel.wire import ChatRequest

REGISTRY = load_registry()
PLAIN, REASONING = REGISTRY.model("llama-3.1-8b-instant"), REGISTRY.model("openai/gpt-oss-120b")


def asking(**bounds: int) -> ChatRequest:
    """Build a request with these bounds."""
    return ChatRequest.model_validate({"messages": [{"role": "user", "content": "x"}]} | bounds)


def affordable(model: Model, cap: str | None, *, wanted: int = 2048, spent: int = 0, **bounds: int) -> int | None:
    """Ask what a cap leaves for a prompt of at most 1,000 tokens."""
    cap_usd = None if cap is None else Decimal(cap)
    return affordable_output_tokens(
        asking(**bounds), model, wanted, most_prompt_tokens=1000, cap_usd=cap_usd, spent_nano=spent
    )


def test_reasoning_models_get_a_wider_default() -> None:
    """Reasoning counts as output, so that a bound for answers alone would cut it."""
    assert output_tokens(asking(), PLAIN, None, 10) == DEFAULT_OUTPUT_TOKENS
    assert output_tokens(asking(), REASONING, None, 10) == REASONING_OUTPUT_TOKENS


@pytest.mark.parametrize("name", ["max_completion_tokens", "max_tokens"])
def test_the_callers_bound_is_kept_up_to_the_models_own(name: str) -> None:
    """It is lowered only to what the model can give, never raised and never fitted to a limit."""
    tight = Limits(tpm=100)

    assert output_tokens(asking(**{name: 7}), REASONING, tight, 10) == 7
    assert output_tokens(asking(**{name: 60_000}), REASONING, tight, 10) == 60_000
    assert output_tokens(asking(**{name: 10**6}), REASONING, None, 10) == REASONING.max_output


def test_the_window_bounds_the_output() -> None:
    """What the prompt leaves of the window is the most; a prompt that fills it leaves the least there is."""
    left = 100

    assert output_tokens(asking(), PLAIN, None, PLAIN.context_window - left) == left
    assert output_tokens(asking(), PLAIN, None, PLAIN.context_window + 1) == LEAST_OUTPUT_TOKENS


def test_a_default_leaves_room_in_the_minutes_limit() -> None:
    """Groq charges the bound at admission: half of the limit less the prompt, and never above its output limit."""
    assert output_tokens(asking(), PLAIN, Limits(tpm=2000), 300) == 700
    assert output_tokens(asking(), PLAIN, Limits(tpm=2000), 1500) == LEAST_OUTPUT_TOKENS
    assert output_tokens(asking(), PLAIN, Limits(otpm=50), 300) == 50


def test_without_a_cap_nothing_is_lowered() -> None:
    """A job without max_cost_usd gets what it wants, whatever it has spent."""
    assert affordable(PLAIN, None, spent=10**12) == 2048


def test_a_callers_own_bound_is_not_lowered_for_the_cap() -> None:
    """A shorter answer than asked for would be another answer, so the model is passed over."""
    cap = "0.0001"

    assert affordable(PLAIN, cap, wanted=2000, max_tokens=2000) is None
    lowered = affordable(PLAIN, cap, wanted=2000)
    assert lowered is not None
    assert LEAST_OUTPUT_TOKENS <= lowered < 2000


def test_what_was_spent_lowers_what_is_left() -> None:
    """Earlier calls count, and a job that has spent its cap gets no further call."""
    cap = "0.0001"
    first, second = affordable(PLAIN, cap), affordable(PLAIN, cap, spent=10_000)

    assert first is not None
    assert second is not None
    assert second < first
    assert affordable(PLAIN, cap, spent=nano(Decimal(cap))) is None


@given(cap=st.integers(1, 10**8), spent=st.integers(0, 10**8), wanted=st.integers(16, 10**5))
def test_the_worst_case_never_passes_the_cap(cap: int, spent: int, wanted: int) -> None:
    """Whatever bound is given, the dearest such call and all before it stay within the cap."""
    found = affordable(REASONING, format(Decimal(cap).scaleb(-9), "f"), wanted=wanted, spent=spent)

    if found is not None:
        assert LEAST_OUTPUT_TOKENS <= found <= wanted
        assert worst_case_nano_usd(REASONING, 1000, found) + spent <= cap
