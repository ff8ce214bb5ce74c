"""What was spent today and how fast work is done, out of the ledger's newest entries, read once for all viewers.

The first look of a day begins at midnight (UTC) and goes on in pages; after that each look reads what was added since
the one before. An entry that amends another takes the other's amounts back.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.client.steps import Steps, run
from vessel.observe.moments import moment
from vessel.usage.log import PAGE, entries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.usage.log import Entry

DAY_MS, BUCKET_MS, SECOND_MS = 86_400_000, 900_000, 1000
PAGES_AT_ONCE = 2
PICO = 10**12
TRACE = 30
"""Minutes of a tier's throughput that are told."""


@dataclass(slots=True)
class Spent:
    """What calls took; money in 10^-12 USD, so that no sum depends on rounding."""

    calls: int = 0
    unknown: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    pico_usd: int = 0

    def add(self, other: Spent, sign: int = 1) -> None:
        """Add, or with -1 take away."""
        for name in Spent.__slots__:
            setattr(self, name, getattr(self, name) + sign * getattr(other, name))


@dataclass(frozen=True, slots=True)
class Row:
    """One entry's place in the sums."""

    at: int
    tenant: str
    model: str
    tier: str
    spent: Spent


@dataclass(slots=True)
class Spending:
    """The sums of the current day by tenant, model and quarter of an hour, and the calls of each tier lately."""

    ledger: str
    day: int = -1
    after: str = ""
    complete: bool = False
    sums: dict[tuple[str, str, int], Spent] = field(default_factory=dict)
    seconds: Counter[tuple[str, int]] = field(default_factory=Counter)
    minutes: Counter[tuple[str, int]] = field(default_factory=Counter)
    guesses: dict[str, Row] = field(default_factory=dict)

    def read(self, now: int) -> Steps[None]:
        """Read on, at most two pages."""
        self._begin(now)
        for _ in range(PAGES_AT_ONCE):
            found: list[Entry] = yield from run(entries(self.ledger, self.after))
            for entry_id, fields in found:
                self._take(entry_id, fields)
            if found:
                self.after = found[-1][0]
            self.complete = len(found) < PAGE
            if self.complete:
                break
        self._forget(now)

    def _begin(self, now: int) -> None:
        today = now // DAY_MS
        if today == self.day:
            return
        if self.day < 0:
            self.after = f"{today * DAY_MS - 1}-18446744073709551615"
        self.day, self.sums = today, {}
        self.guesses = {entry: row for entry, row in self.guesses.items() if row.at // DAY_MS == today}

    def _take(self, entry_id: str, fields: Mapping[str, bytes]) -> None:
        amended = self.guesses.pop(fields.get("amends", b"").decode(), None)
        if amended is not None:
            self._add(amended, -1)
        row = _read(entry_id, fields)
        if row.spent.unknown:
            self.guesses[entry_id] = row
        self._add(row, 1)
        if not row.spent.unknown:
            self.seconds[row.tier, row.at // SECOND_MS] += 1
            self.minutes[row.tier, row.at // 60_000] += 1

    def _add(self, row: Row, sign: int) -> None:
        if row.at // DAY_MS == self.day:
            self.sums.setdefault((row.tenant, row.model, row.at // BUCKET_MS), Spent()).add(row.spent, sign)

    def _forget(self, now: int) -> None:
        for key in [key for key in self.seconds if key[1] <= now // SECOND_MS - 60]:
            del self.seconds[key]
        for key in [key for key in self.minutes if key[1] <= now // 60_000 - TRACE]:
            del self.minutes[key]

    def per_minute(self) -> dict[str, int]:
        """Count, by tier, the calls answered in the last 60 seconds."""
        found: Counter[str] = Counter()
        for (tier, _), calls in self.seconds.items():
            found[tier] += calls
        return dict(found)

    def traces(self, now: int) -> dict[str, list[int]]:
        """Give, by tier, the calls of each of the last 30 minutes, the one under way being the last."""
        last = now // 60_000
        tiers = sorted({tier for tier, _ in self.minutes})
        return {tier: [self.minutes[tier, last - back] for back in range(TRACE - 1, -1, -1)] for tier in tiers}

    def document(self, tenant: str) -> dict[str, Any]:
        """Describe a tenant's day: by model, the dearest first, with its cost in each quarter of an hour so far."""
        models: dict[str, Spent] = {}
        slots: dict[str, dict[int, int]] = {}
        first = self.day * DAY_MS // BUCKET_MS
        for (of, model, bucket), spent in self.sums.items():
            if of == tenant:
                models.setdefault(model, Spent()).add(spent)
                slots.setdefault(model, {})[bucket - first] = spent.pico_usd
        order = sorted((m for m in models if models[m].calls), key=lambda m: (-models[m].pico_usd, m))
        total = Spent()
        for name in order:
            total.add(models[name])
        return {
            "day": moment(self.day * DAY_MS),
            "complete": self.complete,
            "bucket_s": BUCKET_MS // 1000,
            "total": _told(total),
            "models": [_told(models[name]) | {"model": name, "series": {str(slot): pico / PICO for slot, pico
                       in sorted(slots[name].items()) if pico}} for name in order],
        }  # fmt: skip


def _told(spent: Spent) -> dict[str, Any]:
    return {"calls": spent.calls, "unknown": spent.unknown, "input_tokens": spent.input_tokens,
            "output_tokens": spent.output_tokens, "cost_usd": spent.pico_usd / PICO}  # fmt: skip


def _read(entry_id: str, fields: Mapping[str, bytes]) -> Row:
    row = json.loads(fields["row"], parse_float=Decimal)
    tokens = row.get("tokens") or {}
    unknown = int(fields["outcome"] == b"unknown")
    pico = int(Decimal(row.get("cost_usd") or 0) * PICO)
    spent = Spent(1, unknown, int(tokens.get("input") or 0), int(tokens.get("output") or 0), pico)
    at = int(entry_id.partition("-")[0])
    return Row(at, str(row.get("tenant") or ""), str(row.get("model") or "-"), str(row.get("tier") or ""), spent)
