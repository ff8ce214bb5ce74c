"""What a call charges, and what comes back: estimates in, usage out, nothing made up on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.gate.limiter import NAMES, PERIOD_MS, Charge, GiveBack, configured, items_of, refund, settle
from vessel.registry import load_registry
from vessel.registry.model import Limits
from vessel.upstream.outcome import Usage

NONE = (0,) * len(NAMES)


def charge(prompt: int, output: int, nano: int = 0) -> Charge:
    """Charge a call without limits."""
    return Charge("m", "org", NONE, prompt, output, nano)


def limits(**given: int) -> Limits:
    """Set some limits."""
    return Limits(**dict.fromkeys(NAMES) | given)


def test_each_limit_is_charged_what_it_counts() -> None:
    """Requests count one, tokens count prompt and largest output, split limits their own part."""
    assert {name: charge(100, 20).cost(name) for name in NAMES} == {
        "rpm": 1, "rpd": 1, "tpm": 120, "tpd": 120, "itpm": 100, "otpm": 20,
    }  # fmt: skip


def test_what_was_not_used_comes_back() -> None:
    """The request stays charged; unused output, cached prompt tokens and unspent money return."""
    usage = Usage(prompt_tokens=90, completion_tokens=5, cached_tokens=40)
    assert settle(charge(100, 20, 1_000), usage, 400) == GiveBack(0, 50, 15, 600)


def test_an_estimate_that_was_too_low_is_charged_on_top() -> None:
    """The upstream counted more than we thought: the amount is below zero."""
    assert settle(charge(10, 5), Usage(prompt_tokens=30, completion_tokens=5), 0) == GiveBack(0, -20, 0)


def test_more_cached_than_prompt_is_no_gift() -> None:
    """An upstream that reports nonsense cannot make a call give more than it took."""
    back = settle(charge(10, 5), Usage(prompt_tokens=5, completion_tokens=0, cached_tokens=500), 0)
    assert back.prompt_tokens == 10


@pytest.mark.parametrize("requests", [True, False])
def test_a_refund_returns_the_tokens_and_maybe_the_request(*, requests: bool) -> None:
    """A call that was refused at the door used no request either; one that failed behind it did."""
    assert refund(charge(100, 20, 7), requests=requests) == GiveBack(int(requests), 100, 20, 7)


@given(
    prompt=st.integers(0, 10**7), output=st.integers(0, 10**6), used=st.integers(0, 10**7), made=st.integers(0, 10**6),
    cached=st.integers(0, 10**7),
)  # fmt: skip
def test_charge_and_settlement_leave_what_was_used(prompt: int, output: int, used: int, made: int, cached: int) -> None:
    """Whatever was estimated, after the settlement the gate has lost exactly what the upstream counted."""
    back = settle(charge(prompt, output), Usage(used, made, cached), 0)
    assert prompt - back.prompt_tokens == max(0, used - cached)
    assert output - back.output_tokens == made


def test_a_limit_that_is_not_set_is_none_of_the_items() -> None:
    """Only what the plan names is counted; items are those of `limits`, in the namespace of their name."""
    items = items_of(limits(rpm=30, tpd=500_000))
    assert {name: (i.amount, i.get_expiry() * 1000, i.namespace) for name, i in items.items()} == {
        "rpm": (30, 60_000, "rpm"),
        "tpd": (500_000, 86_400_000, "tpd"),
    }
    assert items_of(limits()) == {}
    assert configured(limits(rpm=30, tpd=500_000)) == (30, 0, 0, 500_000, 0, 0)
    assert configured(None) == NONE


@pytest.mark.parametrize("plan", ["free", "developer"])
def test_every_shipped_limit_is_an_item_of_its_period(plan: str) -> None:
    """Each model's limits of each plan are positive and have the window that the gate refills them by."""
    for model in load_registry().models.values():
        found = model.limits.get(plan)
        for name, item in (items_of(found) if found else {}).items():
            assert item.amount > 0
            assert item.get_expiry() * 1000 == PERIOD_MS[name]
