"""What was spent today and how fast work is done, read once for all viewers.

Hours that are over come from the sums that are kept with the ledger; of the hour under way, and of the last half hour,
each look reads the entries that were added since the one before, a bounded number of them. An entry that amends another
takes its amounts back.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vessel.api.past import PastHours
from vessel.client.steps import Steps, run
from vessel.observe.moments import moment
from vessel.usage.log import at_ms, entries
from vessel.usage.sums import DAY_MS, HOUR_MS, HOURS, Figure, Sum, figures_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vessel.submit import Door
    from vessel.usage.log import Entry

SECOND_MS, MINUTE_MS = 1000, 60_000
ENTRIES_AT_ONCE, ENTRIES_BEHIND = 150, 500
"""Entries that a look reads, and a look at nothing else in a ledger that is further ahead, half a second after it."""

TRACE = 30
"""Minutes of a tier's throughput that are told."""

FORGET_MS = 600_000
"""After so long without a look it begins anew, as there may be more entries than can be caught up with."""

AGAIN_MS = 10_000
"""How long after a look at the sums of past hours the next one may follow, where one of their entries was amended."""


@dataclass(slots=True)
class Spending:
    """The sums of the current day by tenant, model and hour, and the calls of each tier lately."""

    door: Door
    looked_at: int = 0
    day: int = 0
    from_hour: int = 0
    """The hour from which on entries are summed here; those before it are read as sums."""

    after: str = ""
    behind: bool = True
    """Whether there is more to read than the last look did."""

    past_due: bool = True
    past_at: int = 0
    past: PastHours | None = None
    """The hours that are being read."""

    sums: dict[tuple[str, str, int], Sum] = field(default_factory=dict)
    seconds: Counter[tuple[str, int]] = field(default_factory=Counter)
    minutes: Counter[tuple[str, int]] = field(default_factory=Counter)
    guesses: dict[str, list[Figure]] = field(default_factory=dict)

    def read(self, now: int, most: int = ENTRIES_AT_ONCE) -> Steps[None]:
        """Read on, so many entries at most, and a part of the past hours where that is due."""
        if now - self.looked_at > FORGET_MS:
            self._begin(now)
        self.looked_at = now
        if now // DAY_MS != self.day:
            self.day, self.past = now // DAY_MS, None
            self.sums = {key: spent for key, spent in self.sums.items() if key[2] >= self.day * HOURS}
            self.guesses = {entry: old for entry, old in self.guesses.items() if at_ms(entry) >= self.day * DAY_MS}
        yield from self._read_past(now, most // 2)
        found: list[Entry] = yield from run(entries(self.door.keys.ledger, self.after, most))
        for entry in found:
            self._take(entry)
            self.after = entry[0]
        self.behind = len(found) == most or self.past is not None
        self._forget(now)

    def _begin(self, now: int) -> None:
        start = min(now // HOUR_MS * HOUR_MS, now - TRACE * MINUTE_MS)
        self.after, self.past_due, self.past_at, self.past = f"{start - 1}-18446744073709551615", True, 0, None
        for kept in (self.sums, self.seconds, self.minutes, self.guesses):
            kept.clear()

    def _read_past(self, now: int, most: int) -> Steps[None]:
        if self.past_due and self.past is None and now - self.past_at >= AGAIN_MS:
            # An entry of one of these hours that is amended from here on makes another look at them due.
            self.past_due, self.past_at, self.from_hour = False, now, now // HOUR_MS
            self.past = PastHours(self.door, self.day, self.from_hour)
        figures = None if self.past is None else (yield from self.past.read(most))
        if figures is not None:
            self.past = None
            self.sums = {key: spent for key, spent in self.sums.items() if key[2] >= self.from_hour}
            self._add(figures)

    def _take(self, entry: Entry) -> None:
        entry_id, fields = entry
        figures = list(figures_of(entry, tags=False))
        amended = fields.get("amends", b"").decode()
        if amended and at_ms(amended) < self.from_hour * HOUR_MS:
            self.past_due = True
        elif amended in self.guesses:
            self._add(self.guesses.pop(amended), -1)
        if fields["outcome"] == b"unknown":
            self.guesses[entry_id] = figures
        else:
            self.seconds[figures[0].tier, at_ms(entry_id) // SECOND_MS] += 1
            self.minutes[figures[0].tier, at_ms(entry_id) // MINUTE_MS] += 1
        if at_ms(entry_id) >= self.from_hour * HOUR_MS:
            self._add(figures)

    def _add(self, figures: Iterable[Figure], sign: int = 1) -> None:
        for figure in figures:
            if figure.hour >= self.day * HOURS:
                key = figure.tenant, figure.model, figure.hour
                self.sums.setdefault(key, Sum()).add(figure.what, sign * figure.amount)

    def _forget(self, now: int) -> None:
        for key in [key for key in self.seconds if key[1] <= now // SECOND_MS - 60]:
            del self.seconds[key]
        for key in [key for key in self.minutes if key[1] <= now // MINUTE_MS - TRACE]:
            del self.minutes[key]

    def per_minute(self) -> dict[str, int]:
        """Count, by tier, the calls answered in the last 60 seconds."""
        found: Counter[str] = Counter()
        for (tier, _), calls in self.seconds.items():
            found[tier] += calls
        return dict(found)

    def traces(self, now: int) -> dict[str, list[int]]:
        """Give, by tier, the calls of each of the last 30 minutes, the one under way being the last."""
        last = now // MINUTE_MS
        tiers = sorted({tier for tier, _ in self.minutes})
        return {tier: [self.minutes[tier, last - back] for back in range(TRACE - 1, -1, -1)] for tier in tiers}

    def document(self, tenant: str) -> dict[str, Any]:
        """Describe a tenant's day: by model, the dearest first, with its cost in each hour so far."""
        models: dict[str, Sum] = {}
        series: dict[str, dict[str, float]] = {}
        total = Sum()
        for (of, model, hour), spent in sorted(self.sums.items()):
            if of != tenant or not spent:
                continue
            for whole in (models.setdefault(model, Sum()), total):
                for name in Sum.__slots__:
                    setattr(whole, name, getattr(whole, name) + getattr(spent, name))
            series.setdefault(model, {})[str(hour - self.day * HOURS)] = float(spent.cost_usd)
        order = sorted(models, key=lambda name: (-models[name].pico_usd, name))
        return {
            "day": moment(self.day * DAY_MS),
            "complete": not self.behind,
            "bucket_s": HOUR_MS // 1000,
            "total": _told(total),
            "models": [_told(models[name]) | {"model": name, "series": series[name]} for name in order],
        }


def _told(spent: Sum) -> dict[str, Any]:
    kept = ("calls", "unknown", "input_tokens", "output_tokens", "cost_usd")
    return {name: value for name, value in spent.as_dict(None).items() if name in kept}
