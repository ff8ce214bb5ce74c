"""What must hold after every step of the machine, whatever was called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis.stateful import RuleBasedStateMachine, invariant

from tests.contract.world import HOPS, OTHER_TIER, TIER, World
from vessel.jobs.flows import flow_of, group_of
from vessel.jobs.record import read_job
from vessel.jobs.steps import FAILED, ORPHANED, UNKNOWN
from vessel.keyspace.script import pairs
from vessel.wire import JobState, Priority

if TYPE_CHECKING:
    import redis

    from tests.contract.shadow import Handle, Shadow
    from vessel.jobs.model import Job

GROUP = group_of(HOPS[0].model, Priority.NORMAL)
FLOWS = (flow_of(TIER, "t"), flow_of(OTHER_TIER, "t"))
CHARGED = frozenset({JobState.SUCCEEDED, UNKNOWN, ORPHANED, FAILED})


class Promises(RuleBasedStateMachine):
    """Compares records, sets and ledger with what the model believes."""

    client: redis.Redis
    """Set by a subclass."""
    world: World
    jobs: list[Shadow]
    handles: list[Handle]
    ends: dict[str, tuple[Any, ...] | None]
    rows: dict[str, dict[bytes, bytes]]

    @invariant()
    def every_promise_is_kept(self) -> None:
        """Read everything in one round trip, and check it."""
        keys, ids = self.world.keys, [shadow.id for shadow in self.jobs]
        pipe = self.client.pipeline(transaction=False)
        for job_id in ids:
            pipe.hgetall(keys.job(job_id))
        for name in (
            keys.leases,
            keys.parked,
            keys.deadlines,
            keys.index,
            keys.tickets(TIER),
            keys.tickets(OTHER_TIER),
            keys.flows(GROUP),
            *(keys.backlog(GROUP, flow) for flow in FLOWS),
        ):
            pipe.zrange(name, 0, -1)
        pipe.xrange(keys.ledger)
        found = pipe.execute()
        records = dict(zip(ids, found, strict=False))
        for shadow in self.jobs:
            self.the_record_is_what_the_model_says(shadow, read_job(pairs(records[shadow.id])))
            self.written_rows_stay(shadow.id, records[shadow.id])
            self.one_lease_is_current(shadow, records[shadow.id])
        sets = [{m.decode() for m in part} for part in found[len(ids) : -1]]
        self.the_sets_agree_with_the_records(*sets[:6])
        self.the_backlog_holds_who_waits_there(*sets[6:])
        self.each_charged_call_is_booked_once([(f[b"call"].decode(), f[b"outcome"].decode()) for _, f in found[-1]])

    def the_record_is_what_the_model_says(self, shadow: Shadow, job: Job) -> None:
        """State, generation, result, attempts and counts; an end is never left and a result never changes."""
        told = (job.state, job.generation, job.response, job.kills, job.lapses, job.queue)
        expected = (shadow.state, shadow.generation, shadow.response, shadow.kills, shadow.lapses, shadow.queue)
        assert told == expected
        labels = [shadow.labels.get(number, UNKNOWN) for number in range(1, shadow.started + 1)]
        assert [attempt.outcome for attempt in job.attempts] == labels
        end = (job.state, job.generation, job.response, job.finished_at, job.reason) if job.terminal else None
        assert self.ends.setdefault(job.id, end) == end or self.ends[job.id] is None
        self.ends[job.id] = end

    def written_rows_stay(self, job_id: str, record: dict[bytes, bytes]) -> None:
        """Attempts are append-only: a row or an ending that was written keeps its bytes."""
        rows = {name: value for name, value in record.items() if name[:2] in {b"a:", b"o:", b"u:", b"at", b"by"}}
        assert self.rows.setdefault(job_id, {}).items() <= rows.items()
        self.rows[job_id] = rows

    def one_lease_is_current(self, shadow: Shadow, record: dict[bytes, bytes]) -> None:
        """A running job has one owner, the last that claimed it; no other job has one."""
        assert record.get(b"owner", b"").decode() == shadow.owner
        assert bool(shadow.owner) == (shadow.state is JobState.RUNNING)
        assert not shadow.owner or shadow.owner == [h.held.owner for h in self.handles if h.id == shadow.id][-1]

    def the_sets_agree_with_the_records(
        self, leases: set[str], parked: set[str], deadlines: set[str], index: set[str], *tickets: set[str]
    ) -> None:
        """Leases, parked jobs, deadlines, tickets and index count what is there, and no more."""
        states = {shadow.id: shadow.state for shadow in self.jobs}
        assert leases == {i for i, state in states.items() if state is JobState.RUNNING}
        assert parked == {shadow.id for shadow in self.jobs if shadow.due}
        assert deadlines <= {s.id for s in self.jobs if s.has_deadline and s.open}
        assert index == set(states)
        for queue, noted in zip((TIER, OTHER_TIER), tickets, strict=True):
            ticketed = {s.id for s in self.jobs if s.state is JobState.QUEUED and not s.backlog and s.queue == queue}
            assert ticketed <= noted

    def the_backlog_holds_who_waits_there(self, flows: set[str], *waiting: set[str]) -> None:
        """Each waiting job once, in the flow of its queue; a flow without jobs is gone, and so is an empty group."""
        for flow, queue, members in zip(FLOWS, (TIER, OTHER_TIER), waiting, strict=True):
            assert members == {s.id for s in self.jobs if s.backlog and s.queue == queue}
            assert (flow in flows) == bool(members)
        assert self.client.smembers(self.world.keys.groups) == ({GROUP.encode()} if flows else set())

    def each_charged_call_is_booked_once(self, booked: list[tuple[str, str]]) -> None:
        """One ledger entry per charged call, of its last known outcome; none for a call that was not charged."""
        expected = [(f"{s.id}/{number}", label) for s in self.jobs for number, label in s.ledger.items()]
        assert sorted(booked) == sorted(expected)
        assert {label for _, label in booked} <= CHARGED
