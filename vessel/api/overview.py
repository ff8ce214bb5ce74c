"""What everybody sees of a vessel at one moment: tiers with their queues, gates with their headroom, what is held.

A look costs a bounded number of commands, however many jobs are stored: what grows with the work that waits (flows,
parked jobs) is read in parts, or the more rarely the more there is of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vessel import __version__
from vessel.client import documents
from vessel.client.gates import Flow, GateInfo, Held, MaintenanceInfo, by_tier, flows, tickets
from vessel.client.steps import Run, Steps
from vessel.control import clock, maintenance
from vessel.dispatch.queues import queues_of, tiers_of
from vessel.gate.flex import FLEX, flex_gate
from vessel.gate.limiter import configured
from vessel.gate.view import look
from vessel.keyspace.names import gate_keys
from vessel.keyspace.script import Call, command, word
from vessel.observe.moments import moment
from vessel.registry import resolve
from vessel.usage.budgets import WHOLE
from vessel.watch.waiting import LIMIT_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.gate.view import GateView, Maintenance
    from vessel.registry import Availability
    from vessel.submit import Door

GATES_EVERY = 10
"""Looks between two searches for gates that came into use, and between two looks at one that nobody uses."""

FLOWS_AT_ONCE = 150
"""Flows (a tenant's jobs of one queue and model) whose lengths a look may read; more are read every second look, ..."""

PARKED_READ, PARKED_NEW = 200, 100
"""Parked jobs that are told apart by tier, and how many of them are newly read in one look."""

REFUSALS_KEPT = 12


@dataclass(frozen=True, slots=True)
class Seen:
    """One look: documents for the page by section, and Redis' time of it."""

    now: int
    sections: Mapping[str, Any]


@dataclass(slots=True)
class _Gathered:
    """What the round trips of one look brought."""

    now: int
    availability: Availability
    held: tuple[Maintenance, ...]
    alive: dict[str, int]
    parked: int
    running: int
    issued: dict[str, int]
    parked_rows: list[tuple[str, int]]
    views: list[tuple[str, str, GateView]] = field(default_factory=list)


class Overview:
    """Looks at a vessel again and again, and remembers what need not be read each time."""

    def __init__(self, door: Door) -> None:
        """Look through this door; nothing is read yet."""
        self.door = door
        self._queues = queues_of(door.registry.tiers)
        self._routable = [model for model in door.registry.models.values() if model.routable]
        self._used: set[str] = set()
        self._flows: list[Flow] = []
        self._looks = 0
        self._flows_due = 0
        self._parked: dict[tuple[str, int], tuple[str, bool]] = {}
        self._views: dict[str, tuple[str, GateView]] = {}
        self._refusing: dict[tuple[str, str], int] = {}
        self._refused: deque[dict[str, Any]] = deque(maxlen=REFUSALS_KEPT)

    def look(self, per_minute: Mapping[str, int]) -> Steps[Seen]:
        """Look once; `per_minute` tells the calls that each tier had answered in the last minute. Needs Redis."""
        found = yield from self._gather()
        if self._looks >= self._flows_due:
            self._flows = yield from flows(self.door, heads=True)
            self._flows_due = self._looks + 1 + len(self._flows) // FLOWS_AT_ONCE
        if self._looks % GATES_EVERY == 0:
            yield from self._search()
        self._looks += 1
        yield from self._tell_parked(found)
        yield from self._look_at_gates(found)
        return Seen(found.now, self._sections(found, per_minute))

    def _gather(self) -> Steps[_Gathered]:
        door, keys = self.door, self.door.keys
        newest = command("ZRANGE", keys.parked, 0, PARKED_READ - 1, "WITHSCORES", parse=_scored)
        first: list[Call[Any]] = [
            clock(), door.availability(), maintenance(door), door.alive(), command("ZCARD", keys.parked, parse=int),
            command("ZCARD", keys.leases, parse=int), newest, *tickets(door, self._queues),
        ]  # fmt: skip
        now, availability, held, alive, parked, running, rows, *issued = yield Run(first)
        active = tuple(m for m in held if m.until == 0 or m.until > now)
        counts = dict(zip(self._queues, issued, strict=True))
        return _Gathered(now, availability, active, alive, parked, running, counts, rows)

    def _search(self) -> Steps[None]:
        """Find the gates that are in use: two keys for each model that may be called."""
        names = [name for model in self._routable for name in (model.id, f"{model.id}#{FLEX}")]
        org = self.door.settings.org
        there = yield Run([command("EXISTS", self.door.keys.gate(org, name), parse=bool) for name in names])
        self._used = {name for name, exists in zip(names, there, strict=True) if exists}

    def _tell_parked(self, found: _Gathered) -> Steps[None]:
        """Learn the tiers of parked jobs that are new, and whether they wait in the backlog as well."""
        known = {row: self._parked[row] for row in found.parked_rows if row in self._parked}
        new = [row for row in found.parked_rows if row not in known][:PARKED_NEW]
        if new:
            told = yield Run([
                command("HMGET", self.door.keys.job(job_id), "tier", "waits", parse=_tier_and_waits)
                for job_id, _ in new
            ])  # fmt: skip
            known |= dict(zip(new, told, strict=True))
        self._parked = known

    def _shown(self, availability: Availability) -> list[tuple[str, str]]:
        waited_for = {self._served(flow.model, availability) for flow in self._flows}
        return [
            (name, model.tier)
            for model in self._routable
            for name in (model.id, f"{model.id}#{FLEX}")
            if name in self._used or name in waited_for or (name == model.id and availability.serves(model))
        ]

    def _look_at_gates(self, found: _Gathered) -> Steps[None]:
        """Look at the gates in use; of one where nothing goes on only whether that is still so (`at`: last changed)."""
        shown = self._shown(found.availability)
        org = self.door.settings.org
        whole = self._looks % GATES_EVERY == 1
        idle = [name for name, _ in shown[1:] if not whole and name in self._views and _idle(self._views[name][1])]
        marks = (
            (yield Run([command("HGET", self.door.keys.gate(org, name), "at", parse=word) for name in idle]))
            if idle else []
        )  # fmt: skip
        same = {name for name, mark in zip(idle, marks, strict=True) if mark == self._views[name][0]}
        due = [name for name, _ in shown if name not in same]
        asked: list[Call[Any]] = [command("HGET", self.door.keys.gate(org, name), "at", parse=word) for name in due]
        told: list[Any] = (yield Run([*asked, *(self._look(name) for name in due)])) if due else []
        fresh = {name: (told[i], told[len(due) + i]) for i, name in enumerate(due)}
        self._views = {name: fresh.get(name) or self._views[name] for name, _ in shown}
        provider = self._views[shown[0][0]][1].provider if shown else None
        for name, tier in shown:
            view = self._views[name][1]
            found.views.append((name, tier, replace(view, provider=provider or view.provider)))

    def _look(self, gate: str) -> Call[GateView]:
        model, _, flex = gate.partition("#")
        known = self.door.registry.models.get(model)
        figures = configured(known.limits.get(self.door.settings.groq_plan) if known else None)
        if flex:
            _, figures = flex_gate(model, figures)
        return look(gate_keys(self.door.keys, self.door.settings.org, gate, WHOLE), " ".join(map(str, figures)))

    def _served(self, model: str, availability: Availability) -> str:
        if model not in self.door.registry.models:
            return model
        return resolve(self.door.registry, model, availability) or model

    # --- documents ----------------------------------------------------------------------------------------------------

    def _sections(self, found: _Gathered, per_minute: Mapping[str, int]) -> dict[str, Any]:
        gates = [self._info(found, name, tier, view) for name, tier, view in found.views]
        tiers = self._tiers(found, gates, per_minute)
        provider = gates[0].view.provider if gates else None
        models = [documents.gate(info) | {"refusing": refusing(info)} for info in gates]
        self._remember(found.now, models)
        settings = self.door.settings
        return {
            "vessel": {"org": settings.org, "plan": settings.groq_plan, "version": __version__,
                       **_status(found, tiers, gates)},
            "tiers": {"data": tiers, "running": found.running, "parked": found.parked,
                      "parked_told": len(self._parked)},
            "models": models,
            "refused": list(self._refused),
            "breaker": documents.breaker(provider) if provider else None,
            "maintenance": self._maintenance(found),
        }  # fmt: skip

    def _tiers(self, found: _Gathered, gates: Sequence[GateInfo], per_minute: Mapping[str, int]
               ) -> list[dict[str, Any]]:  # fmt: skip
        registry, backlog, ticketed, parked = self.door.registry, self._backlog(), dict[str, int](), self._waits()
        for queue, jobs in found.issued.items():
            (tier,) = tiers_of([queue])
            ticketed[tier] = ticketed.get(tier, 0) + jobs
        in_flight: dict[str, int] = {}
        for info in gates:
            in_flight[info.tier] = in_flight.get(info.tier, 0) + info.view.running
        held = {m.tier for m in found.held}
        return [
            {"name": name, "model": tier.model, "served_by": resolve(registry, tier.model, found.availability),
             "workers": found.alive.get(name, 0), "ticketed": ticketed.get(name, 0), "backlog": backlog.get(name, 0),
             "parked": parked.get(name, 0), "in_flight": in_flight.get(name, 0),
             "per_minute": per_minute.get(name, 0), "held": None in held or name in held}
            for name, tier in registry.tiers.items()
        ]  # fmt: skip

    def _backlog(self) -> dict[str, int]:
        return by_tier(self.door.registry, (), self._flows)

    def _waits(self) -> dict[str, int]:
        """Count, by tier, the parked jobs that are not in the backlog as well."""
        counts: dict[str, int] = {}
        for tier, in_backlog in self._parked.values():
            if not in_backlog:
                counts[tier] = counts.get(tier, 0) + 1
        return counts

    def _maintenance(self, found: _Gathered) -> dict[str, Any]:
        both = sum(in_backlog for _, in_backlog in self._parked.values())
        held = Held(sum(f.jobs for f in self._flows), sum(found.issued.values()), max(0, found.parked - both))
        info = MaintenanceInfo(
            found.now, found.held, held, by_tier(self.door.registry, found.issued.items(), self._flows)
        )
        return documents.maintenance(info) | {"at": None}  # else it would change with every look

    def _info(self, found: _Gathered, gate: str, tier: str, view: GateView) -> GateInfo:
        mine = [flow for flow in self._flows if self._served(flow.model, found.availability) == gate]
        lanes = [sum(flow.jobs for flow in mine if flow.lane == lane) for lane in range(3)]
        first = min(mine, key=lambda flow: flow.lane, default=None)
        oldest = min((flow.oldest for flow in mine if flow.oldest), default=None)
        return GateInfo(gate, tier, view, (lanes[0], lanes[1], lanes[2]), oldest, first.tokens if first else 0)

    def _remember(self, now: int, models: Sequence[dict[str, Any]]) -> None:
        """Note what began to be refused, and what is not any more."""
        current = {(gate["model"], one["why"]): one for gate in models for one in gate["refusing"]}
        for key in [key for key in self._refusing if key not in current]:
            since = self._refusing.pop(key)
            ended = {"model": key[0], "why": key[1], "since": moment(since), "for_s": (now - since) / 1000}
            self._refused.appendleft(ended)
        for key in current:
            self._refusing.setdefault(key, now)


def refusing(info: GateInfo) -> list[dict[str, Any]]:
    """Say what a gate refuses at this moment and why; `again_s` is when it will not any more."""
    view, found = info.view, list[dict[str, Any]]()
    if view.blocked_ms:
        text = f"Groq said to wait ({LIMIT_NAMES.get(view.blocked_why, view.blocked_why or 'retry-after')})."
        found.append({"why": view.blocked_why or "retry-after", "again_s": view.blocked_ms / 1000, "text": text})
    for whose, breaker in (("this model", view.model), ("Groq", view.provider)):
        if breaker.state == "open":
            text = (
                f"The breaker of {whose} is open: {breaker.why or 'too many calls went wrong'}. One call will probe it."
            )
            found.append({"why": "breaker", "again_s": breaker.wait_ms / 1000, "text": text})
    for name in sorted(view.limits, key=documents.ORDER.index):
        again = info.again_ms(name)
        if again:
            small = f"the next job (about {info.next_tokens:,} tokens)" if info.next_tokens else "the next job"
            text = f"{LIMIT_NAMES[name].capitalize()} are used up for {small}."
            found.append({"why": name, "again_s": again / 1000, "text": text})
    return found


def _idle(view: GateView) -> bool:
    """Tell whether nothing goes on at a gate that a later look could show otherwise before its record changes."""
    closed = view.model.state == view.provider.state == "closed" and not view.blocked_ms
    full = all(level.left >= level.capacity for level in view.limits.values())
    return closed and full and not (view.running or view.fed or view.bookings)


def _status(found: _Gathered, tiers: Sequence[dict[str, Any]], gates: Sequence[GateInfo]) -> dict[str, Any]:
    """Say in a word and in sentences how the vessel is."""
    asleep = [tier["name"] for tier in tiers if not tier["workers"]]
    reasons = []
    if len(asleep) == len(tiers):
        return {"status": "down", "reasons": ["No worker lives, so jobs wait. Start one: vessel worker."]}
    if gates and gates[0].view.provider.state == "open":
        reasons.append(f"Groq's breaker is open: {gates[0].view.provider.why}.")
    reasons += [f"The breaker of {g.gate} is open: {g.view.model.why}." for g in gates if g.view.model.state == "open"]
    reasons += [f"{m.tier or 'Everything'} is in maintenance." for m in found.held]
    if asleep:
        reasons.append(f"Nobody serves {', '.join(asleep)}.")
    return {"status": "degraded" if reasons else "healthy", "reasons": reasons}


def _scored(raw: Any) -> list[tuple[str, int]]:
    flat = [part for row in raw for part in row] if raw and isinstance(raw[0], (list, tuple)) else list(raw)
    return [(word(flat[i]), int(float(flat[i + 1]))) for i in range(0, len(flat), 2)]


def _tier_and_waits(raw: Sequence[bytes | None]) -> tuple[str, bool]:
    return word(raw[0]), raw[1] == b"1"
