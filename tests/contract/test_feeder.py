"""The feeder on every server: who waits in the backlog gets a ticket when there is room, a worker, and nothing held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.world import DAY_MS, MODEL, OTHER_TIER, TIER, World, charge
from tests.waiting import wait_until
from vessel.jobs.flows import group_of
from vessel.jobs.model import Hop
from vessel.jobs.steps import NO_ATTEMPT, Issue, Wait
from vessel.keyspace.script import Arg, load, word
from vessel.maintain import feed
from vessel.maintain.feed import Feeder
from vessel.settings import load_settings
from vessel.submit import Door
from vessel.wire import JobState, Priority

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")

REGISTRY = f'[models."{MODEL}"]\nlimits.developer = {{ rpm = 60, tpm = 6000 }}\n'
OF = charge(rpm=60, tpm=6_000)


@pytest.fixture
def feeder(world: World, runner: AsyncRunner, tmp_path: Path) -> Feeder:
    """Give a feeder of a vessel with one live worker of ten slots."""
    (tmp_path / "registry.toml").write_text(REGISTRY, "utf-8")
    place: dict[str, Any] = {"data_dir": tmp_path, "namespace": world.keys.namespace, "org": "default"}
    settings = load_settings({}, redis_url="redis://localhost", registry=tmp_path / "registry.toml", **place)
    beat(world, TIER)
    # The model of these jobs is retired today; the gate that counts is its own while it is listed.
    world.client.hset(world.keys.models, mapping={"listed": f'["{MODEL}"]', "fetched_at": world.now_ms()})
    return Feeder(Door(settings), runner)


def beat(world: World, tier: str) -> None:
    """Say that a worker of a tier lives."""
    said: dict[str, Arg] = {"worker": "w", "silent_ms": DAY_MS, "slots_here": 100}
    world.run(load("heartbeat").call({"slots": world.keys.slots}, said, word, more_keys=[world.keys.live(tier)]))


def waiting(world: World, count: int, **more: Any) -> list[Job]:
    """Put jobs into the backlog."""
    kept: dict[str, Any] = {"priority": Priority.BATCH, "hops": (Hop(MODEL, TIER),), "estimated_tokens": 100} | more
    return [world.queued(issue=Issue.BACKLOG, **kept) for _ in range(count)]


async def test_jobs_get_tickets_as_far_as_the_gate_has_room(world: World, feeder: Feeder) -> None:
    """Three requests are left: three tickets; more when there is more."""
    jobs = waiting(world, 6)
    world.freeze(rpm=3, tpm=6_000)
    assert await feeder.tick() == 3
    fed = {job_id for job_id, _ in world.tickets()}
    assert fed < {job.id for job in jobs}
    assert await feeder.tick() == 0  # those three are on their way
    for job in jobs:
        if job.id in fed:
            world.start(world.claim(job), 1, OF)
    world.freeze(rpm=60, tpm=6_000)
    assert await feeder.tick() == 3
    assert not world.client.exists(world.keys.groups)


async def test_tickets_in_a_busy_workers_hands_keep_no_other_slots(world: World, feeder: Feeder) -> None:
    """Those in a queue count, and those on their way from it; those that a full worker has held for long do not."""
    world.freeze(rpm=60, tpm=6_000)
    world.client.hset(world.keys.slots, "w", 10)
    waiting(world, 20)
    assert await feeder.tick() == 5  # half of the slots
    assert await feeder.tick() == 0
    taken = [job_id for job_id, _ in world.tickets()]
    tickets = world.keys.tickets(TIER)
    world.client.zadd(tickets, dict.fromkeys(taken, world.now_ms() - 5_000))
    assert await feeder.tick() == 0
    world.client.delete(world.keys.queue(TIER))
    world.client.zadd(tickets, {taken[0]: world.now_ms()})
    assert await feeder.tick() == 4  # one may be on its way


async def test_a_job_goes_through_the_backlog_to_its_end(world: World, feeder: Feeder) -> None:
    """Refused by the gate it waits there, and is fed when the level is back."""
    world.freeze(rpm=0, tpm=6_000)
    held = world.running(hops=(Hop(MODEL, TIER),))
    assert world.start(held, 1, OF).word == "wait"
    world.wait(held)
    assert await feeder.tick() == 0
    assert world.job(held.job.id).state is JobState.PARKED
    world.freeze(rpm=1, tpm=6_000)
    assert await feeder.tick() == 1
    assert world.start(world.claim(held.job, "w/2"), 1, OF).word == "started"


async def test_a_deadline_goes_first(world: World, feeder: Feeder) -> None:
    """Within a tenant's jobs the one whose time is up first."""
    waiting(world, 2)
    (urgent,) = waiting(world, 1, deadline_ms=60_000)
    world.freeze(rpm=1, tpm=6_000)
    await feeder.tick()
    assert [job_id for job_id, _ in world.tickets()] == [urgent.id]


async def test_tenants_get_the_same_tokens(world: World, feeder: Feeder) -> None:
    """A thousand jobs of one do not stand before the first of another."""
    ours = waiting(world, 30, tenant="a")
    theirs = waiting(world, 3, tenant="b")
    world.freeze(rpm=6, tpm=6_000)
    await feeder.tick()
    fed = {job_id for job_id, _ in world.tickets()}
    assert {job.id for job in theirs} <= fed
    assert len(fed & {job.id for job in ours}) == 3


async def test_a_tier_without_workers_is_not_fed(world: World, feeder: Feeder) -> None:
    """Its jobs keep their place until somebody comes."""
    queued = world.new(priority=Priority.BATCH, hops=(Hop(MODEL, OTHER_TIER),))
    world.run(world.store.create(queued, OTHER_TIER, issue=Issue.BACKLOG))
    assert await feeder.tick() == 0
    beat(world, OTHER_TIER)
    assert await feeder.tick() == 1
    assert world.tickets(OTHER_TIER) == [(queued.id, 0)]


@pytest.mark.parametrize("name", ["all", f"tier:{TIER}"])
async def test_maintenance_stops_the_feed(world: World, feeder: Feeder, name: str) -> None:
    """And lifting it goes on, no faster than the limits allow."""
    waiting(world, 5)
    world.freeze(rpm=2, tpm=6_000)
    world.client.hset(world.keys.maintenance, name, "0 1 racks")
    assert await feeder.tick() == 0
    world.client.delete(world.keys.maintenance)
    assert await feeder.tick() == 2


async def test_a_job_held_by_its_spend_cap_is_not_asked_at_every_tick(world: World, feeder: Feeder) -> None:
    """It rests for a while and lets the jobs of others pass."""
    (poor,) = waiting(world, 1, tenant="poor")
    await feeder.tick()
    held = world.claim(poor)
    world.run(world.store.park(held, NO_ATTEMPT, 0, Wait(60_000, "over_budget", for_gate=True)))
    (rich,) = waiting(world, 1, tenant="rich")
    assert await feeder.tick() == 1
    assert world.tickets()[-1][0] == rich.id
    world.client.hset(world.keys.job(poor.id), "updated", world.now_ms() - 11_000)
    assert await feeder.tick() == 1


async def test_a_record_that_is_gone_is_forgotten(world: World, feeder: Feeder) -> None:
    """Redis lost it, or its TTL was up: the entry goes, and holds up nobody."""
    lost, kept = waiting(world, 2)
    world.client.delete(world.keys.job(lost.id), world.keys.events(lost.id))
    assert await feeder.tick() == 1
    assert world.tickets() == [(kept.id, 0)]
    await feeder.tick()
    assert not world.client.exists(world.keys.groups)


async def test_two_feeders_issue_one_ticket_each(world: World, feeder: Feeder) -> None:
    """Should two processes feed at once, a job is taken out once."""
    waiting(world, 5)
    other = Feeder(feeder.door, feeder.runner)
    await feeder.tick()
    await other.tick()
    assert sorted(world.tickets()) == sorted(set(world.tickets()))
    assert len(world.tickets()) == 5


async def test_a_model_that_left_the_registry_stops_nobody(world: World, feeder: Feeder) -> None:
    """One job of it is fed, to be told so by its worker, and the others as ever."""
    (unknown,) = waiting(world, 1, hops=(Hop("a-model-of-old", TIER),))
    (known,) = waiting(world, 1)
    assert await feeder.tick() == 2
    assert {job_id for job_id, _ in world.tickets()} == {unknown.id, known.id}


async def test_a_stepped_down_job_heeds_the_maintenance_of_its_own_tier(world: World, feeder: Feeder) -> None:
    """Its ticket goes into the queue it came from, but its model's tier is the one that is held."""
    waiting(world, 1, hops=(Hop(MODEL, OTHER_TIER),))
    world.client.hset(world.keys.maintenance, f"tier:{OTHER_TIER}", "0 1 racks")
    assert await feeder.tick() == 0
    world.client.delete(world.keys.maintenance)
    assert await feeder.tick() == 1


async def test_a_tenant_that_could_not_go_does_not_take_everything_back(world: World, feeder: Feeder) -> None:
    """After hours without a worker it is a bounded number of tokens behind, and the others go on beside it."""
    waiting(world, 5, tenant="old")
    waiting(world, 5, tenant="new")
    flows = world.keys.flows(group_of(MODEL, Priority.BATCH))
    world.client.zadd(flows, {f"{TIER}|new": 10**7})
    world.freeze(rpm=1, tpm=6_000)
    await feeder.tick()
    assert world.client.zscore(flows, f"{TIER}|old") == 10**7 - 100_000 + 100


async def test_a_job_in_the_backlog_is_looked_at_when_its_max_wait_is_over(world: World) -> None:
    """It gets its ticket without room at the gate, so that its worker decides what to do."""
    job = world.queued(issue=Issue.BACKLOG, policy={"max_wait": 0.001})
    wait_until(lambda: world.run(world.store.due()).parked == (job.id,))
    assert world.words(world.store.promote(world.job(job.id))) == ["done"]
    assert world.tickets() == [(job.id, 0)]
    assert not world.client.exists(world.keys.groups)


@pytest.mark.parametrize("on_outage", ["fail", "queue"])
async def test_who_does_not_wait_is_heard_in_a_maintenance(world: World, feeder: Feeder, on_outage: str) -> None:
    """A job that is to fail in an outage gets its ticket to do so, also behind others that wait."""
    for job in waiting(world, 3):
        world.fed(job)
        world.wait(world.claim(job, f"w/{job.id}"))
    (late,) = waiting(world, 1, policy={"on_outage": on_outage})
    world.client.hset(world.keys.maintenance, "all", "0 1 racks")
    assert await feeder.tick() == (on_outage == "fail")
    assert (world.tickets()[-1][0] == late.id) == (on_outage == "fail")


async def test_flows_of_a_dead_tier_do_not_hide_a_living_ones(
    world: World, feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More tenants wait for it than are looked at: whoever can go behind them goes."""
    monkeypatch.setattr(feed, "MOST_FLOWS", 2)
    for number in range(5):
        new = world.new(tenant=f"a{number}", priority=Priority.BATCH, hops=(Hop(MODEL, OTHER_TIER),))
        world.run(world.store.create(new, OTHER_TIER, issue=Issue.BACKLOG))
    waiting(world, 2, tenant="z")
    assert await feeder.tick() == 2
