"""Sweeps repair what was lost and leave alone what is well; any number of them may run at once."""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.contract.world import DAY_MS, HOUR_MS, OTHER_TIER, TIER, World, charge, success
from tests.waiting import wait_until, wait_until_async
from vessel.dispatch.ticket import render
from vessel.execute.persist import Spool
from vessel.gate.tokens import SHORT
from vessel.jobs.steps import Answer, Issue
from vessel.keyspace.lives import TTL_CLASSES, Life, family
from vessel.keyspace.script import command, word
from vessel.maintain import Sweeper, reconcile, sweep
from vessel.maintain.reconcile import Reconciler
from vessel.settings import load_settings
from vessel.submit import Door
from vessel.wire import JobState

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner
    from vessel.upstream.groq import GroqUpstream

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


@pytest.fixture
def door(world: World, tmp_path: Path) -> Door:
    """Give the door of the world's namespace."""
    place = {"redis_url": "redis://localhost", "data_dir": tmp_path, "namespace": world.keys.namespace}
    return Door(load_settings({}, **place, result_ttl=1))


@pytest.fixture
def reconciler(door: Door, runner: AsyncRunner, monkeypatch: pytest.MonkeyPatch) -> Reconciler:
    """Give a reconciler that suspects at once; a suspicion must still hold for two ticks."""
    monkeypatch.setattr(reconcile, "SUSPECT_AFTER_MS", 0)
    return Reconciler(door, runner)


def ticked(world: World) -> None:
    """Wait until Redis' clock shows another millisecond."""
    now = world.now_ms()
    wait_until(lambda: world.now_ms() > now)


async def settle_down(world: World, *reconcilers: Reconciler, ticks: int = 4) -> None:
    """Let some ticks pass, each in a millisecond of its own."""
    for _ in range(ticks):
        ticked(world)
        for reconciler in reconcilers:
            await reconciler.tick()


def pop(world: World, queue: str = TIER) -> bytes:
    """Take the next message out of a list, as Celery's BRPOP does."""
    message: bytes = world.client.rpop(world.keys.queue(queue))
    return message


def hold(world: World, message: bytes) -> None:
    """Note a message as delivered and unacknowledged, as kombu does."""
    tag = json.loads(message)["properties"]["delivery_tag"]
    world.client.hset(world.keys.unacked, tag, json.dumps([json.loads(message), "", TIER]))


def lose(world: World, how: str) -> Job:
    """Create a job and lose its ticket."""
    if how == "never pushed":
        job = world.queued(issue=Issue.MESSAGE_FOLLOWS)
        world.client.zadd(world.keys.tickets(TIER), {job.id: world.now_ms()})
        return job
    job = world.queued()
    message = pop(world)
    if how == "in a dead worker's hands":
        hold(world, message)
    return job


@pytest.mark.parametrize("how", ["never pushed", "popped and lost", "in a dead worker's hands"])
async def test_a_lost_ticket_is_issued_anew_once(
    world: World, reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """It is found however it was lost; the new one is of a new generation and is not issued again while it waits."""
    monkeypatch.setattr(reconcile, "HELD_AT_MOST_MS", 0)
    job = lose(world, how)
    await settle_down(world, reconciler, ticks=8)
    assert world.tickets() == [(job.id, 1)]
    assert world.events(job) == ["created", "reissued"]
    assert world.run(world.store.claim(job.id, 0, TIER, "late")) == Answer("stale", JobState.QUEUED)
    assert world.claim(job).generation == 2


async def test_one_tick_is_no_proof(world: World, reconciler: Reconciler) -> None:
    """A suspicion must hold for two ticks: the ticket may be between the list and its claim."""
    job = lose(world, "popped and lost")
    await settle_down(world, reconciler, ticks=1)
    world.claim(job)
    await settle_down(world, reconciler)
    assert world.tickets() == []


async def test_a_message_in_a_live_workers_hands_is_left(world: World, reconciler: Reconciler) -> None:
    """Prefetched and not claimed yet is not lost."""
    lose(world, "in a dead worker's hands")
    await settle_down(world, reconciler)
    assert world.tickets() == []


async def test_no_ticket_is_issued_anew_while_all_is_well(world: World, reconciler: Reconciler) -> None:
    """A backlog of single tickets and of messages with many is left alone, whatever its length and order."""
    for _ in range(5):
        world.queued()
        ticked(world)
    many = [world.queued(issue=Issue.MESSAGE_FOLLOWS) for _ in range(4)]
    for job in many:
        world.client.zadd(world.keys.tickets(TIER), {job.id: job.created_at})
    single = world.queued()
    envelope = render(TIER, [(job.id, 0) for job in many], "tag:m", "id", "shown")
    world.client.lpush(world.keys.queue(TIER), envelope)
    before = world.everything()
    await settle_down(world, reconciler)
    while world.tickets()[0][0] != single.id:
        world.claim(world.job(world.tickets()[0][0]))
        pop(world)
        await settle_down(world, reconciler, ticks=1)
    assert not {k for k in world.everything() if k not in before and ":tickets:" in k}
    assert "reissued" not in [name for job in (*many, single) for name in world.events(job)]


async def test_a_ticket_lost_from_a_backlog_is_found(world: World, reconciler: Reconciler) -> None:
    """What is older than the next one in the list has left the list; the others stay as they are."""
    lost = world.queued()
    pop(world)
    ticked(world)
    others = [world.queued().id for _ in range(3)]
    await settle_down(world, reconciler)
    assert world.tickets() == [*((job_id, 0) for job_id in others), (lost.id, 1)]


async def test_an_old_message_put_back_makes_no_other_look_lost(world: World, reconciler: Reconciler) -> None:
    """Celery restores the messages of a worker that left; what was issued since still waits behind them."""
    old = world.queued()
    message = pop(world)
    others = [world.queued() for _ in range(3)]
    ticked(world)
    world.run(world.store.reissue(old, TIER, int(world.client.zscore(world.keys.tickets(TIER), old.id))))
    world.client.rpush(world.keys.queue(TIER), message)
    before = world.tickets()
    await settle_down(world, reconciler)
    assert world.tickets() == before == [(old.id, 0), *((job.id, 0) for job in others), (old.id, 1)]


async def test_two_reconcilers_issue_one_ticket(world: World, reconciler: Reconciler, door: Door) -> None:
    """Both suspect, one issues."""
    job = lose(world, "popped and lost")
    await settle_down(world, reconciler, Reconciler(door, reconciler.runner))
    assert world.tickets() == [(job.id, 1)]


@pytest.mark.parametrize("fate", ["cancelled", "gone"])
async def test_a_ticket_without_a_waiting_job_is_forgotten(world: World, reconciler: Reconciler, fate: str) -> None:
    """Nothing is issued for a job that has ended or whose record is gone, and the note goes too."""
    job = lose(world, "popped and lost")
    if fate == "gone":
        world.client.delete(world.keys.job(job.id), world.keys.events(job.id))
    else:
        world.run(world.store.cancel(job))
        world.client.zadd(world.keys.tickets(TIER), {job.id: world.now_ms()})
    await settle_down(world, reconciler)
    assert world.tickets() == []
    assert world.client.zcard(world.keys.tickets(TIER)) == 0


async def test_a_note_in_the_wrong_queue_is_forgotten(world: World, reconciler: Reconciler) -> None:
    """The healthy ticket in the job's own queue is left as it is."""
    job = world.queued()
    world.client.zadd(world.keys.tickets(OTHER_TIER), {job.id: world.now_ms()})
    await settle_down(world, reconciler)
    assert world.client.zcard(world.keys.tickets(OTHER_TIER)) == 0
    assert world.tickets() == [(job.id, 0)]


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"body": 3}', b"\xff", b'{"properties":{"delivery_tag":"x"}}'])
async def test_junk_in_a_list_stops_no_sweep(world: World, reconciler: Reconciler, junk: bytes) -> None:
    """Another program's message is not ours to judge; it is stepped over when a worker has taken it."""
    job = lose(world, "popped and lost")
    world.client.rpush(world.keys.queue(TIER), junk)
    world.client.hset(world.keys.unacked, "x", junk)
    await settle_down(world, reconciler)
    pop(world)
    await settle_down(world, reconciler)
    assert world.tickets() == [(job.id, 1)]


# --- the sweeper ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweeper(door: Door, runner: AsyncRunner, tmp_path: Path) -> Sweeper:
    """Give a sweeper that knows of an earlier sweep."""
    return Sweeper(door, runner, worker="s", spool=Spool(tmp_path / "spool"), upstream=None)


async def test_a_tick_does_all_that_is_due(world: World, sweeper: Sweeper) -> None:
    """Parked jobs go on, lost ones are rescued with their booking, late ones expire."""
    world.run(world.lapsing.due())
    parked, lost, late = world.running(), world.running(lapsed=True), world.queued(deadline_ms=1)
    world.park(parked)
    world.freeze(rpd=0)
    assert world.start(lost, 1, charge(rpd=10), book_ms=DAY_MS).word == "booked"
    assert world.bookings() == 1
    ticked(world)

    async def done() -> bool:
        await sweeper.tick()
        states = [world.job(job.id).state for job in (parked.job, lost.job, late)]
        return states == [JobState.QUEUED, JobState.QUEUED, JobState.EXPIRED]

    await wait_until_async(done)
    assert world.bookings() == 0


async def test_jobs_are_fed_while_batches_unfold(sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many batches are open, nobody waits for a ticket until all of them have had their turn."""
    fed, unfolding = asyncio.Event(), asyncio.Event()

    async def unfold() -> int:
        unfolding.set()
        await asyncio.Event().wait()
        return 0

    async def feed() -> int:
        if unfolding.is_set():
            fed.set()
        return 0

    monkeypatch.setattr(sweeper.batches, "tick", unfold)
    monkeypatch.setattr(sweeper.feeder, "tick", feed)
    running = asyncio.ensure_future(sweeper.run())
    try:
        await asyncio.wait_for(fed.wait(), 20)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_tick_forgets_jobs_whose_record_is_gone(world: World, sweeper: Sweeper) -> None:
    """Entries of lost records do not hold up the sweep for ever."""
    sets = (world.keys.parked, world.keys.leases, world.keys.deadlines)
    for name in sets:
        world.client.zadd(name, {"job_gone": 1})
    world.run(world.lapsing.due())

    async def empty() -> bool:
        await sweeper.tick()
        return not any(world.client.zcard(name) for name in sets)

    await wait_until_async(empty)


async def test_an_ended_job_leaves_nothing_behind(world: World, sweeper: Sweeper) -> None:
    """After its time to live only the ledger knows of it, whichever way it ended and whatever came late."""
    world.store = type(world.store)(world.keys, world.store.template, ttl_ms=500, lease_ms=HOUR_MS)
    world.lapsing = type(world.store)(world.keys, world.store.template, ttl_ms=500, lease_ms=0)
    done = world.started(idempotency_key="k", deadline_ms=HOUR_MS)
    world.finish(done, success())
    lost = world.started(lapsed=True)
    world.rescue(lost.job)
    world.run(world.store.cancel(world.job(lost.job.id)))
    world.finish(lost, success())
    gone = world.started()
    world.client.delete(gone.keys.job, gone.keys.events)
    world.finish(gone, success())
    world.client.delete(world.keys.queue(TIER), world.keys.leases)

    async def pruned() -> bool:
        await sweeper.prune()
        return not world.client.exists(world.keys.index)

    await wait_until_async(pruned)
    left = {family(name.decode().partition(":")[2]) for name in world.client.scan_iter()}
    assert {name for name in left if TTL_CLASSES[str(name)].life is not Life.TIMED} <= {"ledger", "sums"}, left
    assert TTL_CLASSES["ledger"].life is Life.PERMANENT
    assert len(world.ledger()) == 3


async def test_pruning_passes_over_old_jobs_that_are_kept(
    world: World, sweeper: Sweeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many old jobs are still open, all entries behind them whose record has gone are dropped."""
    monkeypatch.setattr(sweep, "PRUNE_AT_ONCE", 3)
    kept = [world.queued().id for _ in range(4)]
    indices = (world.keys.index, world.keys.own_index(world.job(kept[0]).tenant))
    for index in indices:
        world.client.zadd(index, dict.fromkeys(kept, 1) | {f"job_gone{n}": 2 for n in range(20)})
    await sweeper.prune()
    for index in indices:
        assert sorted(world.client.zrange(index, 0, -1)) == sorted(i.encode() for i in kept)


async def test_a_process_that_leaves_hands_its_roles_over(
    door: Door, runner: AsyncRunner, sweeper: Sweeper, tmp_path: Path
) -> None:
    """The next one need not wait for the lease; what another one holds stays its own."""
    other = Sweeper(door, runner, worker="t", spool=Spool(tmp_path / "spool"), upstream=None)
    await sweeper.tick()
    await other.leave()
    await other.tick()
    role = command("GET", door.keys.role("sweeper"), parse=word)
    assert await runner.run(role) == "s"
    await sweeper.leave()
    assert not await runner.run(role)
    await other.tick()
    assert await runner.run(role) == "t"


async def test_a_load_of_a_vocabulary_costs_nobody_the_role(
    door: Door, runner: AsyncRunner, sweeper: Sweeper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is held for longer than the load stops the process, and then as ever; who has lost it loads nothing."""
    left = command("PTTL", door.keys.role("sweeper"), parse=int)
    other = Sweeper(door, runner, worker="t", spool=Spool(tmp_path / "spool"), upstream=None)
    loads: list[str] = []
    monkeypatch.setattr(sweep, "count", lambda _, model: loads.append(model))
    held: list[int] = []
    holds = sweeper._holds

    async def watched(role: str, lease_s: float) -> bool:
        held.append(await runner.run(left))
        return await holds(role, lease_s)

    monkeypatch.setattr(sweeper, "_holds", watched)
    await sweeper.tick()
    assert await sweeper.batches._counts([b"short"])
    assert not loads
    long = [b"x" * SHORT]
    assert not await other.batches._counts(long)
    assert not loads
    assert await sweeper.batches._counts(long)
    assert {"openai/gpt-oss-120b", "openai/gpt-oss-20b"} <= set(loads)
    assert held[-2] <= sweep.SWEEPER_LEASE_S * 1000 < held[-1]
    assert await runner.run(left) <= sweep.SWEEPER_LEASE_S * 1000
    loads.clear()
    assert await sweeper.batches._counts(long)
    assert not loads, "once is enough"


async def test_a_model_seen_gone_while_the_list_comes_counts_as_gone(
    world: World, door: Door, runner: AsyncRunner, tmp_path: Path
) -> None:
    """The list is as old as its question: what was learnt since is newer."""
    noted = world.keys.models

    class Listing:
        async def list_models(self) -> tuple[dict[str, Any], ...]:
            ticked(world)
            world.client.hset(noted, "gone:a", world.now_ms())
            return ({"id": "a"}, {"id": "b"}, {"id": "c", "active": False})

    asking = Sweeper(door, runner, worker="s", spool=Spool(tmp_path), upstream=cast("GroqUpstream", Listing()))
    await asking.refresh_models()
    seen = await runner.run(door.availability())
    assert (seen.listed, seen.gone) == (frozenset("ab"), frozenset("a"))


async def test_an_empty_list_of_models_is_not_believed(door: Door, runner: AsyncRunner, tmp_path: Path) -> None:
    """A proxy's empty answer would make every model unknown and fail every job; the last list stays."""

    class Listing:
        listed: tuple[dict[str, Any], ...] = ({"id": "a"},)

        async def list_models(self) -> tuple[dict[str, Any], ...]:
            return self.listed

    listing = Listing()
    asking = Sweeper(door, runner, worker="s", spool=Spool(tmp_path), upstream=cast("GroqUpstream", listing))
    await asking.refresh_models()
    listing.listed = ()
    await asking.refresh_models()
    assert (await runner.run(door.availability())).listed == frozenset("a")


async def test_a_usage_log_that_another_writer_has_is_not_called_level(sweeper: Sweeper) -> None:
    """The lease alone does not say that anything was written: the time since it was level goes on."""
    assert math.isnan(sweeper.usage_log_behind_s())
    with sweeper.accountant.usage_log._locked() as file:
        assert file is not None
        await sweeper._write_usage()
        since = sweeper._log_level_at or 0.0
        await sweeper._write_usage()
        assert since == sweeper._log_level_at
    await sweeper._write_usage()
    assert sweeper._log_level_at is not None
    assert sweeper._log_level_at > since


def leaky(world: World) -> Any:
    """Write a key of each kind that must not stay."""
    world.client.set(f"{world.keys.namespace}:idem:t:x", "job_x h")
    world.client.hset(world.keys.job("job_y"), "o:1", "x")
    world.client.set("other:thing:entirely", 1)
    return world.client


def test_the_leak_check_finds_leaks(world: World) -> None:
    """A stub, an orphaned key and a stranger are all reported; the check can fail."""
    from tests.contract.conftest import leaks  # noqa: PLC0415  pytest loads it as a plugin, not as this module

    client = leaky(world)
    assert len(leaks(client)) == 3
    client.flushall()
