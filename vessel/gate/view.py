"""What a model's gate looks like from outside: headroom, bookings, breaker, and how long the next call would wait."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from vessel.gate.limiter import NAMES, PERIOD_MS, Charge, cost_of
from vessel.keyspace.script import Call, load, word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.keyspace.names import GateKeys

INTERACTIVE_MS = 10_000
"""How long after an interactive call its reserve is kept (start.lua)."""

RESERVED_PART, RESERVED_CALLS = 0.1, 2


@dataclass(frozen=True, slots=True)
class Level:
    """One limit: its capacity, what is left of it now, what is kept clear of, and whether Groq told it.

    `doubted`: that was so long ago that one call may go without room, to see whether it still holds.
    """

    name: str
    capacity: int
    left: float
    margin: float = 0.0
    learned: bool = False
    doubted: bool = False

    def wait_ms(self, needed: float) -> int:
        """Return how long until so much is left; 0 when it is."""
        missing = needed - self.left
        return max(0, math.ceil(missing * PERIOD_MS[self.name] / self.capacity))

    def later(self, passed_ms: int) -> Level:
        """Return it after a time in which nothing was taken."""
        left = min(self.capacity, self.left + max(0, passed_ms) * self.capacity / PERIOD_MS[self.name])
        return replace(self, left=left)

    @property
    def full_in_s(self) -> float:
        """Return in how many seconds it is full again."""
        return (self.capacity - self.left) * PERIOD_MS[self.name] / self.capacity / 1000


@dataclass(frozen=True, slots=True)
class Breaker:
    """A breaker: closed, open or ramp; why, and how long until a call may go. `since` is epoch ms of Redis."""

    state: str = "closed"
    why: str = ""
    wait_ms: int = 0
    since: int = 0


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A planned or open-ended pause of everything or of one tier. Times are epoch ms of Redis; `until` 0: till told."""

    tier: str | None
    until: int
    since: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GateView:
    """A model's gate at one moment. `booked` holds requests, prompt and output tokens by lane."""

    now: int
    limits: Mapping[str, Level]
    model: Breaker = Breaker()
    provider: Breaker = Breaker()
    booked: tuple[tuple[int, int, int], ...] = ((0, 0, 0),) * 3
    waiting_since: tuple[int, ...] = (0, 0, 0)
    blocked_ms: int = 0
    blocked_why: str = ""
    running: int = 0
    bookings: int = 0
    next_booking: int = 0
    fed: int = 0
    interactive: tuple[int, int, int] = (0, 0, 0)
    maintenance: tuple[Maintenance, ...] = ()
    seen: bool = True

    def held(self, tier: str) -> Maintenance | None:
        """Return the maintenance that a tier is in."""
        found = [m for m in self.maintenance if m.tier in {None, tier} and (m.until == 0 or m.until > self.now)]
        return found[0] if found else None

    @property
    def quiet(self) -> bool:
        """Tell whether nothing goes on here that could end without a change of the gate's record."""
        closed = self.model.state == self.provider.state == "closed" and not self.blocked_ms
        return closed and not (self.running or self.fed or self.bookings)

    def later(self, now: int) -> GateView:
        """Return a quiet gate as it is at a later time, its record being unchanged: its limits fill up."""
        limits = {name: level.later(now - self.now) for name, level in self.limits.items()}
        return replace(self, now=now, limits=limits)

    def closed_ms(self) -> tuple[int, str]:
        """Return how long nothing at all may go, and why."""
        waits = [
            (self.blocked_ms, self.blocked_why or "retry-after"),
            (self.provider.wait_ms, self.provider.why),
            (self.model.wait_ms, self.model.why),
        ]
        return max(waits, key=lambda wait: wait[0])

    def reserve(self, name: str, lane: int) -> float:
        """Return what a lane must leave of a limit for interactive work."""
        at, prompt, output = self.interactive
        if lane == 0 or self.now - at >= INTERACTIVE_MS:
            return 0.0
        calls = RESERVED_CALLS * cost_of(name, 1, prompt, output)
        return min(self.limits[name].capacity * RESERVED_PART, calls)

    def needed(self, name: str, charge: Charge, lane: int, *, aged: bool = False) -> float:
        """Return what must be left of a limit for a call to start, as start.lua reckons; infinite above the limit.

        `aged`: its lane has waited so long that it goes as if it were the first.
        """
        cost, capacity = charge.cost(name), self.limits[name].capacity
        if cost > capacity:
            return math.inf
        kept = self.limits[name].margin + (0.0 if aged else self.reserve(name, lane))
        ahead = 0 if aged else cost_of(name, *(sum(part) for part in zip(*self.booked[: lane + 1], strict=True)))
        return min(capacity, cost + kept) + ahead

    def quota_ms(self, charge: Charge, lane: int) -> tuple[int, str]:
        """Return how long a call would wait for quota now, and for which limit; 0 for one that is above a limit."""
        waits = [(0, "")]
        for name, level in self.limits.items():
            needed = self.needed(name, charge, lane)
            if needed != math.inf:
                waits.append((level.wait_ms(needed), name))
        return max(waits, key=lambda wait: wait[0])


def untouched(figures: Sequence[int], now: int) -> GateView:
    """Tell how a gate is that has no record: its configured limits are whole."""
    return GateView(now, {name: Level(name, cap, cap) for name, cap in sorted(zip(NAMES, figures, strict=True)) if cap})


def look(keys: GateKeys, figures: str) -> Call[GateView]:
    """Ask for a model's gate; `figures` are its configured limits as scripts take them."""
    names = {n: getattr(keys, n) for n in ("gate", "bookings", "inflight", "fed", "provider", "maintenance")}
    return load("look").call(names, {"configured": figures}, lambda raw: read_view(json.loads(word(raw))))


def read_maintenance(raw: Mapping[str, str]) -> tuple[Maintenance, ...]:
    """Read the maintenance hash: `all` and `tier:NAME`, each `until since reason`."""
    found = []
    for name, value in sorted(raw.items()):
        until, since, *reason = value.split(" ", 2)
        tier = name.removeprefix("tier:") if name.startswith("tier:") else None
        found.append(Maintenance(tier, int(until), int(since), reason[0] if reason else ""))
    return tuple(found)


def read_view(raw: Mapping[str, Any]) -> GateView:
    """Read what look.lua returns."""
    limits = {
        name: Level(
            name,
            int(part["cap"]),
            float(part["level"]),
            float(part["margin"]),
            bool(part["learned"]),
            bool(part["doubted"]),
        )
        for name, part in sorted((raw["limits"] or {}).items())
    }
    lanes = ("0", "1", "2")
    return GateView(
        now=int(raw["now"]),
        limits=limits,
        model=_breaker(raw["model"]),
        provider=_breaker(raw["provider"]),
        booked=tuple((int(b[0]), int(b[1]), int(b[2])) for b in (raw["booked"][lane] for lane in lanes)),
        waiting_since=tuple(int(raw["since"][lane]) for lane in lanes),
        blocked_ms=int(raw["blocked_ms"]),
        blocked_why=str(raw["blocked_why"]),
        running=int(raw["in_flight"]),
        bookings=int(raw["bookings"]),
        next_booking=int(raw["next_booking"]),
        fed=int(raw["fed"]),
        interactive=(int(raw["interactive"][0]), int(raw["interactive"][1]), int(raw["interactive"][2])),
        maintenance=read_maintenance(raw["maintenance"] or {}),
        seen=bool(raw["seen"]),
    )


def _breaker(raw: Mapping[str, Any]) -> Breaker:
    return Breaker(str(raw["state"]), str(raw["why"]), int(raw["wait_ms"]), int(raw["since"]))
