"""What a call charges, and what comes back: estimates in, usage out, nothing made up on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.gate.limiter import Bucket, Charge, GiveBack, buckets_of, charge, refund, settle
from vessel.keyspace.names import Keys, family
from vessel.registry import load_registry
from vessel.registry.model import Limits
from vessel.upstream.outcome import Usage

NAMES = ("rpm", "rpd", "tpm", "tpd", "itpm", "otpm")
BUCKETS = tuple(Bucket(name, f"k:{name}", 1_000_000, 60_000) for name in NAMES)


def by_name(items: tuple[Charge, ...] | tuple[GiveBack, ...]) -> dict[str, int]:
    """Map each limit to what is charged or given back."""
    return {i.bucket.name: i.cost if isinstance(i, Charge) else i.amount for i in items}


def test_each_limit_is_charged_what_it_counts() -> None:
    """Requests count one, tokens count prompt and largest output, split limits their own part."""
    assert by_name(charge(BUCKETS, 100, 20)) == {
        "rpm": 1, "rpd": 1, "tpm": 120, "tpd": 120, "itpm": 100, "otpm": 20,
    }  # fmt: skip


def test_what_was_not_used_comes_back() -> None:
    """The request stays charged; unused output and cached prompt tokens return."""
    usage = Usage(prompt_tokens=90, completion_tokens=5, cached_tokens=40)
    assert by_name(settle(charge(BUCKETS, 100, 20), usage)) == {
        "rpm": 0, "rpd": 0, "tpm": 65, "tpd": 65, "itpm": 50, "otpm": 15,
    }  # fmt: skip


def test_an_estimate_that_was_too_low_is_charged_on_top() -> None:
    """The upstream counted more than we thought: the amount is below zero."""
    back = by_name(settle(charge(BUCKETS, 10, 5), Usage(prompt_tokens=30, completion_tokens=5)))
    assert (back["tpm"], back["itpm"], back["otpm"]) == (-20, -20, 0)


def test_more_cached_than_prompt_is_no_gift() -> None:
    """An upstream that reports nonsense cannot make a call give more than it took."""
    back = by_name(settle(charge(BUCKETS, 10, 5), Usage(prompt_tokens=5, completion_tokens=0, cached_tokens=500)))
    assert back["itpm"] == 10


@pytest.mark.parametrize("requests", [True, False])
def test_a_refund_returns_the_tokens_and_maybe_the_request(*, requests: bool) -> None:
    """A call that was refused at the door used no request either; one that failed behind it did."""
    back = by_name(refund(charge(BUCKETS, 100, 20), requests=requests))
    assert back == {"rpm": requests, "rpd": requests, "tpm": 120, "tpd": 120, "itpm": 100, "otpm": 20}


@given(
    prompt=st.integers(0, 10**7), output=st.integers(0, 10**6), used=st.integers(0, 10**7), made=st.integers(0, 10**6),
    cached=st.integers(0, 10**7),
)  # fmt: skip
def test_charge_and_settlement_leave_what_was_used(prompt: int, output: int, used: int, made: int, cached: int) -> None:
    """Whatever was estimated, after the settlement a bucket has lost exactly what the upstream counted."""
    charges = charge(BUCKETS, prompt, output)
    net = {c.bucket.name: c.cost - g.amount for c, g in zip(charges, settle(charges, Usage(used, made, cached)), strict=True)}  # fmt: skip # noqa: E501
    counted = max(0, used - cached)
    assert net == {
        "rpm": 1, "rpd": 1, "tpm": counted + made, "tpd": counted + made, "itpm": counted, "otpm": made,
    }  # fmt: skip


def limits(**given: int) -> Limits:
    """Set some limits."""
    return Limits(**dict.fromkeys(NAMES) | given)


def test_a_limit_that_is_not_set_has_no_bucket() -> None:
    """Only what the plan names is counted."""
    found = buckets_of(Keys("ns"), "org", "m", limits(rpm=30, tpd=500_000))
    assert [(b.name, b.capacity, b.period_ms) for b in found] == [("rpm", 30, 60_000), ("tpd", 500_000, 86_400_000)]
    assert buckets_of(Keys("ns"), "org", "m", limits()) == ()


def test_every_limit_has_a_bucket_of_its_own() -> None:
    """Organisations, models, kinds, amounts and namespaces never share one; the same limit always has the same."""
    keys = [
        bucket.key
        for namespace, org, model, amount in [("a", "o", "m", 5), ("b", "o", "m", 5), ("a", "p", "m", 5),
                                              ("a", "o", "n/m", 5), ("a", "o", "m", 6)]
        for bucket in buckets_of(Keys(namespace), org, model, limits(**dict.fromkeys(NAMES, amount)))
    ]  # fmt: skip
    assert len(set(keys)) == len(keys) == 5 * len(NAMES)
    assert {family(key.partition(":")[2]) for key in keys} == {"bucket"}
    again = buckets_of(Keys("a"), "o", "m", limits(rpm=5))
    assert again == buckets_of(Keys("a"), "o", "m", limits(rpm=5))


@pytest.mark.parametrize("plan", ["free", "developer"])
def test_every_shipped_limit_makes_a_bucket(plan: str) -> None:
    """Each model's limits of each plan are positive and have a window."""
    registry = load_registry()
    for model in registry.models.values():
        found = model.limits.get(plan)
        for bucket in buckets_of(Keys("ns"), "org", model.id, found) if found else ():
            assert bucket.capacity > 0
            assert bucket.period_ms in {60_000, 86_400_000}
