"""Tokens in Redis: written by the lease's holder only, each once, in order; and what they bind their job to."""

from __future__ import annotations

import asyncio
import itertools
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.world import TTL_MS, World, cut, failure, success
from tests.waiting import wait_until, wait_until_async
from vessel.errors import InvalidRequest, JobFailed, JobNotFound
from vessel.jobs.steps import ORPHANED, UNKNOWN
from vessel.jobs.tokens import Batch, attend, last_read, stream
from vessel.watch.loops import AsyncWaiter
from vessel.watch.tokens import Ended, TokenEvent, Tokens, follow
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator

    from tests.conftest import RedisServer
    from vessel.jobs.model import Job
    from vessel.jobs.steps import Held
    from vessel.keyspace.connect import AsyncRunner

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")
REAL = pytest.mark.redis("valkey", "redis")
HEAD = {"id": "chatcmpl-1", "model": "m"}


def write(world: World, held: Held, *texts: str, number: int = 1, attempt: int = 1) -> str:
    """Write a batch of texts and give the answer's word."""
    pieces = [{"delta": {"content": text}} for text in texts]
    return world.run(stream(held, attempt, Batch(number, pieces, HEAD if number == 1 else None))).word


def written(world: World, job: Job) -> list[str]:
    """Name the batches in the stream."""
    return [row[0].decode() for row in world.client.xrange(world.keys.tokens(job.id))]


def test_batches_are_kept_in_order_and_the_first_marks_the_job(world: World) -> None:
    """Their ids say which attempt and batch they are; the mark is told once, as an event."""
    held = world.started(streams=True)
    assert (world.job(held.job.id).streams, world.job(held.job.id).streamed) == (True, False)
    assert [write(world, held, "a", "b"), write(world, held, "c", number=2)] == ["written"] * 2
    assert written(world, held.job) == ["1-1", "1-2"]
    assert world.job(held.job.id).streamed
    assert world.events(held.job) == ["created", "claimed", "started", "streaming"]


def test_a_repeated_batch_changes_nothing(world: World) -> None:
    """redis-py may send a call twice, also after a later one."""
    held = world.started(streams=True)
    write(world, held, "a")
    write(world, held, "b", number=2)
    before = world.everything()
    assert [write(world, held, "a"), write(world, held, "b", number=2)] == ["written"] * 2
    assert world.everything() == before


@pytest.mark.parametrize("fence", ["generation", "owner", "state"])
def test_whoever_lost_the_lease_writes_nothing(world: World, fence: str) -> None:
    """A worker that was taken for dead cannot write its tokens among another one's."""
    old = world.started("w/1", lapsed=True, streams=True)
    world.rescue(old.job)
    held = world.claim(old.job, "w/2")
    stale = {
        "generation": type(held)(held.job, held.generation - 1, "w/2", held.keys),
        "owner": type(held)(held.job, held.generation, "w/1", held.keys),
        "state": held,
    }[fence]
    if fence == "state":
        world.start(held, 2)
        world.finish(held, success(2))
    before = world.everything()
    assert write(world, stale, "a") == "superseded"
    assert world.everything() == before


def test_a_worker_learns_of_a_cancel_with_its_next_batch(world: World) -> None:
    """The batch is written all the same: the answer may be whole by then, and is the result."""
    held = world.started(streams=True)
    write(world, held, "a")
    world.run(world.store.cancel(world.job(held.job.id)))
    assert [write(world, held, "b", number=2) for _ in range(2)] == ["cancel_requested"] * 2
    assert written(world, held.job) == ["1-1", "1-2"]


def test_a_lost_job_is_rescued_before_its_first_token(world: World) -> None:
    """Nobody has seen anything yet, so another worker may answer."""
    held = world.started(lapsed=True, streams=True)
    assert world.rescue(held.job).word == "done"
    assert world.job(held.job.id).state is JobState.QUEUED


def test_a_lost_job_fails_after_its_first_token(world: World) -> None:
    """Another answer would not go on where this one ended; the call stays unknown, at its estimate, once."""
    held = world.started(lapsed=True, streams=True)
    write(world, held, "a")
    assert world.words(*[world.store.rescue(world.job(held.job.id)) for _ in range(2)]) == ["broken", "stale"]
    job = world.job(held.job.id)
    assert (job.state, job.reason) == (JobState.FAILED, "stream_broken")
    assert "Submit the request again" in job.message
    assert world.booked() == [("1", UNKNOWN)]
    assert world.client.zscore(world.keys.tickets(job.queue), job.id) is None


def test_an_answer_after_the_stream_broke_is_orphaned(world: World) -> None:
    """The worker lived after all: its paid answer is on record, the job's end stays."""
    held = world.started(lapsed=True, streams=True)
    write(world, held, "a")
    world.rescue(held.job)
    assert world.finish(held, success()).word == "late"
    assert world.booked() == [("1", ORPHANED)]
    assert world.job(held.job.id).response is None


def test_an_earlier_call_cannot_end_a_job_whose_answer_is_being_read(world: World) -> None:
    """Without readers the first answer wins; here it would be another text than the one that is read."""
    old = world.started("w/1", lapsed=True, streams=True)
    world.rescue(old.job)
    new = world.claim(old.job, "w/2")
    world.start(new, 2)
    write(world, new, "b", attempt=2)
    assert world.finish(old, success(1, b"first")).word == "superseded"
    assert world.finish(new, success(2, b"second")).word == "finished"
    job = world.job(old.job.id)
    assert (job.response, [a.outcome for a in job.attempts]) == (b"second", [ORPHANED, JobState.SUCCEEDED])


@pytest.mark.parametrize("end", ["finish", "rescue", "cancel"])
def test_tokens_live_as_long_as_their_job(world: World, end: str) -> None:
    """They have no time to live while it is open, and its own from its end on."""
    held = world.started(lapsed=True, streams=True)
    if end == "cancel":
        world.client.xadd(world.keys.tokens(held.job.id), {"pieces": "[]"})
        world.park(held, cut())
        world.run(world.store.cancel(world.job(held.job.id)))
    else:
        write(world, held, "a")
        assert world.client.pttl(world.keys.tokens(held.job.id)) == -1
        _ = world.finish(held, success()) if end == "finish" else world.rescue(held.job)
    assert 0 < world.client.pttl(world.keys.tokens(held.job.id)) <= TTL_MS


def test_a_reader_leaves_the_time_and_no_trace_after_the_end(world: World) -> None:
    """It answers the state; a job that has ended, or is gone, is not touched."""
    held = world.started(streams=True)
    assert world.run(last_read(world.keys, held.job.id)) == 0
    assert world.run(attend(world.keys, held.job.id)) == JobState.RUNNING
    seen = world.run(last_read(world.keys, held.job.id))
    assert seen == world.job(held.job.id).read_at
    assert seen >= held.job.created_at
    world.finish(held, success())
    before = world.everything()
    assert world.run(attend(world.keys, held.job.id)) == JobState.SUCCEEDED
    assert world.run(attend(world.keys, "job_none")) == ""
    assert world.everything() == before


# --- reading ----------------------------------------------------------------------------------------------------------


def reading(world: World, url: str, job: Job, **more: Any) -> Generator[TokenEvent]:
    """Read a job's tokens in this thread."""
    return follow(url, world.store, world.runner, job.id, **more)


@pytest.fixture
async def waiter(world: World, redis_server: RedisServer, runner: AsyncRunner) -> AsyncIterator[AsyncWaiter]:
    """Give this loop's waiter."""
    waiter = AsyncWaiter(redis_server.url, world.keys, world.store, runner)
    yield waiter
    await waiter.close()


def reading_async(waiter: AsyncWaiter, job: Job, **more: Any) -> AsyncGenerator[TokenEvent]:
    """Read a job's tokens on this loop."""
    return waiter.readers.follow(job.id, **more)


def told(events: list[TokenEvent]) -> list[str]:
    """Give the texts of events, `end` for the last one."""
    return [e.text if isinstance(e, Tokens) else "end" for e in events if e is not None]


@REAL
async def test_tokens_are_read_as_they_are_written(
    world: World, redis_server: RedisServer, waiter: AsyncWaiter
) -> None:
    """In threads and in coroutines: the first one long before the job ends, then its end with the record."""
    held = world.started(streams=True)
    numbers = itertools.count(1)
    sync, other = reading(world, redis_server.url, held.job), reading_async(waiter, held.job)
    for text in ("a", "b"):
        ahead = [asyncio.ensure_future(asyncio.to_thread(next, sync)), asyncio.ensure_future(anext(other))]
        await asyncio.to_thread(write, world, held, text, number=next(numbers))
        first, second = await asyncio.gather(*ahead)
        assert told([first]) == [text]
        assert first == second
    await asyncio.to_thread(world.finish, held, success(answer=b"ab"))
    last = [*await asyncio.to_thread(list, sync), *[event async for event in other]]
    assert all(isinstance(event, Ended) and event.streamed and event.job.response == b"ab" for event in last)
    assert len(last) == 2


@REAL
async def test_a_reader_goes_on_after_any_event(world: World, redis_server: RedisServer, waiter: AsyncWaiter) -> None:
    """Each batch once and in order, from wherever one stopped, also after the job's end."""
    held = world.started(streams=True)
    texts = [f"{n} " for n in range(1200)]
    for number, text in enumerate(texts, 1):
        write(world, held, text, number=number)
    world.finish(held, success())
    for start in (0, 1, 600, 1200):
        after = f"1-{start}" if start else "0"
        expected = [*texts[start:], "end"]
        assert told(list(reading(world, redis_server.url, held.job, after=after))) == expected
        assert told([e async for e in reading_async(waiter, held.job, after=after)]) == expected


@REAL
async def test_a_failure_comes_after_the_tokens_before_it(
    world: World, redis_server: RedisServer, waiter: AsyncWaiter
) -> None:
    """The reader gets what there was, then the reason."""
    held = world.started(streams=True)
    write(world, held, "a")
    world.finish(held, failure())
    sync, other = reading(world, redis_server.url, held.job), reading_async(waiter, held.job)
    assert told([next(sync), await anext(other)]) == ["a", "a"]
    with pytest.raises(JobFailed):
        next(sync)
    with pytest.raises(JobFailed):
        await anext(other)


@REAL
async def test_silence_is_told(world: World, redis_server: RedisServer, waiter: AsyncWaiter) -> None:
    """Whoever forwards a stream can keep its connection alive."""
    held = world.started(streams=True)
    sync = reading(world, redis_server.url, held.job, heartbeat_s=0.01)
    other = reading_async(waiter, held.job, heartbeat_s=0.01)
    assert [next(sync), next(sync), await anext(other), await anext(other)] == [None] * 4
    sync.close()
    await other.aclose()


@REAL
async def test_a_reader_is_there_as_long_as_it_reads(
    world: World, redis_server: RedisServer, waiter: AsyncWaiter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so however long its caller takes over an event, and stops when it is closed."""
    monkeypatch.setattr("vessel.watch.tokens.ATTEND_S", 0.01)

    def read_twice(job: Job) -> None:
        first = wait_until(lambda: world.run(last_read(world.keys, job.id)))
        wait_until(lambda: world.run(last_read(world.keys, job.id)) > first)

    assert await nobody_reads()
    first, second = world.started(streams=True), world.started("w/2", streams=True)
    write(world, first, "a")
    write(world, second, "a")
    sync, other = reading(world, redis_server.url, first.job), reading_async(waiter, second.job)
    next(sync)
    await anext(other)
    await asyncio.to_thread(read_twice, first.job)
    await asyncio.to_thread(read_twice, second.job)
    sync.close()
    await other.aclose()
    await wait_until_async(nobody_reads)


async def nobody_reads() -> bool:
    """Tell whether no reader of this process says any more that it is there."""
    threads = [thread for thread in threading.enumerate() if thread.name == "vessel-reader"]
    return not threads and not any("Readers._attend" in repr(task.get_coro()) for task in asyncio.all_tasks())


@REAL
async def test_what_cannot_be_read_says_so(world: World, redis_server: RedisServer, waiter: AsyncWaiter) -> None:
    """No such job, another tenant's, and an id that is none."""
    held = world.started(streams=True)
    for more, fault in (({"tenant": "other"}, JobNotFound), ({"after": "x"}, InvalidRequest)):
        with pytest.raises(fault):
            next(reading(world, redis_server.url, held.job, **more))
        with pytest.raises(fault):
            await anext(reading_async(waiter, held.job, **more))
    world.client.delete(world.keys.job(held.job.id), world.keys.events(held.job.id))
    with pytest.raises(JobNotFound):
        next(reading(world, redis_server.url, held.job))
