"""A sweep does all that is due, hands its roles over, and leaves nothing behind; any number of them may run at once."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, cast

import pytest

from tests.contract.world import DAY_MS, HOUR_MS, TIER, World, charge, success
from tests.waiting import wait_until_async
from vessel.execute.persist import Spool
from vessel.gate.tokens import SHORT
from vessel.keyspace.lives import TTL_CLASSES, Life, family
from vessel.keyspace.script import command, word
from vessel.maintain import Sweeper, sweep
from vessel.wire import JobState

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.keyspace.connect import AsyncRunner
    from vessel.submit import Door
    from vessel.upstream.groq import GroqUpstream

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


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
    world.tick()

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
            world.tick()
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
