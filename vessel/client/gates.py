"""What holds jobs back: the gates with their headroom, who waits at them and why, maintenance and spend caps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.client.steps import Run, Steps, run
from vessel.control import budget, capped, maintenance
from vessel.dispatch.queues import queues_of, tiers_of
from vessel.errors import JobNotFound
from vessel.gate.flex import FLEX, flex_gate
from vessel.gate.limiter import Charge, configured
from vessel.gate.refusals import read
from vessel.gate.tokens import max_prompt_tokens
from vessel.gate.view import look
from vessel.jobs.flows import flow_of, group_of, in_outage, parts_of
from vessel.jobs.steps import LANES
from vessel.keyspace.names import gate_keys
from vessel.keyspace.script import Call, command, word, words
from vessel.keyspace.server import clock
from vessel.registry import PricedPer
from vessel.usage.budgets import WHOLE, Budget, read_budget
from vessel.usage.prices import worst_case_nano_usd
from vessel.watch.waiting import Place, Waiting, explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vessel.client.asking import Asking
    from vessel.gate.refusals import Refused
    from vessel.gate.view import GateView, Level, Maintenance
    from vessel.jobs.model import Job
    from vessel.registry import Availability, Registry
    from vessel.submit import Door

ADMIT_ONE = 0.01
"""Where nobody waits, a limit counts as used up while less than this part of it is left."""

PARKED_READ = 1000
"""Parked jobs of which it is looked up whether they wait in the backlog as well."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One tenant's jobs without a ticket in one lane: how many, and when the first was created and what it takes."""

    lane: int
    model: str
    queue: str
    tenant: str
    jobs: int
    oldest: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class GateInfo:
    """A model's gate: what is left of its limits, what holds it back, and who waits, by lane.

    `tier` is empty for the failover endpoint's, which carries none. `oldest` is when the longest waiting job was
    created (None: nobody waits), `next_tokens` what the next one takes.
    """

    gate: str
    tier: str
    view: GateView
    waiting: tuple[int, int, int] = (0, 0, 0)
    oldest: int | None = None
    next_tokens: int = 0

    def again_ms(self, name: str) -> int:
        """Return how long a limit stays used up for the next job, or for a small one where nobody waits."""
        level = self.view.limits[name]
        one = 1 if name in {"rpm", "rpd"} else self.next_tokens or level.capacity * ADMIT_ONE
        return level.wait_ms(min(level.capacity, one + level.margin))


@dataclass(frozen=True, slots=True)
class Held:
    """How many jobs wait: without a ticket, with one that nobody has taken yet, and parked for a time."""

    backlog: int
    tickets: int
    parked: int

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.backlog + self.tickets + self.parked


@dataclass(frozen=True, slots=True)
class MaintenanceInfo:
    """What is in maintenance now, and how many jobs wait, in all and by tier. `now` is epoch ms of Redis."""

    now: int
    active: tuple[Maintenance, ...]
    held: Held
    by_tier: dict[str, int]


def limits(asking: Asking, *, failover: bool = False) -> Steps[list[GateInfo]]:
    """Look at the gate of every model that is served, or was called or waited for lately. Needs Redis.

    `failover` adds that of the failover endpoint as the last one, where a model of it is set.
    """
    door = asking.door
    known = [model for model in door.registry.models.values() if model.routable]
    names = [name for model in known for name in (model.id, f"{model.id}#{FLEX}")]
    exist = [command("EXISTS", door.keys.gate(door.settings.org, name), parse=bool) for name in names]
    availability, *found = yield Run([door.availability(), *exist])
    used = {name for name, there in zip(names, found, strict=True) if there}
    waiting = yield from flows(door, heads=True)
    by_gate: dict[str, list[Flow]] = {}
    for flow in waiting:
        by_gate.setdefault(door.served(flow.model, availability), []).append(flow)
    shown = [
        (name, model.tier)
        for model in known
        for name in (model.id, f"{model.id}#{FLEX}")
        if name in used or name in by_gate or (name == model.id and availability.serves(model))
    ]
    if failover and door.failover is not None:
        shown.append((door.failover.model.id, ""))
    views: list[GateView] = yield Run([_look(door, name) for name, _ in shown])
    return [gate_info(name, tier, view, by_gate.get(name, [])) for (name, tier), view in zip(shown, views, strict=True)]


def levels_of(door: Door, models: Iterable[str]) -> Steps[dict[str, Mapping[str, Level]]]:
    """Tell the limits of some models as their gates know them: what Groq told before what is set, and what is left."""
    names = list(models)
    views: list[GateView] = (yield Run([_look(door, name) for name in names])) if names else []
    return {name: view.limits for name, view in zip(names, views, strict=True)}


def flows(door: Door, *, heads: bool = False) -> Steps[list[Flow]]:
    """List the backlog's flows; `heads` reads the first job of each as well."""
    groups: list[str] = yield from run(command("SMEMBERS", door.keys.groups, parse=_sorted))
    members: list[list[str]] = yield Run([_members(door, group) for group in groups])
    named = [(group, flow) for group, some in zip(groups, members, strict=True) for flow in some]
    if not named:
        return []
    counts: list[int] = yield Run([_count(door, group, flow) for group, flow in named])
    told = (yield from first_jobs(door, named)) if heads else [(0, 0)] * len(named)
    return [read_flow(*place, jobs, *head) for place, jobs, head in zip(named, counts, told, strict=True)]


def first_jobs(door: Door, places: Sequence[tuple[str, str]]) -> Steps[list[tuple[int, int]]]:
    """Tell of the first job of each of some flows, by group and name, when it was created and what it takes."""
    firsts: list[str] = yield Run(
        [command("ZRANGE", door.keys.backlog(*place), 0, 0, parse=_first) for place in places]
    )
    jobs: list[list[int]] = yield Run(
        [command("HMGET", door.keys.job(first), "created", "est", "out", parse=_numbers) for first in firsts]
    )
    return [(created, prompt + output) for created, prompt, output in jobs]


def tickets(door: Door, queues: Sequence[str]) -> list[Call[int]]:
    """Count, by queue, the jobs whose ticket nobody has taken yet; a message may carry several."""
    return [command("ZCARD", door.keys.tickets(queue), parse=int) for queue in queues]


def by_tier(registry: Registry, issued: Iterable[tuple[str, int]], waiting: Iterable[Flow]) -> dict[str, int]:
    """Sum the jobs that wait with a ticket, by queue, and without one, by tier."""
    counts = dict.fromkeys(registry.tiers, 0)
    for queue, jobs in [*issued, *((flow.queue, flow.jobs) for flow in waiting)]:
        (tier,) = tiers_of([queue])
        counts[tier] = counts.get(tier, 0) + jobs
    return counts


def maintained(asking: Asking) -> Steps[MaintenanceInfo]:
    """Tell what is in maintenance and how many jobs wait. Needs Redis."""
    door = asking.door
    queues = queues_of(door.registry.tiers)
    first: list[Any] = [clock(), maintenance(door), _parked_count(door), _parked_ids(door), *tickets(door, queues)]
    now, found, parked, ids, *issued = yield Run(first)
    both: list[str] = yield Run([command("HGET", door.keys.job(job_id), "waits", parse=word) for job_id in ids])
    waiting = yield from flows(door)
    held = Held(sum(flow.jobs for flow in waiting), sum(issued), max(0, parked - both.count("1")))
    in_tiers = by_tier(door.registry, zip(queues, issued, strict=True), waiting)
    return MaintenanceInfo(now, tuple(m for m in found if m.until == 0 or m.until > now), held, in_tiers)


def waiting_of(asking: Asking, job_id: str) -> Steps[Waiting | None]:
    """Say why a job waits and until when; None for one that runs or has ended. Raises JobNotFound."""
    job: Job | None = yield from run(asking.door.store.read(job_id))
    if job is None or job.tenant != asking.tenant:
        raise JobNotFound
    return (yield from explained(asking, job))


def explained(asking: Asking, job: Job) -> Steps[Waiting | None]:
    """Say why a job that was read whole waits."""
    if job.terminal:
        return None
    door = asking.door
    availability, alive = yield from asking.seen(alive=True)
    charge = _charge(door, job, availability)
    group = group_of(job.model, job.priority)
    flow = flow_of(job.queue, job.tenant, outage=in_outage(job))
    rank, view, now, *raw = yield Run(
        [
            command("ZRANK", door.keys.backlog(group, flow), job.id, parse=lambda found: found),
            _look(door, charge.model),
            clock(),
            *(budget(door, tenant) for tenant in (WHOLE, job.tenant)),
        ]
    )
    ahead = 0
    if rank is not None:
        ahead = _ahead((yield from flows(door)), job, int(rank))
    (tier,) = tiers_of([job.queue])
    place = Place(tier, int(LANES[job.priority]), rank is not None, ahead, alive.get(tier, 0))
    caps = (read_budget(tenant, part, now) for tenant, part in zip((WHOLE, job.tenant), raw, strict=True))
    return explain(job, view, charge, place, [cap for cap in caps if cap is not None])


def budgets(door: Door) -> Steps[list[Budget]]:
    """List the spend caps, that of everybody first."""
    now, tenants = yield Run([clock(), capped(door)])
    raw = yield Run([budget(door, tenant) for tenant in tenants])
    found = (read_budget(tenant, part, now) for tenant, part in zip(tenants, raw, strict=True))
    return [caps for caps in found if caps is not None]


def refusals(asking: Asking) -> Steps[list[Refused]]:
    """Tell what was refused in the last 24 hours, those that were most in the hour under way first. Needs Redis."""
    now: int = yield from run(clock())
    return (yield from run(read(asking.door.keys, now)))


def _ahead(found: Iterable[Flow], job: Job, rank: int) -> int:
    """Count the jobs of its model that go before it: all of higher lanes, and of the other flows a fair share."""
    lane = int(LANES[job.priority])
    ahead = rank
    for flow in found:
        if flow.model == job.model and flow.lane < lane:
            ahead += flow.jobs
        elif flow.model == job.model and flow.lane == lane and (flow.queue, flow.tenant) != (job.queue, job.tenant):
            ahead += min(rank, flow.jobs)
    return ahead


def _charge(door: Door, job: Job, availability: Availability) -> Charge:
    name = door.served(job.model, availability)
    model = door.registry.models.get(name)
    figures = _figures(door, name)
    if job.body and job.request().get("service_tier") == FLEX:
        name, figures = flex_gate(name, figures)
    worst = 0
    if model is not None and model.priced_per is PricedPer.MILLION_TOKENS:
        most = max(job.estimated_tokens, max_prompt_tokens(len(job.body)))
        worst = worst_case_nano_usd(model, most, job.output_tokens) + door.tools_reserve(model, job.builtin_tools)
    return Charge(name, door.settings.org, figures, job.estimated_tokens, job.output_tokens, worst)


def _figures(door: Door, model: str) -> tuple[int, ...]:
    known = door.registry.models.get(model)
    if door.failover is not None and model == door.failover.model.id:
        known = door.failover.model
    return configured(known.limits.get(door.settings.groq_plan) if known else None)


def _look(door: Door, gate: str) -> Call[GateView]:
    model, _, flex = gate.partition("#")
    figures = _figures(door, model)
    if flex:
        _, figures = flex_gate(model, figures)
    keys = gate_keys(door.keys, door.settings.org, gate, WHOLE)
    return look(keys, " ".join(map(str, figures)))


def gate_info(gate: str, tier: str, view: GateView, waiting: Sequence[Flow]) -> GateInfo:
    """Put a gate together with the flows that wait at it; one whose first job was not read tells no tokens."""
    by_lane = [0, 0, 0]
    for flow in waiting:
        by_lane[flow.lane] += flow.jobs
    first = min(waiting, key=lambda flow: (flow.lane, not flow.tokens), default=None)
    oldest = min((flow.oldest for flow in waiting if flow.oldest), default=None)
    counts = (by_lane[0], by_lane[1], by_lane[2])
    return GateInfo(gate, tier, view, counts, oldest, first.tokens if first else 0)


def _members(door: Door, group: str) -> Call[list[str]]:
    return command("ZRANGE", door.keys.flows(group), 0, -1, parse=words)


def _count(door: Door, group: str, flow: str) -> Call[int]:
    return command("ZCARD", door.keys.backlog(group, flow), parse=int)


def read_flow(group: str, name: str, jobs: int, oldest: int = 0, tokens: int = 0) -> Flow:
    """Read a flow's place in the backlog out of its group's name and its own."""
    lane, _, model = group.partition("|")
    queue, tenant = parts_of(name)
    return Flow(int(lane), model, queue, tenant, jobs, oldest, tokens)


def _parked_count(door: Door) -> Call[int]:
    return command("ZCARD", door.keys.parked, parse=int)


def _parked_ids(door: Door) -> Call[list[str]]:
    return command("ZRANGE", door.keys.parked, 0, PARKED_READ - 1, parse=words)


def _sorted(raw: Iterable[bytes]) -> list[str]:
    return sorted(word(name) for name in raw)


def _first(raw: Sequence[bytes]) -> str:
    return word(raw[0]) if raw else "none"


def _numbers(raw: Sequence[bytes | None]) -> list[int]:
    return [int(float(value or 0)) for value in raw]
