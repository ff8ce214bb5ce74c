"""Sums of the ledger for counters that survive restarts: each entry is added once, when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vessel.keyspace.script import Call, load, pairs

if TYPE_CHECKING:
    from vessel.keyspace.names import Keys

AT_MOST = 250
"""Entries that one call adds: it takes Redis a few milliseconds."""
MOST_FIELDS = 2000


@dataclass(frozen=True, slots=True)
class Tally:
    """What charged calls took since there are sums, by model; money in nano-USD.

    `behind`: when the first entry that is not added yet was written, epoch ms of Redis; 0: all are.
    """

    behind: int = 0
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    tokens: dict[tuple[str, str], int] = field(default_factory=dict)
    nano_usd: dict[tuple[str, str], int] = field(default_factory=dict)
    cached: dict[str, int] = field(default_factory=dict)


def tally(keys: Keys) -> Call[Tally]:
    """Add what is new, a page of it, and read the sums."""
    names = {"ledger": keys.ledger, "tally": keys.tally}
    return load("tally").call(names, {"at_most": AT_MOST, "most_fields": MOST_FIELDS}, _read)


def _read(raw: Any) -> Tally:
    behind, *flat = raw
    found = Tally(int(behind))
    for name, value in pairs(flat).items():
        what, *labels = name.split("|")
        match what, labels:
            case "calls", [model, outcome]:
                found.calls[model, outcome] = int(value)
            case "tokens", [model, kind]:
                found.tokens[model, kind] = int(value)
            case "nano", [model, outcome]:
                found.nano_usd[model, outcome] = int(value)
            case "cached", [model]:
                found.cached[model] = int(value)
    return found
