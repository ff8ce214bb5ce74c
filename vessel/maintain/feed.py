"""The feeder: gives waiting jobs their tickets just ahead of admission, so that no backlog floods broker or workers.

One process at a time does it; should two, a job is taken out of the backlog by one of them only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.gate.feeding import Candidate, Flow, Room, choose
from vessel.gate.limiter import Charge, configured
from vessel.gate.view import look
from vessel.jobs.store import goes_anywhere
from vessel.keyspace.names import gate_keys
from vessel.keyspace.script import command, word
from vessel.maintain.carry import living
from vessel.registry import Vessel, resolve, vessel_of
from vessel.upstream.outcome import Reason
from vessel.wire import OnOutage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.gate.view import GateView
    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner
    from vessel.registry import Availability, Limits
    from vessel.submit import Door

LOOKED_AT = 64
"""Jobs of one flow that are read at most in a tick."""

MOST_FLOWS = 1000
RESTS_MS = 5000
SLOTS_UNKNOWN = 100


class Feeder:
    """Feeds the jobs of all groups; holds nothing between ticks but how large a flow's jobs were lately."""

    def __init__(self, door: Door, runner: AsyncRunner) -> None:
        """Take the shared handles."""
        self.door, self.keys, self.store, self.runner = door, door.keys, door.store, runner
        self._usual: dict[str, float] = {}

    async def tick(self) -> int:
        """Feed what can be admitted soon; returns how many jobs got their ticket."""
        groups: list[str] = await self.runner.run(
            command("SMEMBERS", self.keys.groups, parse=lambda raw: sorted(word(g) for g in raw))
        )
        if not groups:
            return 0
        calls: list[Any] = [self.door.availability(), self.door.alive(), self.door.slots()]
        availability, alive, slots = await self.runner.run_all(calls)
        by_gate: dict[str, list[tuple[int, str]]] = {}
        for group in groups:
            lane, _, model = group.partition("|")
            by_gate.setdefault(self._served(model, availability), []).append((int(lane), group))
        fed = 0
        for served, lanes in by_gate.items():
            fed += await self._feed(served, lanes, alive, slots or SLOTS_UNKNOWN)
        return fed

    async def _feed(self, served: str, lanes: list[tuple[int, str]], alive: Mapping[str, int], slots: int) -> int:
        limits = self._limits(served)
        figures = configured(limits)
        keys = gate_keys(self.keys, self.door.settings.org, served, "*")
        view = await self.runner.run(look(keys, " ".join(map(str, figures))))
        room = Room(view, slots, (limits.concurrency if limits else None) or 0)
        jobs: dict[str, Job] = {}
        found: dict[int, list[Flow]] = {}
        for lane, group in lanes:
            found.setdefault(lane, []).extend(await self._flows(group, room, view, alive, (served, figures), jobs))
        chosen = [jobs[job_id] for job_id in choose(room, list(found.items()))]
        answers = await self.runner.run_all(
            [
                self.store.feed(job, keys, job.estimated_tokens + job.output_tokens, queue=_queue(job, alive))
                for job in chosen
            ]
        )
        return sum(answer.word == "done" for answer in answers)

    def _served(self, model: str, availability: Availability) -> str:
        if vessel_of(model) is Vessel.OPENAI:
            return self.door.failover.model.id if self.door.failover else model
        return resolve(self.door.registry, model, availability) or model

    def _limits(self, model: str) -> Limits | None:
        failover = self.door.failover
        known = failover.model if failover and failover.model.id == model else self.door.registry.models.get(model)
        return known.limits.get(self.door.settings.groq_plan) if known else None

    async def _flows(
        self, group: str, room: Room, view: GateView, alive: Mapping[str, int], gate: tuple[str, tuple[int, ...]],
        jobs: dict[str, Job],
    ) -> list[Flow]:  # fmt: skip
        """Read a group's flows as far as they may be fed in this tick."""
        rows: list[tuple[str, float]] = await self.runner.run(
            command("ZRANGE", self.keys.flows(group), 0, MOST_FLOWS - 1, "WITHSCORES", parse=_scored)
        )
        rows = [(flow, given) for flow, given in rows if _goes(flow, view, alive)]
        most = self._worth_reading(group, room)
        if not rows or most <= 0:
            return []
        ids = await self.runner.run_all(
            [command("ZRANGE", self.keys.backlog(group, flow), 0, most - 1, parse=_words) for flow, _ in rows]
        )
        wanted = [job_id for some in ids for job_id in some]
        read = dict(zip(wanted, await self.runner.run_all([self.store.peek(i) for i in wanted]), strict=True))
        await self._forget(group, rows, ids, read)
        jobs |= {job_id: job for job_id, job in read.items() if job is not None}
        sizes = [job.estimated_tokens + job.output_tokens for job in read.values() if job is not None]
        if sizes:
            self._usual[group] = sum(sizes) / len(sizes)
        flows = []
        for (flow, given), some in zip(rows, ids, strict=True):
            held = view.held(_tier(flow)) is not None
            decides = goes_anywhere(flow) and (held or "open" in {view.model.state, view.provider.state})
            waiting = [jobs[i] for i in some if i in jobs and not _rests(jobs[i], view.now)]
            candidates = [self._candidate(job, gate, view, decides=decides) for job in waiting]
            # In a maintenance a job is only to decide that it goes elsewhere.
            flows.append(Flow(given, [c for c in candidates if not (held and c.asked)]))
        return flows

    def _worth_reading(self, group: str, room: Room) -> int:
        usual = max(1.0, self._usual.get(group, 500.0))
        tokens = [left / usual for name, left in room.left.items() if name.startswith("t")]
        requests = [left for name, left in room.left.items() if name.startswith("r")]
        return int(min([LOOKED_AT, max(1.0, room.places), *(max(0.0, n) + 2 for n in tokens + requests)]))

    def _candidate(self, job: Job, gate: tuple[str, tuple[int, ...]], view: GateView, *, decides: bool) -> Candidate:
        """Make a job a candidate; `decides`: one that waits for quota has not decided yet what to do in an outage."""
        model, figures = gate
        charge = Charge(model, self.door.settings.org, figures, job.estimated_tokens, job.output_tokens)
        undecided = decides and job.reason == Reason.RATE_LIMITED
        return Candidate(job.id, charge, not undecided and (job.waits_for_gate or _can_only_wait(job, view)))

    async def _forget(
        self, group: str, rows: Sequence[tuple[str, float]], ids: Sequence[list[str]], read: Mapping[str, Job | None]
    ) -> None:
        """Take entries out whose record has gone."""
        gone = [
            command("ZREM", self.keys.backlog(group, flow), job_id, parse=word)
            for (flow, _), some in zip(rows, ids, strict=True)
            for job_id in some
            if read[job_id] is None
        ]
        empty = [
            command("ZREM", self.keys.flows(group), flow, parse=word)
            for (flow, _), some in zip(rows, ids, strict=True)
            if not some
        ]
        await self.runner.run_all(gone + empty)


def _goes(flow: str, view: GateView, alive: Mapping[str, int]) -> bool:
    if goes_anywhere(flow):
        return any(alive.values())
    tier = _tier(flow)
    return bool(alive.get(tier)) and view.held(tier) is None


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


def _scored(raw: list[Any]) -> list[tuple[str, float]]:
    rows = raw if raw and isinstance(raw[0], (list, tuple)) else list(zip(raw[::2], raw[1::2], strict=True))
    return [(word(row[0]), float(row[1])) for row in rows]


def _words(raw: list[Any]) -> list[str]:
    return [word(i) for i in raw]
