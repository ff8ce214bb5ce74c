"""Which waiting jobs are given a ticket now: lanes in order, tenants by fair share, no more than the gate can admit."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vessel.gate.limiter import PERIOD_MS, cost_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vessel.gate.limiter import Charge
    from vessel.gate.view import GateView

AHEAD_MS = 300
"""How far ahead of its admission a job gets its ticket: as long as batch work may book (execute.admit), and a tick."""

PATIENCE_MS = (2_000, 10_000, 60_000)
"""By lane: a job that would wait longer is given its ticket once, to decide whether it steps down."""

DECIDE_AT_ONCE = 16
OUTSTANDING_PART, BUSY_PART = 0.5, 0.9
"""Parts of all slots: for fed and sleeping jobs, and for jobs at all, so that interactive work finds a free one."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A waiting job. `asked`: the gate has refused it on this hop, and it chose to wait."""

    id: str
    charge: Charge
    asked: bool

    @property
    def tokens(self) -> int:
        """Return what it counts in its tenant's share."""
        return self.charge.prompt_tokens + self.charge.output_tokens


@dataclass(frozen=True, slots=True)
class Flow:
    """One tenant's waiting jobs in a lane, the next first, and how many tokens the tenant was given so far."""

    given: float
    waiting: Sequence[Candidate]


def in_fair_order(flows: Iterable[Flow]) -> Iterator[Candidate]:
    """Give the jobs of several flows so that each flow's tokens grow alike."""
    heap = [(flow.given, at, 0, flow) for at, flow in enumerate(flows) if flow.waiting]
    heapq.heapify(heap)
    while heap:
        given, at, place, flow = heapq.heappop(heap)
        candidate = flow.waiting[place]
        yield candidate
        if place + 1 < len(flow.waiting):
            heapq.heappush(heap, (given + candidate.tokens, at, place + 1, flow))


class Room:
    """What one model's gate can still be given in this tick."""

    def __init__(self, view: GateView, slots: int, concurrency: int = 0) -> None:
        """Count what is left, and what was promised already; `concurrency` bounds the calls under way, 0 means none."""
        self.view = view
        self.left = {
            name: level.left + level.capacity * AHEAD_MS / PERIOD_MS[name] - level.margin
            for name, level in view.limits.items()
        }
        busy = view.running + view.bookings + view.fed
        self.places = int(min(slots * OUTSTANDING_PART - view.bookings - view.fed, slots * BUSY_PART - busy))
        if concurrency:
            self.places = min(self.places, concurrency - busy)
        self.promised = view.fed
        self.deciding = 0
        if self._closed():
            self.places = 0
        elif "open" in {view.model.state, view.provider.state}:
            self.places = min(self.places, 1 - view.fed)
        elif "ramp" in {view.model.state, view.provider.state}:
            self.places = min(self.places, max(2, 2 * view.running) - view.fed)
        elif not view.limits and not view.seen:
            self.places = min(self.places, 4 - busy)

    def _closed(self) -> bool:
        return self.view.closed_ms()[0] > AHEAD_MS

    def take(self, candidate: Candidate, lane: int) -> bool:
        """Take a job in, if there is room for it; else only to decide what it does."""
        wait, _ = self.view.quota_ms(candidate.charge, lane)
        if not candidate.asked and (wait > PATIENCE_MS[lane] or self._closed()) and self.deciding < DECIDE_AT_ONCE:
            self.deciding += 1
            return True
        if self.places <= 0:
            return False
        costs = {name: candidate.charge.cost(name) for name in self.left}
        if self.promised:  # jobs that have a ticket and have not asked yet: taken to be of this size
            for name, cost in costs.items():
                self.left[name] -= self.promised * cost
            self.promised = 0
        ahead = [sum(part) for part in zip(*self.view.booked[: lane + 1], strict=True)]
        kept = {name: self.view.reserve(name, lane) + cost_of(name, *ahead) for name in self.left}
        too_large = any(cost > self.view.limits[name].capacity for name, cost in costs.items())
        if not too_large:  # else it is refused, and told so, without using anything up
            if any(self.left[name] - kept[name] < cost for name, cost in costs.items()):
                return False
            for name, cost in costs.items():
                self.left[name] -= cost
        self.places -= 1
        return True


def choose(room: Room, lanes: Sequence[tuple[int, Sequence[Flow]]]) -> list[str]:
    """Choose the jobs that get a ticket now, lanes in order; a lane's first job without room ends the lane."""
    chosen: list[str] = []
    for lane, flows in sorted(lanes, key=lambda entry: entry[0]):
        for candidate in in_fair_order(flows):
            if not room.take(candidate, lane):
                break
            chosen.append(candidate.id)
    return chosen
