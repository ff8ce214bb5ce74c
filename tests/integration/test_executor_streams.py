"""How a worker serves a job's readers, on a real Redis with an upstream that does as it is told."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_until_async
from vessel.control import cancel
from vessel.errors import JobFailed, RedisUnreachable
from vessel.execute import Executor, process, streaming
from vessel.jobs.tokens import READER_GONE_MS, attend, last_read
from vessel.keyspace.script import command
from vessel.registry import load_registry
from vessel.upstream.outcome import Charge, Failure, Outcome, Reason, Success, Usage
from vessel.watch.loops import AsyncWaiter
from vessel.watch.tokens import Ended, Tokens
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vessel.jobs.model import Job
    from vessel.settings import Settings
    from vessel.upstream.gather import Pace, Take

pytestmark = pytest.mark.redis("valkey")
HEAD = {"id": "chatcmpl-1"}


class Upstream:
    """Hands on the words of the prompt, one turn of the loop for each line; after them it waits, breaks or answers."""

    def __init__(self) -> None:
        """Start with nothing asked."""
        self.calls: list[str] = []
        self.go = asyncio.Event()

    async def stream(self, model: str, body: dict[str, Any], *, pace: Pace, attempt: str, take: Take) -> Outcome:
        """Do as the prompt says."""
        self.calls.append(attempt)
        assert pace.total_s > pace.first_token_s > pace.idle_s
        text = body["messages"][-1]["content"]
        for line in text.splitlines():
            for word in line.split():
                take(HEAD, {"delta": {"content": word}})
            await asyncio.sleep(0)
        if "wait" in text:
            await self.go.wait()
        if "break" in text:
            return Failure(model, Reason.CONNECTION_LOST, "Cut.", status=200, charge=Charge.UNKNOWN)
        answer = {"choices": [{"message": {"content": "".join(text.split())}, "finish_reason": "stop"}]}
        return Success(model, json.dumps(answer).encode(), Usage(10, 5), "req", "stop")

    async def call(self, model: str, body: dict[str, Any], *, deadline_s: float, attempt: str) -> Outcome:
        """Answer as a whole."""
        assert deadline_s > 0
        assert "stream" not in body
        self.calls.append(f"{attempt} whole")
        return Success(model, b'{"choices":[{"message":{"content":"{}"}}]}', Usage(10, 5), "req", "stop")

    async def list_models(self) -> tuple[dict[str, Any], ...]:
        """List every model of the registry."""
        return tuple({"id": model.id} for model in load_registry().routable())

    async def close(self) -> None:
        """Hold nothing."""


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """Put an upstream of ours in Groq's place."""
    ours = Upstream()
    monkeypatch.setattr(process, "GroqUpstream", lambda *_: ours)
    return ours


@pytest.fixture
async def executor(settings: Settings, redis_url: str, upstream: Upstream) -> AsyncIterator[Executor]:
    """Give an open executor of one tier."""
    assert not upstream.calls
    opened = await Executor.open(settings, redis_url=redis_url, tiers=["speed_demon"], worker="w", slots=10)
    yield opened
    await opened.close()


async def submit(executor: Executor, prompt: str, **body: Any) -> str:
    """Create a job whose answer is read as it comes."""
    prepared = executor.door.prepare(
        {"messages": [{"role": "user", "content": prompt}], "stream": True} | body,
        {"tier": "speed_demon", "fallback": "none"},
        availability=executor.availability,
        streaming=True,
    )
    return (await executor.runner.run(executor.door.create(prepared))).id


async def read(executor: Executor, job_id: str) -> Job:
    """Read a job."""
    found = await executor.runner.run(executor.store.read(job_id))
    assert found is not None
    return found


@pytest.fixture
async def waiter(executor: Executor) -> AsyncIterator[AsyncWaiter]:
    """Give a waiter on the executor's connections."""
    waiter = AsyncWaiter(executor._redis_url, executor.keys, executor.store, executor.runner)
    yield waiter
    await waiter.close()


async def batches(waiter: AsyncWaiter, job_id: str) -> list[str]:
    """Read the texts that were written together."""
    return [event.text async for event in waiter.readers.follow(job_id) if isinstance(event, Tokens)]


async def test_pieces_of_one_turn_are_written_together(waiter: AsyncWaiter, executor: Executor) -> None:
    """However many come at once cost one entry; they are there before the job's end is told."""
    job_id = await submit(executor, "a b c\nd e\nf")
    await executor.run([(job_id, 0)], "speed_demon")
    assert (await read(executor, job_id)).state is JobState.SUCCEEDED
    found = await batches(waiter, job_id)
    assert "".join(found) == "abcdef"
    assert found[0] == "abc"


async def test_readers_see_tokens_while_the_call_waits(
    waiter: AsyncWaiter, executor: Executor, upstream: Upstream
) -> None:
    """Nothing is held back until the end."""
    job_id = await submit(executor, "a\nwait")
    running = asyncio.ensure_future(executor.run([(job_id, 0)], "speed_demon"))
    events = waiter.readers.follow(job_id)
    first = await anext(events)
    assert isinstance(first, Tokens)
    assert first.head == HEAD
    assert not running.done()
    upstream.go.set()
    assert isinstance([event async for event in events][-1], Ended)
    await running


async def test_a_cancel_reaches_a_stream_with_its_next_piece(executor: Executor, upstream: Upstream) -> None:
    """The call is cut, and what it cost is booked as unknown."""
    job_id = await submit(executor, "a\nwait")
    running = asyncio.ensure_future(executor.run([(job_id, 0)], "speed_demon"))

    async def streamed() -> bool:
        return (await read(executor, job_id)).streamed

    await wait_until_async(streamed)
    await executor.runner.run(cancel(executor.door, await read(executor, job_id)))
    (run,) = executor._runs.values()
    take: Any = run.sending.get_coro().cr_frame.f_locals["readers"]._take  # type: ignore[union-attr]  # it runs
    take(HEAD, {"delta": {"content": "b"}})
    await running
    job = await read(executor, job_id)
    assert (job.state, job.attempts[0].outcome) == (JobState.CANCELLED, "unknown")
    assert not upstream.go.is_set()


async def test_a_stream_that_breaks_is_not_tried_again(
    waiter: AsyncWaiter, executor: Executor, upstream: Upstream
) -> None:
    """Its job fails, with attempts left."""
    job_id = await submit(executor, "a\nbreak")
    await executor.run([(job_id, 0)], "speed_demon")
    job = await read(executor, job_id)
    assert (job.state, job.reason, upstream.calls) == (JobState.FAILED, "stream_broken", [f"{job_id}/1"])
    with pytest.raises(JobFailed):
        await batches(waiter, job_id)


@pytest.mark.parametrize("gone_ms", [READER_GONE_MS - 5000, READER_GONE_MS + 1000])
async def test_a_job_whose_readers_left_while_it_waited_is_not_sent(
    executor: Executor, upstream: Upstream, gone_ms: int
) -> None:
    """They were there and have gone for long, so nobody would get the answer."""
    job_id = await submit(executor, "a")
    await executor.runner.run(attend(executor.keys, job_id))
    then = executor.now_ms() - gone_ms
    await executor.runner.run(command("HSET", executor.keys.job(job_id), "read_at", then, parse=int))
    await executor.run([(job_id, 0)], "speed_demon")
    job = await read(executor, job_id)
    left = gone_ms > READER_GONE_MS
    assert job.state is (JobState.CANCELLED if left else JobState.SUCCEEDED)
    assert len(upstream.calls) == (0 if left else 1)
    assert left == ("before it was sent" in job.message)


async def test_an_outage_of_redis_counts_no_reader_as_gone(
    executor: Executor, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers cannot say that they are there either; the count begins again after it."""
    monkeypatch.setattr(streaming, "CHECK_S", 0.001)
    monkeypatch.setattr(streaming, "READER_GONE_MS", 50)
    looks = 0

    def away(*_: object) -> Any:
        nonlocal looks
        looks += 1
        if looks < 100:
            raise RedisUnreachable
        return real(executor.keys, job_id)

    real = last_read
    monkeypatch.setattr(streaming, "last_read", away)
    job_id = await submit(executor, "a\nwait")
    await executor.run([(job_id, 0)], "speed_demon")
    assert looks >= 100
    assert "Nobody has read" in (await read(executor, job_id)).message
    assert not upstream.go.is_set()


async def test_what_groq_does_not_stream_is_asked_for_as_a_whole(
    waiter: AsyncWaiter, executor: Executor, upstream: Upstream
) -> None:
    """A JSON schema: readers get the answer from the record."""
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    job_id = await submit(executor, "a", response_format=form)
    await executor.run([(job_id, 0)], "speed_demon")
    assert upstream.calls == [f"{job_id}/1 whole"]
    events = waiter.readers.follow(job_id)
    (event,) = [event async for event in events]
    assert isinstance(event, Ended)
    assert not event.streamed
