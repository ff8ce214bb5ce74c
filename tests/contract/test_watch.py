"""Waiters are woken by a job's end, whoever created it, and read a page of jobs or a life in order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.contract.world import World, failure, success
from vessel.errors import JobFailed, JobNotFound, WaitTimeout
from vessel.jobs.steps import Issue
from vessel.keyspace.connect import AsyncRunner
from vessel.watch import BLOCK_MS, events_of, jobs_page, last_id, read_stream, read_streams, succeeded
from vessel.watch.loops import AsyncWaiter
from vessel.watch.threads import Waiter
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.conftest import RedisServer

pytestmark = pytest.mark.redis("valkey", "redis")


@pytest.fixture
def waiter(world: World, redis_url: str) -> Iterator[Waiter]:
    """Give a waiter for threads."""
    waiter = Waiter(redis_url, world.keys, world.store, world.runner)
    yield waiter
    waiter.close()


@pytest.fixture
async def async_waiter(world: World, redis_server: RedisServer) -> AsyncIterator[AsyncWaiter]:
    """Give a waiter for coroutines."""
    runner = AsyncRunner(redis_server.async_client())
    waiter = AsyncWaiter(redis_server.url, world.keys, world.store, runner)
    yield waiter
    await waiter.close()
    await runner.close()


def test_a_thread_is_woken_by_the_end_of_its_own_job(world: World, waiter: Waiter) -> None:
    """It registers before the job is created, so that no end is missed."""
    new = world.new(reply=waiter.reply)
    waiter.register(new.id)
    world.run(world.store.create(new, "ultra_fast", issue=Issue.TICKET))
    world.finish(world.claim(world.job(new.id)), success(0))

    assert waiter.wait(new.id, 30).state is JobState.SUCCEEDED


async def test_coroutines_are_woken_by_the_end_of_their_own_job(world: World, async_waiter: AsyncWaiter) -> None:
    """Two that wait for the same job both get it."""
    new = world.new(reply=async_waiter.reply)
    async_waiter.register(new.id)
    world.run(world.store.create(new, "ultra_fast", issue=Issue.TICKET))
    waits = [asyncio.ensure_future(async_waiter.wait(new.id, 30)) for _ in range(2)]
    await asyncio.sleep(0)
    world.finish(world.claim(world.job(new.id)), success(0))

    assert [job.state for job in await asyncio.gather(*waits)] == [JobState.SUCCEEDED] * 2


async def test_another_processes_job_is_waited_for_by_its_events(
    world: World, waiter: Waiter, async_waiter: AsyncWaiter
) -> None:
    """A job that was not registered wakes through its own stream."""
    held = world.started()
    waits = [
        asyncio.ensure_future(asyncio.to_thread(waiter.wait, held.job.id, 30)),
        asyncio.ensure_future(async_waiter.wait(held.job.id, 30)),
    ]
    await asyncio.sleep(0)
    await asyncio.to_thread(world.finish, held, failure())

    assert [job.state for job in await asyncio.gather(*waits)] == [JobState.FAILED] * 2


async def test_waiting_ends_with_its_time(world: World, waiter: Waiter, async_waiter: AsyncWaiter) -> None:
    """The job goes on; registered or not, threads and coroutines say the same."""
    job = world.queued()
    for registered in (False, True):
        if registered:
            waiter.register(job.id)
            async_waiter.register(job.id)
        with pytest.raises(WaitTimeout):
            waiter.wait(job.id, 0.01)
        with pytest.raises(WaitTimeout):
            await async_waiter.wait(job.id, 0.01)

    assert world.job(job.id).state is JobState.QUEUED


async def test_a_job_that_is_not_there_cannot_be_waited_for(waiter: Waiter, async_waiter: AsyncWaiter) -> None:
    """It is an error at once, and not a wait."""
    with pytest.raises(JobNotFound):
        waiter.wait("job_none")
    with pytest.raises(JobNotFound):
        await async_waiter.wait("job_none")


def test_events_are_read_in_order_and_from_where_one_stopped(world: World) -> None:
    """A life is read whole, or followed from the last id seen; streams without news are left out."""
    held = world.started()
    stream = world.keys.events(held.job.id)
    life = world.run(events_of(world.keys, held.job.id))

    assert [event["event"] for _, event in life] == ["created", "claimed", "started"]
    assert world.run(last_id(stream)) == life[-1][0]
    assert world.run(last_id("nothing")) == "0"
    assert world.run(read_stream(stream, life[0][0])) == life[1:]
    assert world.run(read_stream(stream, life[-1][0], block_ms=1)) == []
    assert world.run(read_streams({stream: "0", "nothing": "0"}, block_ms=BLOCK_MS)) == {stream: life}


def test_jobs_are_paged_newest_first_and_each_once(world: World) -> None:
    """Jobs of the same millisecond are paged by rank."""
    made = {world.queued().id for _ in range(5)}
    pages = [world.run(jobs_page(world.keys, start, 2, "t")) for start in (0, 2, 4, 6)]

    found = [row for page in pages for row in page]
    assert {job_id for job_id, _ in found} == made
    assert [len(page) for page in pages] == [2, 2, 1, 0]
    assert [at for _, at in found] == sorted((at for _, at in found), reverse=True)


def test_only_a_success_is_a_result(world: World) -> None:
    """Any other ending raises, with every attempt."""
    good, bad = world.started(), world.started()
    world.finish(good, success())
    world.finish(bad, failure())

    assert succeeded(world.job(good.job.id)).response
    with pytest.raises(JobFailed) as failed:
        succeeded(world.job(bad.job.id))
    assert (failed.value.reason, len(failed.value.attempts)) == ("bad_request", 1)
