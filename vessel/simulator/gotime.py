"""Durations as Go writes them (`time.Duration.String`): Groq's headers and refusals use nothing else."""

from __future__ import annotations

SECOND_NS = 1_000_000_000
_SMALL_UNITS = ((1_000_000, "ms"), (1_000, "µs"), (1, "ns"))


def go_duration(nanoseconds: int) -> str:
    """Write a duration: `0s`, `450ms`, `7.66s`, `2m59.56s`, `17h57m7.2s`."""
    if nanoseconds <= 0:
        return "0s"
    if nanoseconds < SECOND_NS:
        size, unit = next(small for small in _SMALL_UNITS if nanoseconds >= small[0])
        return _decimal(nanoseconds, size) + unit
    minutes, rest = divmod(nanoseconds, 60 * SECOND_NS)
    hours, minutes = divmod(minutes, 60)
    seconds = _decimal(rest, SECOND_NS) + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    if not part:
        return str(whole)
    return f"{whole}.{str(part).zfill(len(str(size)) - 1).rstrip('0')}"
