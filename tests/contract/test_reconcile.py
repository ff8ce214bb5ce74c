"""A lost ticket is issued anew, once; what is well is left alone. Any number of processes may look at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.contract.world import OTHER_TIER, TIER, World
from vessel.dispatch.ticket import render
from vessel.jobs.steps import Answer, Issue
from vessel.maintain import reconcile
from vessel.maintain.reconcile import Reconciler
from vessel.wire import JobState

if TYPE_CHECKING:
    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner
    from vessel.submit import Door

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


@pytest.fixture
def reconciler(door: Door, runner: AsyncRunner, monkeypatch: pytest.MonkeyPatch) -> Reconciler:
    """Give a reconciler that suspects at once; a suspicion must still hold for two ticks."""
    monkeypatch.setattr(reconcile, "SUSPECT_AFTER_MS", 0)
    return Reconciler(door, runner)


async def settle_down(world: World, *reconcilers: Reconciler, ticks: int = 4) -> None:
    """Let some ticks pass, each in a millisecond of its own."""
    for _ in range(ticks):
        world.tick()
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
        world.tick()
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
    world.tick()
    others = [world.queued().id for _ in range(3)]
    await settle_down(world, reconciler)
    assert world.tickets() == [*((job_id, 0) for job_id in others), (lost.id, 1)]


async def test_an_old_message_put_back_makes_no_other_look_lost(world: World, reconciler: Reconciler) -> None:
    """Celery restores the messages of a worker that left; what was issued since still waits behind them."""
    old = world.queued()
    message = pop(world)
    others = [world.queued() for _ in range(3)]
    world.tick()
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
