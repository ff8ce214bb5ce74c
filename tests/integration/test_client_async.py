"""The client for coroutines: the same verbs on an event loop."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.fake_worker import FakeWorker, failed
from tests.waiting import wait_until_async
from vessel.client import (
    AsyncGroqClient,
    ClientClosed,
    InvalidLine,
    JobFailed,
    JobNotFound,
    JobState,
    NoRedis,
    NoWorkers,
    WaitTimeout,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from vessel.settings import Settings

ALL = ("ultra_fast", "balanced", "power", "speed_demon", "compound", "compound_mini")
pytestmark = pytest.mark.anyio


@pytest.fixture
async def client(settings: Settings) -> AsyncIterator[AsyncGroqClient]:
    """Open a client."""
    async with AsyncGroqClient(settings=settings) as opened:
        yield opened


@pytest.fixture
def worker(settings: Settings) -> Iterator[FakeWorker]:
    """Run a worker for all tiers."""
    with FakeWorker(settings, ALL) as running:
        yield running


async def test_every_verb_answers(client: AsyncGroqClient, worker: FakeWorker) -> None:
    """The seed's verbs run side by side on one loop."""
    results = await asyncio.gather(
        client.query("one", tier="balanced", timeout=20),
        client.analyze("two", timeout=20),
        client.generate_code("three", "python", timeout=20),
        client.research("four", tools=["web_search"], timeout=20),
        client.execute("five", "print(5)", timeout=20),
    )
    assert [result.tier for result in results] == ["balanced", "power", "balanced", "compound", "compound"]
    assert [str(result) for result in results[:4]] == ["ONE", "TWO", "THREE", "FOUR"]
    assert len(worker.started) == 5


@pytest.mark.system
async def test_hundreds_of_calls_share_the_connections(client: AsyncGroqClient, worker: FakeWorker) -> None:
    """Each coroutine gets its own answer."""
    prompts = [f"prompt {n}" for n in range(300)]
    results = await asyncio.gather(*(client.query(prompt, timeout=60) for prompt in prompts))
    assert [result.text for result in results] == [prompt.upper() for prompt in prompts]
    assert len(worker.started) == 300


async def test_without_any_worker_query_refuses(client: AsyncGroqClient) -> None:
    """As in the blocking client."""
    with pytest.raises(NoWorkers):
        await client.query("hi", timeout=20)
    assert await client.jobs() == []


async def test_a_cancelled_task_cancels_its_job(client: AsyncGroqClient, worker: FakeWorker) -> None:
    """Who gives up on `query` does not pay for its answer."""
    worker.hold()
    task = asyncio.ensure_future(client.query("hi", timeout=20))
    await wait_until_async(lambda: client.jobs(state="running"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until_async(lambda: client.jobs(state="cancelled"))


async def test_a_timeout_leaves_the_job_alone(client: AsyncGroqClient, worker: FakeWorker) -> None:
    """Waiting ends, the job does not."""
    worker.hold()
    with pytest.raises(WaitTimeout) as ended:
        await client.query("slow", timeout=0.2)
    worker.release()
    assert ended.value.job_id is not None
    assert (await client.result(ended.value.job_id, timeout=20)).text == "SLOW"


async def test_handles_read_wait_and_cancel(client: AsyncGroqClient, settings: Settings) -> None:
    """A handle does what its blocking namesake does."""
    handle, other = await client.submit("hi"), await client.submit("ho")
    assert await handle.state() is JobState.QUEUED
    assert await other.cancel() == "cancelled"
    with FakeWorker(settings, ALL):
        assert (await handle.result(timeout=20)).text == "HI"
    assert [event.name async for event in handle.events(follow=True)] == ["created", "claimed", "started", "succeeded"]
    assert (await client.job(handle.id)).tier == handle.tier
    assert (await (await client.retry(handle.id)).state()) is JobState.QUEUED
    with pytest.raises(JobNotFound):
        await client.state("job_none")


async def test_many_are_submitted_and_awaited(client: AsyncGroqClient, settings: Settings) -> None:
    """Endings come as they come, failures as values."""
    handles = await client.submit_many([{"prompt": f"{n}"} for n in range(100)])
    with FakeWorker(settings, ALL, failed):
        endings = [ended async for ended in client.wait(handles, timeout=30)]
    assert {type(ended) for ended in endings} == {JobFailed}
    assert {ended.job_id for ended in endings} == {handle.id for handle in handles}
    with pytest.raises(InvalidLine):
        await client.submit_many([{}])


async def test_the_stack_is_looked_at(client: AsyncGroqClient, worker: FakeWorker) -> None:
    """Routes, models and tiers are those of the blocking client."""
    assert (await client.route("hi", tier="power")).tier == "power"
    assert any(info.served for info in await client.models())
    assert {line.name for line in await client.tiers() if line.live_workers} == set(worker.tiers)


async def test_its_first_use_says_what_is_missing(tmp_path: Path) -> None:
    """Without a Redis the first call says how to name one."""
    made = AsyncGroqClient(data_dir=tmp_path)
    with pytest.raises(NoRedis):
        await made.query("hi")
    assert (await made.route("hi")).live_workers is None
    await made.close()


def test_one_client_serves_one_loop_after_the_other(settings: Settings, worker: FakeWorker) -> None:
    """Scripts call `asyncio.run` more than once, and do not close; connections belong to a loop and end with it."""
    made = AsyncGroqClient(settings=settings)

    async def ask(prompt: str) -> str:
        return str(await made.query(prompt, timeout=20))

    assert [asyncio.run(ask("one")), asyncio.run(ask("two"))] == ["ONE", "TWO"]
    assert len(worker.started) == 2
    gc.collect()  # a connection that was left open would warn here


def test_one_client_serves_two_loops_at_once(settings: Settings, worker: FakeWorker) -> None:
    """Each thread's loop has its own connections, and none takes the other's away."""
    made = AsyncGroqClient(settings=settings)

    async def ask(name: str) -> list[str]:
        return [str(await made.query(f"{name} {n}", timeout=20)) for n in range(20)]

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda name: asyncio.run(ask(name)), ["a", "b"]))
    assert answers == [[f"A {n}" for n in range(20)], [f"B {n}" for n in range(20)]]
    assert len(worker.started) == 40


async def test_a_closed_client_says_so(settings: Settings) -> None:
    """Closing twice does nothing; a call afterwards, or one that waits, is told, and its job goes on."""
    async with AsyncGroqClient(settings=settings) as made:
        handle = await made.submit("hi")
        waits = [asyncio.ensure_future(handle.result()), asyncio.ensure_future(made.result(handle.id))]
        await wait_until_async(lambda: asyncio.sleep(0, handle.id in made.waiter._endings))
        await made.close()
    assert [type(await outcome) for outcome in map(_outcome, waits)] == [ClientClosed, ClientClosed]
    with pytest.raises(ClientClosed):
        await made.query("hi")
    with pytest.raises(ClientClosed):
        await made.__aenter__()
    async with AsyncGroqClient(settings=settings) as other:
        assert await other.state(handle.id) is JobState.QUEUED


async def _outcome(task: asyncio.Future[Any]) -> Any:
    return (await asyncio.gather(task, return_exceptions=True))[0]
