"""Spend caps by day and month, of one tenant or of the whole vessel, as the gate keeps them (lua/include/budget.lua).

Amounts are whole nano-USD; days and months are those of UTC, times epoch milliseconds of Redis' clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE = "*"
"""Stands for everybody in the place of a tenant."""

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Cap:
    """What may be spent in the current day or month, what is spent or reserved of it, and when the next one begins."""

    cap: int
    spent: int
    ends: int

    @property
    def left(self) -> int:
        """Return what may still be spent."""
        return max(0, self.cap - self.spent)


@dataclass(frozen=True, slots=True)
class Budget:
    """The caps of a tenant, or of all (`tenant` None); spending is counted since the first of them was set."""

    tenant: str | None
    since: int
    day: Cap | None = None
    month: Cap | None = None

    def short_of(self, nano_usd: int) -> tuple[str, Cap] | None:
        """Return which cap a call of this worst case would pass, month before day."""
        for name, cap in (("month", self.month), ("day", self.day)):
            if cap is not None and cap.spent + nano_usd > cap.cap:
                return name, cap
        return None


def read_budget(tenant: str, raw: Mapping[str, bytes], now_ms: int) -> Budget | None:
    """Read a cap's hash as of a time; None where no cap is set."""
    today = datetime.fromtimestamp(now_ms / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    next_month = (today.replace(day=1) + timedelta(days=32)).replace(day=1)
    day = _cap(raw, "day", now_ms // _DAY_MS, today + timedelta(days=1))
    month = _cap(raw, "month", today.year * 12 + today.month, next_month)
    if day is None and month is None:
        return None
    return Budget(None if tenant == WHOLE else tenant, int(raw.get("since", b"0")), day, month)


def _cap(raw: Mapping[str, bytes], name: str, current: int, ends: datetime) -> Cap | None:
    cap = raw.get(f"{name}_cap")
    if cap is None:
        return None
    counted = raw.get(name)
    is_current = counted is not None and int(float(counted)) == current
    spent = int(float(raw.get(f"{name}_nano", b"0"))) if is_current else 0
    return Cap(int(float(cap)), spent, int(ends.timestamp() * 1000))
