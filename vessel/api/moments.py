"""Times in requests: spans from now, and ISO 8601."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from vessel.errors import InvalidRequest
from vessel.wire import parse_duration_s

MOMENT: dict[str, Any] = {
    "json_schema_extra": {
        "pattern": "^([1-9][0-9]?[smhd]|20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
        "(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z)?)$"
    }
}
"""What OpenAPI says of them: less than what is taken, and enough to write one."""


def epoch_ms(name: str, text: str, now_ms: int, *, ahead: bool = False) -> int:
    """Read `2h` (ago; with `ahead` from now) or ISO 8601, in UTC unless it names a zone, as epoch ms of Redis' clock.

    Raises InvalidRequest.
    """
    try:
        span = int(parse_duration_s(text) * 1000)
    except ValueError:
        pass
    else:
        return now_ms + span if ahead else max(0, now_ms - span)
    try:
        found = datetime.fromisoformat(text)
        return max(0, int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        raise InvalidRequest(
            f"{name}: it must be a span like 2h or a time like 2026-11-28T06:00:00Z.", param=name
        ) from None
