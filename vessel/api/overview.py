"""What everybody sees of a vessel at one moment: tiers with their queues, gates with their headroom, what is held.

A look costs a bounded number of commands, however many jobs are stored: what grows with the work that waits (flows,
parked jobs) and with the models in use is read in parts, each in its turn.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vessel import __version__
from vessel.api.backlog import Backlog
from vessel.client import documents
from vessel.client.gates import GateInfo, Held, MaintenanceInfo, by_tier, gate_info, tickets
from vessel.client.steps import Run, Steps
from vessel.control import maintenance
from vessel.dispatch.queues import queues_of, tiers_of
from vessel.gate import refusals
from vessel.gate.flex import FLEX, flex_gate
from vessel.gate.limiter import configured
from vessel.gate.view import look, untouched
from vessel.keyspace.names import gate_keys
from vessel.keyspace.script import Call, command, timed, word
from vessel.keyspace.server import clock
from vessel.observe.moments import moment
from vessel.registry import resolve
from vessel.usage.budgets import WHOLE
from vessel.watch.waiting import LIMIT_NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.client.gates import Flow
    from vessel.gate.refusals import Refused
    from vessel.gate.view import GateView, Maintenance
    from vessel.registry import Availability
    from vessel.submit import Door

SEARCH_EVERY = 10
"""Looks between two searches for gates that came into use, and between two readings of what was refused."""

GATES_AT_ONCE = 3
"""Gates beside the first that a look reads whole: those where something goes on, each in its turn, else another."""

PARKED_READ, PARKED_NEW = 100, 6
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


@dataclass(frozen=True, slots=True)
class _Parked:
    """Of a parked job: until when, its tier, and whether it waits in the backlog as well."""

    until: int
    tier: str
    in_backlog: bool


@dataclass(frozen=True, slots=True)
class _Viewed:
    """A gate as it was seen in a look, and when its record had changed last; "": there was none."""

    view: GateView
    mark: str = ""
    looked: int = 0

    def still(self, mark: str) -> bool:
        """Tell whether it is still so but for limits that fill up."""
        return self.mark == mark and self.view.quiet


class Overview:
    """Looks at a vessel again and again, and remembers what need not be read each time."""

    def __init__(self, door: Door) -> None:
        """Look through this door; nothing is read yet."""
        self.door = door
        self._queues = queues_of(door.registry.tiers)
        self._routable = [model for model in door.registry.models.values() if model.routable]
        self._used: set[str] = set()
        self._backlog = Backlog(door)
        self._looks = 0
        self._parked: dict[str, _Parked] = {}
        self._views: dict[str, _Viewed] = {}
        self._refusals: list[Refused] = []
        self._refusing: dict[tuple[str, str], int] = {}
        self._refused: deque[dict[str, Any]] = deque(maxlen=REFUSALS_KEPT)

    def look(self, per_minute: Mapping[str, int]) -> Steps[Seen]:
        """Look once; `per_minute` tells the calls that each tier had answered in the last minute. Needs Redis."""
        found = yield from self._gather()
        if self._looks % SEARCH_EVERY == 0:
            yield from self._search(found.now)
        self._looks += 1
        yield from self._backlog.look()
        yield from self._tell_parked(found)
        yield from self._look_at_gates(found)
        return Seen(found.now, self._sections(found, per_minute))

    def _gather(self) -> Steps[_Gathered]:
        door, keys = self.door, self.door.keys
        newest = command("ZRANGE", keys.parked, 0, PARKED_READ - 1, "WITHSCORES", parse=timed)
        first: list[Call[Any]] = [
            clock(), door.availability(), maintenance(door), door.alive(), command("ZCARD", keys.parked, parse=int),
            command("ZCARD", keys.leases, parse=int), newest, *tickets(door, self._queues),
        ]  # fmt: skip
        now, availability, held, alive, parked, running, rows, *issued = yield Run(first)
        active = tuple(m for m in held if m.until == 0 or m.until > now)
        counts = dict(zip(self._queues, issued, strict=True))
        return _Gathered(now, availability, active, alive, parked, running, counts, rows)

    def _search(self, now: int) -> Steps[None]:
        """Find the gates that are in use: two keys for each model that may be called; and read what was refused."""
        names = [name for model in self._routable for name in (model.id, f"{model.id}#{FLEX}")]
        org = self.door.settings.org
        exist: list[Call[Any]] = [command("EXISTS", self.door.keys.gate(org, name), parse=bool) for name in names]
        self._refusals, *there = yield Run([refusals.read(self.door.keys, now), *exist])
        self._used = {name for name, exists in zip(names, there, strict=True) if exists}

    def _tell_parked(self, found: _Gathered) -> Steps[None]:
        """Learn the tiers of parked jobs that are new, and whether they wait in the backlog as well."""
        known = {job_id: self._parked[job_id] for job_id, _ in found.parked_rows if job_id in self._parked}
        due = [row for row in found.parked_rows if row[0] not in known or known[row[0]].until != row[1]]
        due = sorted(due, key=lambda row: row[0] in known)[:PARKED_NEW]
        if due:
            told = yield Run([
                command("HMGET", self.door.keys.job(job_id), "tier", "waits", parse=_tier_and_waits)
                for job_id, _ in due
            ])  # fmt: skip
            known |= {job_id: _Parked(until, *one) for (job_id, until), one in zip(due, told, strict=True)}
        self._parked = known

    def _shown(self, availability: Availability) -> list[tuple[str, str]]:
        waited_for = {self.door.served(model, availability) for model in {flow.model for flow in self._backlog.flows}}
        return [
            (name, model.tier)
            for model in self._routable
            for name in (model.id, f"{model.id}#{FLEX}")
            if name in self._used or name in waited_for or (name == model.id and availability.serves(model))
        ]

    def _look_at_gates(self, found: _Gathered) -> Steps[None]:
        """Look at the gates whose turn it is; of the others only whether their record has changed."""
        shown = dict(self._shown(found.availability))
        records = [self.door.keys.gate(self.door.settings.org, name) for name in shown]
        told: list[str] = yield Run([command("HGET", record, "at", parse=word) for record in records])
        marks = dict(zip(shown, told, strict=True))
        for name in (name for name, mark in marks.items() if not mark and name not in self._views):
            self._views[name] = _Viewed(untouched(self._figures(name), found.now))
        due = self._due(marks)
        views: list[GateView] = yield Run([self._look(name) for name in due])
        seen = self._views | {n: _Viewed(v, marks[n], self._looks) for n, v in zip(due, views, strict=True)}
        self._views = {name: seen[name] for name in shown if name in seen}
        provider = next((viewed.view.provider for viewed in self._views.values()), None)
        for name, viewed in self._views.items():
            view = viewed.view.later(found.now) if viewed.still(marks[name]) else viewed.view
            found.views.append((name, shown[name], replace(view, provider=provider or view.provider)))

    def _due(self, marks: Mapping[str, str]) -> list[str]:
        """Choose the first gate, which tells of the provider as well, and those where something goes on, or another."""
        names = sorted([*marks][1:], key=lambda name: self._views[name].looked if name in self._views else -1)
        quiet = [name for name in names if name in self._views and self._views[name].still(marks[name])]
        busy = [name for name in names if name not in quiet]
        return [*[*marks][:1], *(busy or quiet[:1])[:GATES_AT_ONCE]]

    def _look(self, gate: str) -> Call[GateView]:
        keys = gate_keys(self.door.keys, self.door.settings.org, gate, WHOLE)
        return look(keys, " ".join(map(str, self._figures(gate))))

    def _figures(self, gate: str) -> tuple[int, ...]:
        model, _, flex = gate.partition("#")
        known = self.door.registry.models.get(model)
        figures = configured(known.limits.get(self.door.settings.groq_plan) if known else None)
        return flex_gate(model, figures)[1] if flex else figures

    # --- documents ----------------------------------------------------------------------------------------------------

    def _sections(self, found: _Gathered, per_minute: Mapping[str, int]) -> dict[str, Any]:
        at = self._by_gate(found.availability)
        gates = [gate_info(name, tier, view, at.get(name, [])) for name, tier, view in found.views]
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
            "refusals": [documents.refused(one) for one in self._refusals],
            "breaker": documents.breaker(provider) if provider else None,
            "maintenance": self._maintenance(found),
        }  # fmt: skip

    def _tiers(self, found: _Gathered, gates: Sequence[GateInfo], per_minute: Mapping[str, int]
               ) -> list[dict[str, Any]]:  # fmt: skip
        registry, ticketed, parked = self.door.registry, dict[str, int](), self._waits()
        backlog = by_tier(registry, (), self._backlog.flows)
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

    def _by_gate(self, availability: Availability) -> dict[str, list[Flow]]:
        """Sort the flows that wait by the gate of the model that serves them today."""
        gates: dict[str, str] = {}
        found: dict[str, list[Flow]] = {}
        for flow in self._backlog.flows:
            gate = gates.get(flow.model) or gates.setdefault(flow.model, self.door.served(flow.model, availability))
            found.setdefault(gate, []).append(flow)
        return found

    def _waits(self) -> dict[str, int]:
        """Count, by tier, the parked jobs that are not in the backlog as well."""
        counts: dict[str, int] = {}
        for job in self._parked.values():
            if not job.in_backlog:
                counts[job.tier] = counts.get(job.tier, 0) + 1
        return counts

    def _maintenance(self, found: _Gathered) -> dict[str, Any]:
        both, flows = sum(job.in_backlog for job in self._parked.values()), self._backlog.flows
        held = Held(sum(flow.jobs for flow in flows), sum(found.issued.values()), max(0, found.parked - both))
        info = MaintenanceInfo(found.now, found.held, held, by_tier(self.door.registry, found.issued.items(), flows))
        return documents.maintenance(info) | {"at": None}  # else it would change with every look

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


def _tier_and_waits(raw: Sequence[bytes | None]) -> tuple[str, bool]:
    return word(raw[0]), raw[1] == b"1"
