"""How times of Redis' clock are written: for programs in UTC, for people in their zone."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(epoch_ms: int | None) -> str | None:
    """Write epoch milliseconds as ISO 8601 in UTC; None and 0 stand for no time."""
    if not epoch_ms:
        return None
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local(epoch_ms: int) -> str:
    """Write epoch milliseconds for people: in the zone of this process, which is named, to the second."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
