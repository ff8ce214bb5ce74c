"""However many wait and read in one event loop: few connections, nobody missed, nothing left when they have gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.contract.test_tokens import told, write
from tests.contract.world import World, success
from tests.waiting import wait_until_async
from vessel.jobs.steps import Issue
from vessel.watch import readers, tail
from vessel.watch.loops import AsyncWaiter
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import RedisServer
    from vessel.jobs.model import Job
    from vessel.jobs.steps import Held
    from vessel.keyspace.connect import AsyncRunner
    from vessel.watch.tokens import TokenEvent

pytestmark = pytest.mark.redis("valkey")
POLLS, READERS, MOST_CONNECTIONS = 50, 20, 8


@pytest.fixture
async def waiter(
    world: World, redis_server: RedisServer, runner: AsyncRunner, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AsyncWaiter]:
    """Give a waiter that nobody helps by looking again, nor by a read that ends by itself."""
    monkeypatch.setattr("vessel.watch.loops.LOOK_AGAIN_S", 3600)
    monkeypatch.setattr("vessel.watch.tokens.LOOK_AGAIN_S", 3600)
    monkeypatch.setattr(tail, "BLOCK_MS", 120_000)
    waiter = AsyncWaiter(redis_server.url, world.keys, world.store, runner)
    yield waiter
    await waiter.close()


def holds(waiter: AsyncWaiter) -> dict[str, int]:
    """Count what a waiter keeps for those who wait."""
    return {
        "endings": len(waiter._endings),
        "streams": len(waiter._tail._streams) + len(waiter.readers._tail._streams),
        "present": len(waiter.readers._present),
    }


NOTHING = {"endings": 0, "streams": 0, "present": 0}


async def listening(waiter: AsyncWaiter, endings: int, streams: int) -> None:
    """Wait until so many are."""

    async def all_there() -> bool:
        held = holds(waiter)
        return held["endings"] == endings and held["streams"] == streams

    await wait_until_async(all_there)


async def read(waiter: AsyncWaiter, job: Job, after: str = "0", *, joined: bool = False) -> list[TokenEvent]:
    """Read an answer to its end."""
    return [event async for event in waiter.readers.follow(job.id, after=after, joined=joined) if event is not None]


async def test_many_wait_and_read_over_few_connections(world: World, waiter: AsyncWaiter) -> None:
    """Each is woken by its own job, and only the tails' connections and the shared ones are open."""
    held = [world.started(f"w/{n}", streams=n < READERS) for n in range(POLLS + READERS)]
    reads = [asyncio.ensure_future(read(waiter, one.job)) for one in held[:READERS]]
    waits = [asyncio.ensure_future(waiter.wait(one.job.id, 60)) for one in held[READERS:]]
    await listening(waiter, POLLS + READERS, POLLS + READERS + READERS)  # a reader's tokens are a stream of their own
    assert len(world.client.client_list()) <= MOST_CONNECTIONS

    def go() -> None:
        for number, one in enumerate(held):
            if number < READERS:
                write(world, one, f"t{number}")
            world.finish(one, success())

    await asyncio.to_thread(go)
    assert [told(events) for events in await asyncio.gather(*reads)] == [[f"t{n}", "end"] for n in range(READERS)]
    assert {job.state for job in await asyncio.gather(*waits)} == {JobState.SUCCEEDED}
    assert holds(waiter) == NOTHING
    assert len(world.client.client_list()) <= MOST_CONNECTIONS


async def test_ends_that_come_while_others_join_are_not_missed(world: World, waiter: AsyncWaiter) -> None:
    """Own jobs and foreign ones, whenever their end comes."""
    own = []
    for number in range(20):
        new = world.new(reply=waiter.reply)
        waiter.register(new.id)
        world.run(world.store.create(new, "ultra_fast", issue=Issue.TICKET))
        own.append(world.claim(world.job(new.id), f"o/{number}"))
    held = [pair for n in range(20) for pair in (own[n], world.started(f"f/{n}"))]

    def go(one: Held) -> None:
        world.finish(one, success(0 if one in own else 1))

    async def wait(one: Held) -> JobState:
        waiting = asyncio.ensure_future(waiter.wait(one.job.id, 60))
        await asyncio.to_thread(go, one)
        return (await waiting).state

    assert await asyncio.gather(*map(wait, held)) == [JobState.SUCCEEDED] * len(held)
    assert holds(waiter) == NOTHING


async def test_one_that_leaves_takes_nobody_with_it(world: World, waiter: AsyncWaiter) -> None:
    """Waits and readers of one job that are cut leave nothing, and the others of that job go on."""
    held = world.started(streams=True)
    waits = [asyncio.ensure_future(waiter.wait(held.job.id, 60)) for _ in range(10)]
    reads = [asyncio.ensure_future(read(waiter, held.job)) for _ in range(10)]
    await listening(waiter, 1, 2)
    for task in [*waits[1:], *reads[1:]]:
        task.cancel()
    await asyncio.gather(*waits[1:], *reads[1:], return_exceptions=True)
    assert holds(waiter) == {"endings": 1, "streams": 2, "present": 1}
    await asyncio.to_thread(write, world, held, "a")
    await asyncio.to_thread(world.finish, held, success())
    assert (await waits[0]).state is JobState.SUCCEEDED
    assert told(await reads[0]) == ["a", "end"]
    assert holds(waiter) == NOTHING


async def test_a_slow_reader_holds_little_and_gets_everything(
    world: World, waiter: AsyncWaiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves the tail and reads on from Redis; another one of the same job is not held up."""
    monkeypatch.setattr(readers, "MOST_HELD", 20)
    held = world.started(streams=True)
    texts = [f"{n} " for n in range(300)]
    slow = waiter.readers.follow(held.job.id)
    ahead = asyncio.ensure_future(anext(slow))
    fast = asyncio.ensure_future(read(waiter, held.job, joined=True))
    await listening(waiter, 1, 2)
    await asyncio.to_thread(write, world, held, texts[0])
    first = await ahead

    def go() -> None:
        for number, text in enumerate(texts[1:], 2):
            write(world, held, text, number=number)
        world.finish(held, success())

    await asyncio.to_thread(go)
    parts = told(await fast)
    assert "".join(parts[:-1]) == "".join(texts)
    assert not waiter.readers._tail._streams  # the slow one's entries are in Redis, not here
    assert holds(waiter) == {"endings": 1, "streams": 1, "present": 1}
    assert told([first, *[event async for event in slow if event is not None]]) == [*texts, "end"]
    assert holds(waiter) == NOTHING


async def test_readers_of_one_job_begin_anywhere(world: World, waiter: AsyncWaiter) -> None:
    """Each gets what comes after its own event, in order and once, though all share a read."""
    held = world.started(streams=True)
    texts = [f"{n} " for n in range(8)]
    for number, text in enumerate(texts[:4], 1):
        write(world, held, text, number=number)
    reads = [asyncio.ensure_future(read(waiter, held.job, after=f"1-{at}" if at else "0")) for at in (3, 0, 4, 1)]
    await listening(waiter, 1, 2)

    def go() -> None:
        for number, text in enumerate(texts[4:], 5):
            write(world, held, text, number=number)
        world.finish(held, success())

    await asyncio.to_thread(go)
    found = [told(events) for events in await asyncio.gather(*reads)]
    assert found == [[*texts[at:], "end"] for at in (3, 0, 4, 1)]


async def test_cut_connections_lose_nothing(world: World, waiter: AsyncWaiter) -> None:
    """What came while the tails were away is read when they are back."""
    held = [world.started(f"w/{n}", streams=True) for n in range(5)]
    reads = [asyncio.ensure_future(read(waiter, one.job)) for one in held]
    waits = [asyncio.ensure_future(waiter.wait(one.job.id, 60)) for one in held]
    await listening(waiter, len(held), 2 * len(held))

    def go() -> None:
        for one in held:
            world.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            write(world, one, "a")
            world.finish(one, success())

    await asyncio.to_thread(go)
    assert [told(events) for events in await asyncio.gather(*reads)] == [["a", "end"]] * len(held)
    assert {job.state for job in await asyncio.gather(*waits)} == {JobState.SUCCEEDED}
    assert holds(waiter) == NOTHING


async def test_streams_are_listened_to_by_their_entries(world: World, waiter: AsyncWaiter) -> None:
    """What is there is given at once, what comes when it comes, nothing after the time."""
    held = world.started()
    stream = world.keys.events(held.job.id)
    past = (await waiter.listen({stream: "0", "nothing": "0"}))[stream]
    assert [fields["event"] for _, fields in past] == ["created", "claimed", "started"]
    assert await waiter.listen({stream: past[-1][0]}, block_ms=1) == {}
    listens = asyncio.ensure_future(waiter.listen({stream: past[-1][0]}, block_ms=60_000))
    await listening(waiter, 0, 1)
    await asyncio.to_thread(world.finish, held, success())
    assert [fields["state"] for _, fields in (await listens)[stream]] == [JobState.SUCCEEDED]
    assert holds(waiter) == NOTHING
