"""The backlog in parts: it has a flow for each tenant of each model and lane, of which a look reads a bounded number.

Up to FLOWS_AT_ONCE flows a look tells the backlog as it is; with more of them each has its turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vessel.client.gates import Flow, first_jobs, read_flow
from vessel.client.steps import Run, Steps, run
from vessel.keyspace.script import command, word, words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.submit import Door

FLOWS_AT_ONCE, HEADS_AT_ONCE = 40, 8
"""Flows whose jobs a look counts, and how many of their first jobs it reads."""

Place = tuple[str, str]
"""A flow's group and its name in it."""


@dataclass(slots=True)
class _Known:
    """A flow as it was seen in a look; `head_read`: in which one its first job was read, -1 in none."""

    flow: Flow
    seen: int
    head_read: int = -1


class Backlog:
    """Looks at the backlog again and again, and remembers what it does not read each time."""

    def __init__(self, door: Door) -> None:
        """Look through this door; nothing is read yet."""
        self.door = door
        self._known: dict[Place, _Known] = {}
        self._looks = 0
        self._next = 0

    @property
    def flows(self) -> list[Flow]:
        """Return the flows that hold jobs, as they were seen last."""
        return [known.flow for known in self._known.values()]

    def look(self) -> Steps[None]:
        """Look once. Needs Redis."""
        keys = self.door.keys
        self._looks += 1
        groups: list[str] = yield from run(command("SMEMBERS", keys.groups, parse=lambda raw: sorted(map(word, raw))))
        sizes: list[int] = yield Run([command("ZCARD", keys.flows(group), parse=int) for group in groups])
        parts = self._parts(groups, sizes)
        named: list[list[str]] = yield Run(
            [command("ZRANGE", keys.flows(group), start, stop, parse=words) for group, start, stop in parts]
        )
        yield from self._read([(part[0], name) for part, names in zip(parts, named, strict=True) for name in names])
        self._forget(set(groups), sum(sizes))

    def _parts(self, groups: Sequence[str], sizes: Sequence[int]) -> list[tuple[str, int, int]]:
        """Say which ranks of each group to read: all, or those whose turn it is."""
        total = sum(sizes)
        start = self._next if self._next < total else 0
        stop = min(total, start + FLOWS_AT_ONCE)
        self._next = stop
        found, before = [], 0
        for group, size in zip(groups, sizes, strict=True):
            first, last = max(start - before, 0), min(stop - before, size) - 1
            if first <= last:
                found.append((group, first, last))
            before += size
        return found

    def _read(self, places: Sequence[Place]) -> Steps[None]:
        keys = self.door.keys
        heads = sorted(places, key=lambda place: self._known[place].head_read if place in self._known else -1)
        heads = heads[:HEADS_AT_ONCE]
        jobs: list[int] = yield Run([command("ZCARD", keys.backlog(*place), parse=int) for place in places])
        told = yield from first_jobs(self.door, heads)
        for place, count in zip(places, jobs, strict=True):
            before = self._known.get(place)
            oldest, tokens = (before.flow.oldest, before.flow.tokens) if before else (0, 0)
            flow = read_flow(*place, count, oldest, tokens)
            self._known[place] = _Known(flow, self._looks, before.head_read if before else -1)
        for place, (oldest, tokens) in zip(heads, told, strict=True):
            known = self._known[place]
            known.flow, known.head_read = read_flow(*place, known.flow.jobs, oldest, tokens), self._looks

    def _forget(self, groups: set[str], total: int) -> None:
        """Drop the flows that are gone; one that is given tokens changes its rank, and may miss its turn once."""
        turns = -(-total // FLOWS_AT_ONCE)
        since = self._looks - (2 * turns if turns > 1 else 0)
        self._known = {
            place: known for place, known in self._known.items()
            if known.flow.jobs and known.seen >= since and place[0] in groups
        }  # fmt: skip
