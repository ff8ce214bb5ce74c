"""Spend caps by day and month, of one tenant or of the whole vessel, as the gate keeps them (lua/include/budget.lua).

Amounts are whole nano-USD; days and months are those of UTC, times epoch milliseconds of Redis' clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING, Any

from vessel.errors import InvalidRequest
from vessel.keyspace.script import Call, command, pairs, word
from vessel.wire import MOST_COST_USD

if TYPE_CHECKING:
    from collections.abc import Mapping

WHOLE = "*"
"""Stands for everybody in the place of a tenant."""

WARNED_AT = 80
"""Percent of a cap at which its warning is given (lua/include/budget.lua)."""

LEAST_USD = Decimal("0.000000001")
_DAY_MS = 86_400_000
_NANO = 9


@dataclass(frozen=True, slots=True)
class Cap:
    """What may be spent in the current day or month, what is spent or reserved of it, and when the next one begins."""

    cap: int
    spent: int
    ends: int
    warned_at: int = 0
    """When 80 % of it were used, 0 where they are not yet; the same of all of it, when it first held a job:"""
    full_at: int = 0

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
    held: int = 0
    """How often a job was told to wait for a cap of it, since it was set."""

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
    since, held = (int(raw.get(name, b"0")) for name in ("since", "held"))
    return Budget(None if tenant == WHOLE else tenant, since, day, month, held)


def _cap(raw: Mapping[str, bytes], name: str, current: int, ends: datetime) -> Cap | None:
    cap = raw.get(f"{name}_cap")
    if cap is None:
        return None
    counted = raw.get(name)
    is_current = counted is not None and int(float(counted)) == current
    spent = int(float(raw.get(f"{name}_nano", b"0"))) if is_current else 0
    warned, full = (
        int(raw.get(f"{name}_{what}_at", b"0")) if raw.get(f"{name}_{what}") == str(current).encode() else 0
        for what in ("warned", "full")
    )
    return Cap(int(float(cap)), spent, int(ends.timestamp() * 1000), warned, full)


def cap_nano(name: str, usd: Decimal, rest: str) -> int:
    """Return a cap in whole nano-USD, rounded down, since what is spent may never pass it.

    Raises InvalidRequest for what is below a nano-USD, above a million USD, or no number; `rest` ends its text.
    """
    if not (usd.is_finite() and LEAST_USD <= usd <= MOST_COST_USD):
        text = f"{name}: a cap is an amount above 0, from {LEAST_USD:f} to {MOST_COST_USD:,} USD."
        raise InvalidRequest(f"{text} {rest}", param=name)
    return int(usd.scaleb(_NANO).to_integral_value(ROUND_FLOOR))


@dataclass(frozen=True, slots=True)
class SpendEvent:
    """A cap that is nearly (`warned`) or wholly (`full`) used: of a tenant, of all (tenant None), or of a batch."""

    id: str
    event: str
    cap: str
    tenant: str | None
    batch: str
    spent_nano: int
    cap_nano: int
    at: int


def spend_events(stream: str, after: str = "", count: int = 100) -> Call[list[SpendEvent]]:
    """Read what was told of caps after an entry, oldest first."""

    def parse(raw: Any) -> list[SpendEvent]:
        return [_spend_event(word(entry), pairs(fields)) for entry, fields in raw]

    return command("XRANGE", stream, f"({after}" if after else "-", "+", "COUNT", count, parse=parse)


def _spend_event(entry: str, fields: Mapping[str, bytes]) -> SpendEvent:
    tenant = fields["tenant"].decode()
    numbers = (int(fields[name]) for name in ("spent_nano", "cap_nano", "at"))
    return SpendEvent(entry, fields["event"].decode(), fields["cap"].decode(), None if tenant == WHOLE else tenant,
                      fields["batch"].decode(), *numbers)  # fmt: skip
