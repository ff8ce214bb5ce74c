"""The sums of a day's hours that are over, read in parts: with many tenants they are tens of thousands of fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.client.steps import Run, Steps, run
from vessel.keyspace.script import Call, command, pairs, word, words
from vessel.usage.sums import HOURS, Figure, read_sums

if TYPE_CHECKING:
    from vessel.submit import Door


class PastHours:
    """Reads the sums of the hours of a day before one of them, both counted from 1970."""

    def __init__(self, door: Door, day: int, hour: int) -> None:
        """Read through this door; nothing is read yet."""
        self.door, self.day, self.hour = door, day, hour
        self._hashes: list[str] | None = None
        self._rolls = ""
        self._cursor = "0"
        self._found: dict[tuple[str, str], bytes] = {}

    def read(self, most: int) -> Steps[list[Figure] | None]:
        """Read about so many sums; the figures once all are read. Those that a sweep moves meanwhile are read again."""
        if self.hour <= self.day * HOURS:
            return []
        if self._hashes is None:
            yield from self._begin()
        hashes = self._hashes or []
        scan: Call[Any] = command("HSCAN", hashes[0], self._cursor, "COUNT", most, parse=_page)
        (self._cursor, page), (rolls, _) = yield Run([scan, self._marks()])
        if rolls != self._rolls:
            self._hashes = None
            return None
        self._found |= {(hashes[0], name): amount for name, amount in page.items()}
        if self._cursor == "0":
            hashes.pop(0)
        return None if hashes else self._figures()

    def _marks(self) -> Call[Any]:
        return command("HMGET", self.door.keys.ledger_log, "rolls", "first_day", parse=words)

    def _begin(self) -> Steps[None]:
        self._rolls, first_day = yield from run(self._marks())
        self._cursor, self._found = "0", {}
        self._hashes = [self.door.keys.sums("sums")]
        if first_day and self.day >= int(first_day):
            self._hashes.append(self.door.keys.sums("hours", self.day))

    def _figures(self) -> list[Figure]:
        hours = range(self.day * HOURS, self.hour)
        by_hash: dict[str, dict[str, bytes]] = {}
        for (name, field), amount in self._found.items():
            by_hash.setdefault(name, {})[field] = amount
        return [f for flat in by_hash.values() for f in read_sums(flat, tags=False) if f.hour in hours]


def _page(raw: Any) -> tuple[str, dict[str, bytes]]:
    return word(raw[0]), pairs(raw[1])
