"""Groq's durations, rate headers and limit texts (groq-facts 1.7, 1.8)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.upstream.headers import LONGEST_WAIT_S, parse_go_duration, parse_limit_text, rate_headers
from vessel.upstream.outcome import RateHeaders

REACHED = (
    "Rate limit reached for model `M` in organization `org_1` service tier `on_demand` on tokens per minute (TPM): "
    "Limit 6000, Used 5034, Requested 1443. Please try again in 4.77s. Need more tokens? Upgrade to Dev Tier today."
)
TOO_LARGE = (
    "Request too large for model `M` in organization `O` service tier `on_demand` on tokens per minute (TPM): "
    "Limit 8000, Requested 34031, please reduce your message size and try again. Need more tokens?"
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("450ms", 0.45),
        ("7.66s", 7.66),
        ("2m59.56s", 179.56),
        ("1m0.363142857s", 60.363142857),
        ("17h57m7.2s", 64627.2),
        ("1.984999999s", 1.984999999),
        ("120us", 0.00012),
        ("120\u00b5s", 0.00012),
        ("0", 0.0),
        ("0s", 0.0),
        (" 6s ", 6.0),
        ("-3s", 0.0),
    ],
)
def test_go_durations_are_read_as_seconds(text: str, seconds: float) -> None:
    """Every unit and every shape seen in a header or a text is understood."""
    assert parse_go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "6", "s", "1x", "1s2", "1 s", "one", "1e9s", "\u0661s", "9" * 400 + "h", "1s" * 500]
)
def test_what_is_no_duration_is_none(text: str) -> None:
    """A duration that Go would not write is not guessed at."""
    assert parse_go_duration(text) is None


def test_rate_headers_are_read_whole() -> None:
    """Requests are those of a day, tokens those of a minute, and retry-after is kept beside them."""
    headers = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-limit-tokens": "18000",
        "x-ratelimit-remaining-tokens": "17997",
        "x-ratelimit-reset-tokens": "7.66s",
        "retry-after": "2",
    }
    assert rate_headers(headers) == RateHeaders(14400, 14370, 179.56, 18000, 17997, 7.66, 2.0)


def test_missing_and_broken_rate_headers_are_none() -> None:
    """Garbage is the same as nothing, and a count below zero is zero."""
    broken = {
        "x-ratelimit-limit-requests": "many",
        "x-ratelimit-remaining-requests": "-3",
        "x-ratelimit-reset-requests": "soon",
        "x-ratelimit-limit-tokens": "9" * 40,
        "x-ratelimit-reset-tokens": "-5s",
        "retry-after": "later",
    }
    assert rate_headers({}) == RateHeaders()
    assert rate_headers(broken) == RateHeaders(remaining_requests=0, reset_tokens_s=0.0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2.0),
        ("0", 0.0),
        ("-1", 0.0),
        ("1.5", 1.5),
        ("1e9", LONGEST_WAIT_S),
        ("1000000000", LONGEST_WAIT_S),
        ("nan", None),
        ("inf", None),
        ("1_000", None),
        ("", None),
        ("Mon, 99 Foo 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_bounded(value: str, seconds: float | None) -> None:
    """No header can make a job wait below zero, for ever, or for something that is no number."""
    assert rate_headers({"retry-after": value}).retry_after_s == seconds


def test_retry_after_as_a_date_is_measured_on_the_servers_clock() -> None:
    """The answer's own `date` counts, so that a wrong clock here changes nothing."""
    headers = {"date": "Wed, 21 Oct 2026 07:28:00 GMT", "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}
    assert rate_headers(headers).retry_after_s == 30.0
    assert rate_headers({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}).retry_after_s == 0.0


def test_retry_after_as_a_date_without_the_servers_clock_uses_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer without a `date` leaves nothing better than the local time."""
    monkeypatch.setattr(time, "time", lambda: 1445412450.0)
    assert rate_headers({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}).retry_after_s == 30.0


def test_the_limit_text_of_a_429_is_read() -> None:
    """Name, numbers and wait come out of the real text."""
    assert parse_limit_text(REACHED) == ("tpm", 6000, 5034, 1443, 4.77)


def test_the_limit_text_of_a_413_has_no_wait() -> None:
    """A request above the limit is never told to come back."""
    assert parse_limit_text(TOO_LARGE) == ("tpm", 8000, None, 34031, None)


@pytest.mark.parametrize(
    ("name", "numbers", "wait"),
    [
        ("tokens per day (TPD)", "Limit 100000, Used 97050, Requested 3619", 578.016),
        ("requests per day (RPD)", "Limit 1000, Used 1000, Requested 1", 86.4),
        ("output tokens per minute (OTPM)", "Limit 1000, Used 72, Requested 981", 3.18),
        ("requests per minute", "Limit 30, Used 30, Requested 1", 2.0),
        ("tokens per minute (TPM)", "Limit 12000, Used 4437, Requested 9854", 11.455),
        ("tokens per minute (TPM)", "Limit 12,000, Used 0, Requested 1", 0.0),
    ],
)
def test_a_missing_wait_is_computed_as_groq_does(name: str, numbers: str, wait: float) -> None:
    """Limits are buckets that refill continuously, so the wait follows from the three numbers."""
    found = parse_limit_text(f"Rate limit reached for model `M` on {name}: {numbers}.")
    assert found is not None
    assert found.wait_s == pytest.approx(wait)


def test_a_limit_text_without_its_unit_still_gives_the_numbers() -> None:
    """One text of 2024 lacks the unit; what is there is used."""
    found = parse_limit_text("Rate limit reached on : Limit 500000, Used 500000, Requested 10. Visit https://x")
    assert found == (None, 500000, 500000, 10, None)


@pytest.mark.parametrize("text", ["", "Invalid API Key", "<html>", "Limit reached", "try again in a while"])
def test_other_texts_speak_of_no_limit(text: str) -> None:
    """A text that names neither a limit nor a wait gives nothing."""
    assert parse_limit_text(text) is None


@given(st.text(max_size=300), st.text(max_size=60))
def test_no_text_breaks_the_readers(text: str, header: str) -> None:
    """Whatever the upstream sends, reading it never raises and never gives a wait out of bounds."""
    found = parse_limit_text(f"Limit 10 {text} try again in {header}")
    assert found is not None
    assert found.wait_s is None or 0 <= found.wait_s <= LONGEST_WAIT_S
    read = rate_headers({"retry-after": header, "x-ratelimit-reset-tokens": text, "x-ratelimit-limit-tokens": header})
    assert read.retry_after_s is None or 0 <= read.retry_after_s <= LONGEST_WAIT_S
    assert parse_go_duration(text) is None or parse_go_duration(text) is not None
