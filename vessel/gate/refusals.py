"""What was refused in the last day, by hour: calls that the gate did not let go, and calls that the upstream refused.

Workers count, and tell Redis with their heartbeats; who is killed takes the counts of its last second along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vessel.keyspace.script import Call, command, load, pairs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.keyspace.names import Keys

GATE = "gate"
"""Who refused a call that was never sent; else it is the vessel that answered, such as groq."""

MOST_FIELDS = 600
HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """Refusals of one kind: by whom, why (a limit such as `tpm`, or a reason), and of which model."""

    by: str
    why: str
    model: str


@dataclass(frozen=True, slots=True)
class Refused:
    """How often a kind was refused: in the hour under way, and in the 24 hours that end with it. `last`: epoch ms."""

    kind: Kind
    this_hour: int
    day: int
    last: int
    """The beginning of the last hour with one of them."""


def note(keys: Keys, counts: Mapping[Kind, int]) -> Call[int]:
    """Add refusals to the hour under way of Redis' clock."""
    told = [part for kind, count in counts.items() for part in (f"{kind.by}|{kind.why}|{kind.model}", count)]
    return load("refuse").call({"refusals": keys.refusals}, {"most_fields": MOST_FIELDS}, int, more_args=told)


def read(keys: Keys, now: int) -> Call[list[Refused]]:
    """Read the refusals of the 24 hours up to `now` (epoch ms), those that were most in the hour under way first."""

    def parse(raw: list[bytes] | Mapping[bytes, bytes]) -> list[Refused]:
        this, hours = now // HOUR_MS, dict[Kind, dict[int, int]]()
        for field, count in pairs(raw).items():
            hour, _, name = field.partition("|")
            if name and this - 24 < int(hour) <= this:
                hours.setdefault(Kind(*name.split("|", 2)), {})[int(hour)] = int(count)
        found = [
            Refused(kind, by_hour.get(this, 0), sum(by_hour.values()), max(by_hour) * HOUR_MS)
            for kind, by_hour in hours.items()
        ]
        return sorted(found, key=lambda one: (-one.this_hour, -one.day, one.kind))

    return command("HGETALL", keys.refusals, parse=parse)
