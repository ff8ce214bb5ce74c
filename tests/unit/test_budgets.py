"""Spend caps as the gate's hash tells them: what counts is the current day and month of UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from vessel.usage.budgets import Cap, read_budget


def ms(text: str) -> int:
    """Read a time as epoch milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = ms("2026-12-31T22:00:00")
DAY = NOW // 86_400_000
MONTH = 2026 * 12 + 12
RECORD = {"since": b"7", "day_cap": b"100", "month_cap": b"1000", "day_nano": b"60", "month_nano": b"990"}


def current(day: int = DAY, month: int = MONTH) -> dict[str, bytes]:
    """Make a record whose counters are of a day and a month."""
    return RECORD | {"day": str(day).encode(), "month": str(month).encode()}


def test_a_day_ends_at_midnight_and_a_month_on_its_last() -> None:
    """Both are those of UTC, over the end of a year too."""
    found = read_budget("acme", current(), NOW)
    assert found is not None
    assert (found.tenant, found.since) == ("acme", 7)
    assert found.day == Cap(100, 60, ms("2027-01-01T00:00:00"))
    assert found.month == Cap(1000, 990, ms("2027-01-01T00:00:00"))


@pytest.mark.parametrize(("day", "month", "spent"), [(DAY - 1, MONTH, (0, 990)), (DAY, MONTH - 1, (60, 0))])
def test_what_was_spent_before_does_not_count(day: int, month: int, spent: tuple[int, int]) -> None:
    """The counters of yesterday and last month stand there until the next call is charged."""
    found = read_budget("*", current(day, month), NOW)
    assert found is not None
    assert found.tenant is None
    assert found.day is not None
    assert found.month is not None
    assert (found.day.spent, found.month.spent) == spent


def test_the_cap_that_is_short_is_named() -> None:
    """Month before day, as the gate asks; exactly the cap still fits."""
    found = read_budget("*", current(), NOW)
    assert found is not None
    assert found.short_of(10) is None
    short = found.short_of(11)
    assert short is not None
    assert short[0] == "month"
    assert short[1].left == 10


def test_no_cap_is_no_budget() -> None:
    """Neither an empty hash nor counters alone."""
    assert read_budget("*", {}, NOW) is None
    assert read_budget("*", {"day": b"1", "day_nano": b"5"}, NOW) is None
