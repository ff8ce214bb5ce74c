"""Times as people write and read them: in the local time zone, which is named, and as spans.

Programs get ISO 8601 in UTC (`observe.moments`); days and months of money are those of UTC and say so.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta

from vessel.cli.faults import BadUse
from vessel.observe.moments import local
from vessel.wire import LONGEST_S, parse_duration_s

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_WHOLE_SECONDS, _NEAR = 10, 600
"""Above so many seconds tenths are not told, and seconds are not."""


def parse_until(text: str, now_ms: int, *, option: str = "--until") -> int:
    """Read `2h`, `18:30` (the next one, local time) or ISO 8601 (local unless it names a zone) as epoch ms.

    Raises BadUse for anything else, for what is over, and for more than 366 days.
    """
    until = _read(text.strip(), _local(now_ms))
    if until is None:
        raise BadUse(
            f"{option}: {text[:40]!r} is no time. Nothing was changed. Write a span like 2h or 90m, a time of day like "
            "18:30, or a date and time like 2026-11-28T06:00.",
            param=option,
        )
    at = int(until.timestamp() * 1000)
    if at <= now_ms:
        told = until.astimezone().strftime("%Y-%m-%d %H:%M %Z")
        raise BadUse(
            f"{option}: {told} is over; it is {clock(now_ms)}. Nothing was changed. Name a later time.", param=option
        )
    if at - now_ms > LONGEST_S * 1000:
        raise BadUse(f"{option}: it lies more than 366 days ahead. Nothing was changed. Leave it out for an open end.",
                     param=option)  # fmt: skip
    return at


def _read(text: str, now: datetime) -> datetime | None:
    found = _CLOCK.fullmatch(text)
    if found:
        hour, minute = int(found[1]), int(found[2])
        days = (now.date() + timedelta(days=ahead) for ahead in range(2))
        at = [datetime(d.year, d.month, d.day, hour, minute).astimezone() for d in days]
        return next((one for one in at if one > now), at[-1])
    if re.search(r"[a-z]", text):  # a number alone could be a year or seconds
        try:
            return now + timedelta(seconds=parse_duration_s(text))
        except ValueError:
            pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def span(seconds: float) -> str:
    """Write a span in at most two units: `0.4 s`, `45 s`, `12 min`, `3 h 12 min`, `2 d 4 h`; rounded up."""
    if seconds < _WHOLE_SECONDS:
        tenths = math.ceil(max(0.0, seconds) * 10) / 10
        return f"{tenths:.1f} s" if tenths % 1 else f"{tenths:.0f} s"
    left = math.ceil(seconds)
    if left < _MINUTE:
        return f"{left} s"
    if left < _NEAR:
        return _two(left, _MINUTE, "min", "s")
    if left <= _DAY:
        minutes = math.ceil(left / _MINUTE)
        return f"{minutes} min" if minutes < _MINUTE else _two(minutes, 60, "h", "min")
    return _two(math.ceil(left / _HOUR), 24, "d", "h")


def _two(amount: int, size: int, unit: str, smaller: str) -> str:
    whole, rest = divmod(amount, size)
    return f"{whole} {unit}" + (f" {rest} {smaller}" if rest else "")


def clock(at_ms: int, now_ms: int | None = None) -> str:
    """Write a time of day in the local zone, with its date where that is not today's: `18:30 EET`."""
    at = _local(at_ms)
    today = now_ms is None or _local(now_ms).date() == at.date()
    return at.strftime("%H:%M %Z") if today else f"{at.day} {at.strftime('%b %H:%M %Z')}"


def second(at_ms: int) -> str:
    """Write a time of day in the local zone, to the second: `18:30:05 EET`."""
    return _local(at_ms).strftime("%H:%M:%S %Z")


def stamp(at_ms: int | None) -> str | None:
    """Write a date and a time in the local zone, to the second: `2026-11-27 18:30:05 EET`; None and 0 are no time."""
    return local(at_ms) if at_ms else None


def exact(at_ms: int) -> str:
    """Write a date and a time in the local zone, to the millisecond."""
    at = _local(at_ms)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03} {at:%Z}"


def until(at_ms: int, now_ms: int) -> str:
    """Write a time to come with how far it is off: `18:30 EET (in 12 min)`; seconds are told when it is near."""
    left = (at_ms - now_ms) / 1000
    told = second(at_ms) if left < _NEAR else clock(at_ms, now_ms)
    return f"{told} (in {span(left)})" if left > 0 else f"{told} (now)"


def _local(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone()
