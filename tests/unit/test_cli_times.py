"""Times on the command line: read in the local zone, written for people."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from vessel.cli import times
from vessel.cli.faults import BadUse
from vessel.client.looking import _epoch_ms
from vessel.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = int(datetime(2026, 11, 27, 15, 0, tzinfo=UTC).timestamp() * 1000)  # 17:00 in Oradea
MINUTE_MS, HOUR_MS = 60_000, 3_600_000


@pytest.fixture(autouse=True)
def in_oradea(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the process a local zone of its own, two hours before UTC in winter."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Bucharest")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "ahead_ms"),
    [
        ("2h", 2 * HOUR_MS),
        ("90m", 90 * MINUTE_MS),
        ("1h30m", 90 * MINUTE_MS),
        ("18:30", 90 * MINUTE_MS),
        ("8:05", 15 * HOUR_MS + 5 * MINUTE_MS),  # tomorrow
        ("17:00", 24 * HOUR_MS),
        ("2026-11-27T18:30", 90 * MINUTE_MS),
        ("2026-11-27 18:30:00", 90 * MINUTE_MS),
        ("2026-11-27T16:30Z", 90 * MINUTE_MS),
        ("2026-11-27T16:30+00:00", 90 * MINUTE_MS),
        (" 2026-11-28 ", 7 * HOUR_MS),
    ],
)
def test_an_end_is_read(text: str, ahead_ms: int) -> None:
    """A span, a time of day that comes next, or a date; local where no zone is named."""
    assert times.parse_until(text, NOW) - NOW == ahead_ms


@pytest.mark.parametrize("text", ["", "90", "soon", "25:00", "18:60", "-2h", "0m", "2027-13-01", "18:30 tomorrow"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    """A bare number could be seconds or a year."""
    with pytest.raises(BadUse, match=r"is no time\. Nothing was changed\..*18:30"):
        times.parse_until(text, NOW)


@pytest.mark.parametrize("text", ["2026-11-27T16:59", "2020-01-01", "0001-01-02", "2026-11-27T15:00Z"])
def test_a_time_that_is_over_is_refused(text: str) -> None:
    """The text names what time it is now."""
    with pytest.raises(BadUse, match=r"is over; it is 17:00 EET|is no time"):
        times.parse_until(text, NOW)


@pytest.mark.parametrize("text", ["2028-01-01", "9999-12-31"])
def test_a_time_more_than_a_year_ahead_is_refused(text: str) -> None:
    """It is more likely a slip of the pen."""
    with pytest.raises(BadUse, match=r"366 days|is no time"):
        times.parse_until(text, NOW)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (-3, "0 s"), (0.31, "0.4 s"), (9.99, "10 s"), (45, "45 s"), (59.2, "1 min"), (90, "1 min 30 s"),
        (599, "9 min 59 s"), (601, "11 min"), (3599, "1 h"), (11_520, "3 h 12 min"), (86_400, "24 h"),
        (90_000, "1 d 1 h"), (200_000, "2 d 8 h"),
    ],
)  # fmt: skip
def test_a_span_has_two_units_at_most_and_is_rounded_up(seconds: float, text: str) -> None:
    """Who comes back after it does not come too early."""
    assert times.span(seconds) == text


def test_a_moment_names_its_date_only_when_it_is_not_today() -> None:
    """And how far it is off, with seconds when that is near; the zone is named always."""
    assert times.until(NOW + 72 * MINUTE_MS, NOW) == "18:12 EET (in 1 h 12 min)"
    assert times.until(NOW + 12_000, NOW) == "17:00:12 EET (in 12 s)"
    assert times.until(NOW + 8 * HOUR_MS, NOW) == "28 Nov 01:00 EET (in 8 h)"
    assert times.until(NOW - 1000, NOW) == "16:59:59 EET (now)"


def test_a_moment_of_the_past_has_its_date_and_its_zone() -> None:
    """Also that of the season in which it was."""
    assert times.stamp(NOW + 5_250) == "2026-11-27 17:00:05 EET"
    assert times.exact(NOW + 5_250) == "2026-11-27 17:00:05.250 EET"
    assert times.stamp(NOW - 150 * 24 * HOUR_MS) == "2026-06-30 18:00:00 EEST"
    assert times.stamp(0) is times.stamp(None) is None


@pytest.mark.parametrize("since", ["0001-01-01", timedelta.max, "never"])
def test_a_time_that_no_clock_can_show_is_told_as_that(since: str | timedelta) -> None:
    """`vessel jobs --since` takes a date that a calendar has and the zone's clock has not."""
    with pytest.raises(InvalidRequest, match="since: it must be an age"):
        _epoch_ms(since)
