"""The feeder: gives waiting jobs their tickets just ahead of admission, so that no backlog floods broker or workers.

One process at a time does it; should two, a job is taken out of the backlog by one of them only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.dispatch.queues import queues_of
from vessel.errors import Unreachable
from vessel.gate.feeding import Candidate, Flow, Lane, Room, choose
from vessel.gate.limiter import Charge, configured
from vessel.gate.view import look
from vessel.jobs.flows import goes_anywhere, waits_out
from vessel.jobs.steps import Feed
from vessel.keyspace.names import gate_keys
from vessel.keyspace.script import command, scored, word, words
from vessel.keyspace.server import clock
from vessel.maintain.carry import living
from vessel.observe.logs import get_logger
from vessel.upstream.outcome import Reason
from vessel.wire import OnOutage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.gate.view import GateView
    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner
    from vessel.keyspace.script import Call
    from vessel.registry import Limits
    from vessel.submit import Door

LOOKED_AT, LOOKED_AT_LEAST = 64, 16
"""Jobs of one flow that are read in a tick."""

MOST_FLOWS, MOST_PAGES = 1000, 10
"""Flows that are looked at in a tick, and how many times as many are passed over, as nothing serves them now."""

CATCH_UP_TOKENS = 100_000
"""How far a flow that could not go stays behind the others at most (include/backlog.lua has the same for new ones)."""

RESTS_MS = 10_000
SLOTS_UNKNOWN = 100
CLAIMED_WITHIN_MS = 1000
"""How long a ticket is on its way from its queue to its claim at most, where the worker that took it is not full."""

TICKETS_PART, BUSY_PART = 0.5, 0.9
"""Parts of all slots, for jobs with a ticket and for all: so that interactive work finds a free one."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gate:
    """One gate in this tick: the model behind it, and what it looks like."""

    model: str
    figures: tuple[int, ...]
    view: GateView
    room: Room


@dataclass(frozen=True, slots=True)
class Waiting:
    """The jobs of one flow that are looked at, as candidates for a ticket."""

    flow: Flow
    jobs: Mapping[str, Job]


class Feeder:
    """Feeds the jobs of all groups; holds nothing between ticks but sizes of jobs and since when lanes wait."""

    def __init__(self, door: Door, runner: AsyncRunner) -> None:
        """Take the shared handles."""
        self.door, self.keys, self.store, self.runner = door, door.keys, door.store, runner
        self._usual: dict[str, float] = {}
        self._since: dict[tuple[str, int], float] = {}
        self._ticks = 0

    async def tick(self) -> int:
        """Feed what can be admitted soon; returns how many jobs got their ticket."""
        groups: list[str] = await self.runner.run(
            command("SMEMBERS", self.keys.groups, parse=lambda raw: sorted(word(g) for g in raw))
        )
        if not groups:
            return 0
        calls: list[Any] = [self.door.availability(), self.door.alive(), clock()]
        availability, alive, now = await self.runner.run_all(calls)
        by_gate: dict[str, list[tuple[int, str]]] = {}
        for group in groups:
            lane, _, model = group.partition("|")
            by_gate.setdefault(self.door.served(model, availability), []).append((int(lane), group))
        places = await self._places(alive, now)
        fed = 0
        self._ticks += 1
        first = self._ticks % len(by_gate)  # in turn, since the first ones get the places
        for served in (list(by_gate) * 2)[first : first + len(by_gate)]:
            fed += await self._guarded(served, by_gate[served], alive, places - fed)
        return fed

    async def _places(self, alive: Mapping[str, int], now: int) -> int:
        """Count the jobs that may be given a ticket before the workers' slots are as good as taken."""
        queues = queues_of([tier for tier, workers in alive.items() if workers])
        calls = [call for queue in queues for call in self._issued(queue, now)]
        slots, running, *counts = await self.runner.run_all(
            [self.door.slots(), command("ZCARD", self.keys.leases, parse=int), *calls]
        )
        slots = slots or SLOTS_UNKNOWN
        # Beyond its slots a worker may hold tickets for as long as it is busy; where a queue is empty they are all in
        # such hands, and keep no other worker's slots.
        issued = sum(
            every if listed else young
            for listed, every, young in zip(counts[::3], counts[1::3], counts[2::3], strict=True)
        )
        return int(min(slots * TICKETS_PART - issued, slots * BUSY_PART - running - issued))

    def _issued(self, queue: str, now: int) -> list[Call[int]]:
        """Count a queue's messages, its unclaimed tickets, and those of them that may be on their way to a claim."""
        tickets = self.keys.tickets(queue)
        return [
            command("LLEN", self.keys.queue(queue), parse=int),
            command("ZCARD", tickets, parse=int),
            command("ZCOUNT", tickets, now - CLAIMED_WITHIN_MS, "+inf", parse=int),
        ]

    async def _guarded(
        self, served: str, lanes: list[tuple[int, str]], alive: Mapping[str, int], places: int
    ) -> int:  # fmt: skip
        try:
            return await self._feed(served, lanes, alive, places)
        except Unreachable:
            raise
        except Exception as error:  # noqa: BLE001  one gate's trouble must not keep the others from being fed
            log.error("feed.failed", model=served, error=type(error).__name__)  # noqa: TRY400  no texts
            return 0

    async def _feed(self, served: str, lanes: list[tuple[int, str]], alive: Mapping[str, int], places: int) -> int:
        limits = self._limits(served)
        figures = configured(limits)
        keys = gate_keys(self.keys, self.door.settings.org, served, "*")
        view = await self.runner.run(look(keys, " ".join(map(str, figures))))
        gate = Gate(served, figures, view, Room(view, places, (limits.concurrency if limits else None) or 0))
        found: dict[int, list[Waiting]] = {}
        for lane, group in lanes:
            found.setdefault(lane, []).extend(await self._flows(group, gate, alive))
        waited = {lane: self._waited_ms(served, lane, view) for lane in found}
        chosen = set(choose(gate.room, [Lane(n, [w.flow for w in flows], waited[n]) for n, flows in found.items()]))
        feeds = []
        for lane, flows in found.items():
            going = [(job, w.flow.given) for w in flows for job_id, job in w.jobs.items() if job_id in chosen]
            self._note_start(served, lane, started=bool(going), waits=any(w.jobs for w in flows))
            for job, given in going:
                tokens = job.estimated_tokens + job.output_tokens
                feeds.append(self.store.feed(job, keys, Feed(tokens, given, _queue(job, alive), waited[lane])))
        answers = await self.runner.run_all(feeds)
        return sum(answer.word == "done" for answer in answers)

    def _waited_ms(self, served: str, lane: int, view: GateView) -> int:
        """Say for how long none of a lane has started although some wait: as the gate knows, or as seen here."""
        if view.waiting_since[lane]:
            return max(0, view.now - view.waiting_since[lane])
        since = self._since.get((served, lane))
        return int((asyncio.get_running_loop().time() - since) * 1000) if since is not None else 0

    def _note_start(self, served: str, lane: int, *, started: bool, waits: bool) -> None:
        if started or not waits:
            self._since.pop((served, lane), None)
        else:
            self._since.setdefault((served, lane), asyncio.get_running_loop().time())

    def _limits(self, model: str) -> Limits | None:
        failover = self.door.failover
        known = failover.model if failover and failover.model.id == model else self.door.registry.models.get(model)
        return known.limits.get(self.door.settings.groq_plan) if known else None

    async def _flows(self, group: str, gate: Gate, alive: Mapping[str, int]) -> list[Waiting]:
        """Read a group's flows as far as they may be fed in this tick."""
        rows = await self._going(group, gate, alive)
        if not rows:
            return []
        most = self._worth_reading(group, gate.room)
        ids = await self.runner.run_all(
            [command("ZRANGE", self.keys.backlog(group, flow), 0, most - 1, parse=words) for flow, _ in rows]
        )
        wanted = [job_id for some in ids for job_id in some]
        read = dict(zip(wanted, await self.runner.run_all([self.store.peek(i) for i in wanted]), strict=True))
        gone = [(flow, i) for (flow, _), some in zip(rows, ids, strict=True) for i in some if read[i] is None]
        await self.runner.run_all([self.store.forget(job_id, group, flow) for flow, job_id in gone])
        jobs = [job for job in read.values() if job is not None]
        if jobs:
            self._usual[group] = sum(job.estimated_tokens + job.output_tokens for job in jobs) / len(jobs)
        least = max(given for _, given in rows) - CATCH_UP_TOKENS
        return [
            self._waiting(flow, max(given, least), [job for i in some if (job := read[i]) is not None], gate)
            for (flow, given), some in zip(rows, ids, strict=True)
        ]

    async def _going(self, group: str, gate: Gate, alive: Mapping[str, int]) -> list[tuple[str, float]]:
        """Name the first flows that may go now; many of a dead tier stand in nobody's way."""
        going: list[tuple[str, float]] = []
        for first in range(0, MOST_PAGES * MOST_FLOWS, MOST_FLOWS):
            asked = command("ZRANGE", self.keys.flows(group), first, first + MOST_FLOWS - 1, "WITHSCORES", parse=scored)
            page = await self.runner.run(asked)
            going += [(flow, given) for flow, given in page if _goes(flow, gate.view, alive)]
            if len(page) < MOST_FLOWS or len(going) >= MOST_FLOWS:
                break
        return going[:MOST_FLOWS]

    def _worth_reading(self, group: str, room: Room) -> int:
        usual = max(1.0, self._usual.get(group, 500.0))
        tokens = [left / usual for name, left in room.left.items() if name.startswith("t")]
        requests = [left for name, left in room.left.items() if name.startswith("r")]
        fits = min([LOOKED_AT, room.places, *(n + 2 for n in tokens + requests)])
        return int(max(LOOKED_AT_LEAST, fits))

    def _waiting(self, flow: str, given: float, jobs: Sequence[Job], gate: Gate) -> Waiting:
        view = gate.view
        stays = waits_out(flow)
        decides = not stays and "open" in {view.model.state, view.provider.state}
        candidates: list[Candidate] = []
        for job in jobs:
            held = view.held(job.tier) is not None
            candidate = self._candidate(job, gate, decides=decides or (held and not stays))
            # In a maintenance a job is only to decide that it does not wait.
            if not _rests(job, view.now) and not (held and (candidate.asked or stays)):
                candidates.append(candidate)
        taken = {candidate.id for candidate in candidates}
        return Waiting(Flow(given, candidates), {job.id: job for job in jobs if job.id in taken})

    def _candidate(self, job: Job, gate: Gate, *, decides: bool) -> Candidate:
        """Make a job a candidate; `decides`: one that waits for quota has not decided yet what to do in an outage."""
        charge = Charge(gate.model, self.door.settings.org, gate.figures, job.estimated_tokens, job.output_tokens)
        undecided = decides and job.reason == Reason.RATE_LIMITED
        return Candidate(job.id, charge, not undecided and (job.waits_for_gate or _can_only_wait(job, gate.view)))


def _goes(flow: str, view: GateView, alive: Mapping[str, int]) -> bool:
    if goes_anywhere(flow):
        return any(alive.values())
    tier = _tier(flow)
    return bool(alive.get(tier)) and (view.held(tier) is None or not waits_out(flow))


def _can_only_wait(job: Job, view: GateView) -> bool:
    """Tell whether a job has no choice but to wait, so that it needs no ticket to find that out."""
    if job.policy.get("max_wait") is not None or job.policy.get("on_outage", OnOutage.QUEUE) != OnOutage.QUEUE:
        return False
    return job.hop + 1 == len(job.hops) or view.provider.state == "open"


def _rests(job: Job, now_ms: int) -> bool:
    """Tell whether a job was just held by its tenant's spend cap, which is not to be seen in the model's gate."""
    return job.waits_for_gate and job.reason == Reason.OVER_BUDGET and now_ms - job.updated_at < RESTS_MS


def _tier(flow: str) -> str:
    return flow.partition("|")[0].removesuffix(".batch")


def _queue(job: Job, alive: Mapping[str, int]) -> str:
    """Name the queue for a job's ticket: its own, or a living one when nobody serves that."""
    return job.queue if alive.get(_tier(job.queue)) else living(job, alive) or job.queue
