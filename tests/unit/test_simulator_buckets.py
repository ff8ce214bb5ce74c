"""The simulator's limits: continuous buckets, and the exact texts and figures that were seen of Groq."""

from __future__ import annotations

import pytest

from vessel.simulator.buckets import Charge, Gate, Refusal
from vessel.simulator.gotime import SECOND_NS, go_duration
from vessel.simulator.plans import Limits, limits_of

NOW = 1_795_478_400.0
ORG = "org_01j5b4pz9jff492fq686vypsx6"


def refuse(gate: Gate, charge: Charge, now: float = NOW) -> Refusal:
    """Send a charge that must be refused."""
    refusal = gate.admit(charge, now)
    assert refusal is not None
    return refusal


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (-5, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (450_000_000, "450ms"),
        (172_800_000, "172.8ms"),
        (1_984_999_999, "1.984999999s"),
        (2_000_000_000, "2s"),
        (7_660_000_000, "7.66s"),
        (60_363_142_857, "1m0.363142857s"),
        (86_400_000_000, "1m26.4s"),
        (179_560_000_000, "2m59.56s"),
        (3600 * SECOND_NS, "1h0m0s"),
        (64_627_200_000_000, "17h57m7.2s"),
    ],
)
def test_durations_are_written_as_go_writes_them(nanoseconds: int, text: str) -> None:
    """Every unit and fraction comes out as time.Duration's."""
    assert go_duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("name", "limit", "used", "requested", "wait", "retry_after"),
    [
        ("tpm", 6000, 5034, 1443, "4.77s", 5),
        ("tpm", 12000, 4437, 9854, "11.455s", 12),
        ("tpd", 100_000, 97_050, 3_619, "9m38.016s", 579),
        ("rpd", 1000, 1000, 1, "1m26.4s", 87),
        ("otpm", 1000, 72, 981, "3.18s", 4),
        ("rpm", 30, 30, 1, "2s", 2),
    ],
)
def test_a_wait_is_what_is_over_times_the_window(
    name: str, limit: int, used: int, requested: int, wait: str, retry_after: int
) -> None:
    """Texts seen of Groq give the same waits: (Used + Requested - Limit) / Limit x window."""
    gate = Gate(Limits(**{name: limit}), NOW)
    gate.buckets[name].used = used
    charge = Charge(0, requested)
    refusal = refuse(gate, charge)
    assert (refusal.status, refusal.used, refusal.requested) == (429, used, requested)
    assert f"Please try again in {wait}. " in refusal.text("m", ORG, "on_demand")
    assert refusal.retry_after_s == retry_after


def test_the_429_is_groqs_own_text() -> None:
    """The text of a seen refusal comes out letter by letter."""
    gate = Gate(Limits(tpm=6000), NOW)
    gate.buckets["tpm"].used = 5034
    refusal = refuse(gate, Charge(443, 1000))
    assert refusal.text("llama-3.1-8b-instant", ORG, "on_demand") == (
        f"Rate limit reached for model `llama-3.1-8b-instant` in organization `{ORG}` service tier `on_demand` "
        "on tokens per minute (TPM): Limit 6000, Used 5034, Requested 1443. Please try again in 4.77s. "
        "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
    )
    assert refusal.type == "tokens"


def test_the_413_offers_no_wait() -> None:
    """A request above the limit is too large, whatever is free."""
    refusal = refuse(Gate(Limits(tpm=8000), NOW), Charge(31, 34000))
    assert refusal.status == 413
    assert refusal.text("openai/gpt-oss-120b", ORG, "on_demand") == (
        f"Request too large for model `openai/gpt-oss-120b` in organization `{ORG}` service tier `on_demand` "
        "on tokens per minute (TPM): Limit 8000, Requested 34031, please reduce your message size and try again. "
        "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
    )


def test_the_413_of_output_tokens_has_its_own_cure() -> None:
    """The output limit's text speaks of max_tokens."""
    refusal = refuse(Gate(Limits(otpm=1000, tpm=250_000), NOW), Charge(5, 1295))
    text = refusal.text("qwen/qwen3.8-27b", ORG, "on_demand")
    assert refusal.status == 413
    assert "output tokens per minute (OTPM): Limit 1000, Requested 1295. The request's expected output tokens" in text
    assert "exceed the enforced limit; reduce max_tokens" in text


def test_a_bucket_drains_continuously() -> None:
    """What was used comes back with every moment, not at the turn of a minute."""
    gate = Gate(Limits(tpm=6000), NOW)
    assert gate.admit(Charge(3000, 3000), NOW) is None
    assert refuse(gate, Charge(1, 99), NOW + 0.5).used == 5950
    assert gate.admit(Charge(1, 99), NOW + 1.0) is None
    assert refuse(gate, Charge(1, 0), NOW + 1.0).wait_ns == 10_000_000


@pytest.mark.parametrize("limit", [1, 7, 30, 1000, 6000, 14_400, 250_000, 9_999_991])
def test_who_waits_as_told_is_admitted(limit: int) -> None:
    """After exactly the named wait the same request fits."""
    gate = Gate(Limits(tpm=limit, tpd=limit * 3), NOW)
    charge = Charge(1, limit - 1)
    now = NOW
    for _ in range(5):
        while (refusal := gate.admit(charge, now)) is not None:
            assert refusal.wait_ns is not None
            now += refusal.wait_ns / SECOND_NS
            again = gate.admit(charge, now)
            assert again is None or again.limit_name != refusal.limit_name
            if again is None:
                break


def test_a_refusal_costs_nothing() -> None:
    """All limits are charged or none: a refused request leaves no trace."""
    gate = Gate(Limits(rpm=10, rpd=10, tpm=100), NOW)
    assert gate.admit(Charge(50, 40), NOW) is None
    before = gate.used(NOW)
    for _ in range(20):
        assert refuse(gate, Charge(10, 10)).limit_name == "tpm"
    assert gate.used(NOW) == before


def test_requests_run_out_before_tokens() -> None:
    """Requests per minute are a limit of their own, named as such."""
    gate = Gate(Limits(rpm=2, tpm=1_000_000), NOW)
    assert gate.admit(Charge(1, 1), NOW) is None
    assert gate.admit(Charge(1, 1), NOW) is None
    refusal = refuse(gate, Charge(1, 1))
    assert (refusal.limit_name, refusal.type, refusal.wait_ns) == ("rpm", "requests", 30 * SECOND_NS)
    assert "on requests per minute (RPM): Limit 2, Used 2, Requested 1. Please try again in 30s." in refusal.text(
        "m", ORG, "on_demand"
    )


def test_unused_output_comes_back() -> None:
    """Only what was generated stays charged; the prompt always does."""
    gate = Gate(Limits(tpm=1000, tpd=5000, otpm=900, rpd=10), NOW)
    charge = Charge(100, 800)
    assert gate.admit(charge, NOW) is None
    gate.settle(charge, output=50, cached=0, now=NOW)
    used = {name: bucket["used"] for name, bucket in gate.used(NOW).items()}
    assert used == {"rpd": 1, "tpm": 150, "tpd": 150, "otpm": 50}


def test_cached_tokens_come_back_after_the_work() -> None:
    """Tokens from the cache do not count, but are reserved until the answer is done."""
    gate = Gate(Limits(tpm=3000, otpm=100), NOW)
    charge = Charge(2000, 100)
    assert gate.admit(charge, NOW) is None
    assert refuse(gate, Charge(2000, 100)).limit_name == "tpm"
    gate.settle(charge, output=100, cached=1920, now=NOW)
    assert gate.used(NOW)["tpm"]["used"] == 180
    assert gate.used(NOW)["otpm"]["used"] == 100


def test_a_refund_never_makes_credit() -> None:
    """What has drained since is not given back twice."""
    gate = Gate(Limits(tpm=1000), NOW)
    charge = Charge(100, 900)
    assert gate.admit(charge, NOW) is None
    gate.settle(charge, output=0, cached=0, now=NOW + 59)
    assert gate.used(NOW + 59)["tpm"]["used"] == 0


def test_output_beyond_the_reservation_is_charged() -> None:
    """A caller without a bound may get more than was reserved, and pays for it."""
    gate = Gate(Limits(tpm=10_000), NOW)
    charge = Charge(10, 1024)
    assert gate.admit(charge, NOW) is None
    gate.settle(charge, output=3000, cached=0, now=NOW)
    assert gate.used(NOW)["tpm"]["used"] == 3010


def test_headers_speak_of_requests_a_day_and_tokens_a_minute() -> None:
    """The headers seen on an answer after 157 tokens of 6000 and one request of 14400."""
    gate = Gate(Limits(rpm=30, rpd=14_400, tpm=6000, tpd=500_000), NOW)
    assert gate.admit(Charge(100, 57), NOW) is None
    assert gate.headers(NOW) == [
        (b"x-ratelimit-limit-requests", b"14400"),
        (b"x-ratelimit-remaining-requests", b"14399"),
        (b"x-ratelimit-reset-requests", b"6s"),
        (b"x-ratelimit-limit-tokens", b"6000"),
        (b"x-ratelimit-remaining-tokens", b"5843"),
        (b"x-ratelimit-reset-tokens", b"1.57s"),
    ]


def test_changed_limits_keep_what_is_used() -> None:
    """An operator's change of a limit is no refill."""
    gate = Gate(Limits(tpm=1000, rpm=5), NOW)
    assert gate.admit(Charge(400, 200), NOW) is None
    gate.change(Limits(tpm=700, otpm=100), NOW)
    assert gate.used(NOW) == {"tpm": {"limit": 700, "used": 600}, "otpm": {"limit": 100, "used": 0}}


@pytest.mark.parametrize("wrong", [{"rpx": 1}, {"tpm": 0}, {"tpm": True}, {"tpm": 1.5}])
def test_limits_that_are_none_are_rejected(wrong: dict[str, int]) -> None:
    """Unknown names and figures below one are errors, not silence."""
    with pytest.raises(ValueError, match=r"unknown limits|whole number"):
        Limits().changed(wrong)


def test_plans_differ() -> None:
    """The two plans have the published figures."""
    assert limits_of("free", "openai/gpt-oss-120b") == Limits(30, 1000, 8000, 200_000)
    developer = limits_of("developer", "openai/gpt-oss-120b")
    assert (developer.rpm, developer.tpm, developer.tpd) == (1000, 250_000, None)
    assert limits_of("developer", "groq/compound").tpm == 200_000
