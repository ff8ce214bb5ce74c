"""Which waiting jobs are given a ticket now: lanes in order, tenants by fair share, no more than the gate can admit."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vessel.gate.limiter import PERIOD_MS
from vessel.routing.fallback import PATIENCE_MS as PATIENCE
from vessel.wire import Priority

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vessel.gate.limiter import Charge
    from vessel.gate.view import GateView

AHEAD_MS = 300
"""How far ahead of its admission a job gets its ticket: as long as batch work may book (execute.admit), and a tick."""

PATIENCE_MS = tuple(PATIENCE[priority] for priority in (Priority.INTERACTIVE, Priority.NORMAL, Priority.BATCH))
"""By lane: a job that would wait longer is given its ticket once, to decide whether it steps down."""

DECIDE_AT_ONCE = 16
AGED_MS = (0, 2_000, 5_000)
"""By lane: how long it waits without a start before it goes as if it were the first (start.lua)."""


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

    def __init__(self, view: GateView, places: int, concurrency: int = 0) -> None:
        """Count what is left, and what was promised already.

        `places`: how many more jobs may hold a ticket or a slot. `concurrency` bounds the calls under way; 0: no bound.
        """
        self.view = view
        self.left = {
            name: level.left + level.capacity * AHEAD_MS / PERIOD_MS[name] for name, level in view.limits.items()
        }
        busy = view.running + view.bookings + view.fed
        self.places = min(places, concurrency - busy) if concurrency else places
        self.promised = view.fed
        self.deciding, self.doubting = 0, False
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

    def _doubts(self, short: Sequence[str]) -> bool:
        """Let one job go although limits are short, when all of these are doubted."""
        allowed = not self.doubting and all(self.view.limits[name].doubted for name in short)
        self.doubting = self.doubting or allowed
        return allowed

    def decides(self, candidate: Candidate, lane: int) -> bool:
        """Take a job in that is only to decide what it does, as it would wait for long; a few in a tick."""
        if candidate.asked or self.deciding >= DECIDE_AT_ONCE:
            return False
        if not self._closed() and self.view.quota_ms(candidate.charge, lane)[0] <= PATIENCE_MS[lane]:
            return False
        self.deciding += 1
        return True

    def take(self, candidate: Candidate, lane: int, *, aged: bool = False) -> bool:
        """Take a job in that the gate has room for; one above a limit too, to be told so."""
        if self.places <= 0:
            return False
        charge = candidate.charge
        if self.promised:  # jobs that have a ticket and have not asked yet: taken to be of this size
            for name in self.left:
                self.left[name] -= self.promised * charge.cost(name)
            self.promised = 0
        needed = {name: self.view.needed(name, charge, lane, aged=aged) for name in self.left}
        if math.inf not in needed.values():
            short = [name for name, amount in needed.items() if self.left[name] < amount]
            if short and not self._doubts(short):
                return False
            for name in self.left:
                self.left[name] -= charge.cost(name)
        self.places -= 1
        return True


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane's flows at one gate; `waited_ms`: for how long none of its jobs has started there although some wait."""

    number: int
    flows: Sequence[Flow]
    waited_ms: int = 0

    @property
    def aged(self) -> bool:
        """Tell whether it has waited so long that it goes as if it were the first (start.lua)."""
        return self.number > 0 and self.waited_ms >= AGED_MS[self.number]


def choose(room: Room, lanes: Sequence[Lane]) -> list[str]:
    """Choose the jobs that get a ticket now, lanes in order.

    A lane's first job without room ends its turn; those behind it are let out only to decide. Of a lane that has waited
    long one job may go past the others.
    """
    chosen: list[str] = []
    for lane in sorted(lanes, key=lambda entry: entry.number):
        full, aged = False, lane.aged
        for candidate in in_fair_order(lane.flows):
            if room.decides(candidate, lane.number):
                chosen.append(candidate.id)
            elif not full and room.take(candidate, lane.number, aged=aged):
                chosen.append(candidate.id)
                aged = False
            else:
                full = True
    return chosen
