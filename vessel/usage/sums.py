"""Sums over ledger entries: how Redis keeps them (lua/include/rollup.lua), and what a report shows of them.

Counts and money are whole numbers, money in 10^-12 USD (pico), so that no sum depends on an order or a rounding.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.usage.log import at_ms
from vessel.wire import PICO

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from vessel.usage.log import Entry

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
HOURS = 24
GROUPS = ("model", "tier", "day", "tenant", "tag", "vessel", "hour")
OVER = "over"
NONE = "-"
"""The group of calls without a tag, and of a tier that is not known."""

_EPOCH = date(1970, 1, 1).toordinal()
_GUESSED = "u:"
_COUNTED = "n:"


@dataclass(slots=True)
class Sum:
    """What calls took. `unknown` ones had no answer that was seen: what they took is a guess, at the most it could be.

    `orphaned` ones were answered when their job had ended otherwise, `failed` ones answered with something unusable;
    both were charged, but for failed ones that had been unknown and cost nothing. Figures that begin with `guessed` are
    the part of the unknown ones.
    """

    calls: int = 0
    unknown: int = 0
    orphaned: int = 0
    failed: int = 0
    estimated: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    pico_usd: int = 0
    fees_pico_usd: int = 0
    guessed_input_tokens: int = 0
    guessed_cached_tokens: int = 0
    guessed_output_tokens: int = 0
    guessed_pico_usd: int = 0

    @property
    def cost_usd(self) -> Decimal:
        """Return the exact cost."""
        return Decimal(self.pico_usd).scaleb(PICO)

    def as_dict(self, group: str | None) -> dict[str, Any]:
        """Describe it in JSON, whose numbers carry fewer than 16 digits exactly."""
        return {
            "group": group,
            "calls": self.calls,
            "unknown": self.unknown,
            "orphaned": self.orphaned,
            "failed": self.failed,
            "estimated": self.estimated,
            "input_tokens": self.input_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": float(self.cost_usd),
            "unknown_cost_usd": float(Decimal(self.guessed_pico_usd).scaleb(PICO)),
        }

    def add(self, what: str, amount: int) -> None:
        """Add one figure under the name Redis has for it."""
        if what.startswith(_COUNTED):
            self.calls += amount
            what = what.removeprefix(_COUNTED)
            if what in {"unknown", "orphaned", "failed"}:
                setattr(self, what, getattr(self, what) + amount)
            return
        name = _NAMES.get(what.removeprefix(_GUESSED))
        if name is None:
            return
        setattr(self, name, getattr(self, name) + amount)
        if what.startswith(_GUESSED) and (guessed := f"guessed_{name}") in _FIELDS:
            setattr(self, guessed, getattr(self, guessed) + amount)

    def __bool__(self) -> bool:
        """Tell whether there is anything in it; what was amended away leaves zeros."""
        return any(getattr(self, name) for name in _FIELDS)


_FIELDS = frozenset(field.name for field in fields(Sum))
_NAMES = {
    "estimated": "estimated",
    "input": "input_tokens",
    "cached": "cached_tokens",
    "output": "output_tokens",
    "pico": "pico_usd",
    "fees": "fees_pico_usd",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of one hour (or day, `hour` being its first): of calls alike in all but the tag, or of a tag."""

    hour: int
    what: str
    amount: int
    tenant: str
    model: str = ""
    tier: str = ""
    vessel: str = ""
    tag: str = ""

    def group(self, by: str) -> str:
        """Name its group."""
        match by:
            case "day":
                return day_name(self.hour // HOURS)
            case "hour":
                return f"{day_name(self.hour // HOURS)}T{self.hour % HOURS:02}"
            case _:
                return str(getattr(self, by)) or NONE


def day_name(day: int) -> str:
    """Write a day number since 1970 as its date."""
    return str(date.fromordinal(_EPOCH + day))


def read_sums(flat: Mapping[str, bytes], *, tags: bool, day: int | None = None) -> Iterator[Figure]:
    """Read a hash of sums; of a day's own hash (`day`) the fields name no hour."""
    for name, amount in flat.items():
        hour, rest = (str(day * HOURS), name) if day is not None else name.split("|", 1)
        what, tenant, *of = rest.split("|", 2 if tags else 4)
        if tags:
            yield Figure(int(hour), what, int(amount), tenant, tag=of[0])
        else:
            yield Figure(int(hour), what, int(amount), tenant, *of)


def read_entry(entry: Entry) -> dict[str, Any]:
    """Read an entry as its line in the usage log would be; amounts are exact decimals."""
    entry_id, raw = entry
    row: dict[str, Any] = json.loads(raw["row"], parse_float=Decimal)
    return row | {"outcome": raw["outcome"].decode(), "entry": entry_id}


def figures_of(entry: Entry, *, tags: bool) -> Iterator[Figure]:
    """Split an entry into the figures that it added to the sums."""
    row = read_entry(entry)
    hour, outcome = at_ms(entry[0]) // HOUR_MS, row["outcome"]
    guessed = _GUESSED if outcome == "unknown" else ""
    tokens = row.get("tokens") or {}
    amounts = {f"{_COUNTED}{outcome}": 1, "estimated": int(bool(row.get("estimated")))}
    amounts |= {f"{guessed}{name}": int(tokens.get(name) or 0) for name in ("input", "cached", "output")}
    for what, name in (("pico", "cost_usd"), ("fees", "tool_cost_usd")):
        amounts[f"{guessed}{what}"] = int(Decimal(row.get(name) or 0).scaleb(-PICO))
    for of in _tags(row) if tags else [_part(row, "model", "tier", "vessel")]:
        tenant = str(row.get("tenant") or "")
        yield from (Figure(hour, what, amount, tenant, **of) for what, amount in amounts.items() if amount)


def _part(row: Mapping[str, Any], *names: str) -> dict[str, str]:
    return {name: str(row.get(name) or "").replace("|", " ") for name in names}


def _tags(row: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"tag": f"{name}={value}" if name else ""} for name, value in (row.get("tags") or {"": ""}).items()]


def summed(figures: Iterable[Figure], by: str) -> dict[str, Sum]:
    """Sum figures up by group, in the order of their names."""
    found: dict[str, Sum] = {}
    for figure in figures:
        found.setdefault(figure.group(by), Sum()).add(figure.what, figure.amount)
    return {name: found[name] for name in sorted(found) if found[name]}
