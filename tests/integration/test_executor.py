"""A worker's executor on a real Redis, with an upstream that does as it is told."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import wait_until_async
from vessel.errors import RedisUnreachable, SpoolUnwritable
from vessel.execute import Executor, job, process
from vessel.execute.persist import persist
from vessel.keyspace.script import command
from vessel.registry import load_registry
from vessel.upstream.outcome import Failure, Reason, Success, Usage
from vessel.wire import JobState
from workers.flower import shown_result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner
    from vessel.settings import Settings
    from vessel.submit import Accepted
    from vessel.upstream.outcome import Outcome

pytestmark = pytest.mark.redis("valkey")
MODEL = "openai/gpt-oss-20b"
ANSWER = json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode()


class Upstream:
    """Answers what the prompt says: `boom` breaks, `slow` waits for `go`, `full` has no quota, all else is answered."""

    def __init__(self) -> None:
        """Start with nothing asked."""
        self.calls: list[str] = []
        self.listed = 0
        self.closed = False
        self.go = asyncio.Event()

    async def call(self, model: str, body: dict[str, Any], *, deadline_s: float, attempt: str) -> Outcome:
        """Do as the prompt says."""
        assert deadline_s > 0
        self.calls.append(attempt)
        match body["messages"][-1]["content"]:
            case "boom":
                raise RuntimeError("boom")
            case "slow":
                await self.go.wait()
            case "full":
                return Failure(model, Reason.RATE_LIMITED, "No quota.", status=429, retry_after_s=50)
        return Success(model, ANSWER, Usage(10, 5), "req", "stop")

    async def list_models(self) -> tuple[dict[str, Any], ...]:
        """List every model of the registry."""
        self.listed += 1
        return tuple({"id": model.id} for model in load_registry().routable())

    async def close(self) -> None:
        """Note it."""
        self.closed = True


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """Put an upstream of ours in Groq's place."""
    ours = Upstream()
    monkeypatch.setattr(process, "GroqUpstream", lambda *_: ours)
    return ours


@pytest.fixture
async def executor(settings: Settings, redis_url: str, upstream: Upstream) -> AsyncIterator[Executor]:
    """Give an open executor of one tier."""
    assert upstream.listed == 0
    opened = await Executor.open(settings, redis_url=redis_url, tiers=["speed_demon"], worker="w", slots=10)
    yield opened
    await opened.close()


async def submit(executor: Executor, prompt: str, **policy: Any) -> str:
    """Create a job."""
    prepared = executor.door.prepare(
        {"messages": [{"role": "user", "content": prompt}]},
        {"tier": "speed_demon", "fallback": "none"} | policy,
        availability=executor.availability,
    )
    accepted: Accepted = await executor.runner.run(executor.door.create(prepared))
    return accepted.id


async def read(executor: Executor, job_id: str) -> Job:
    """Read a job."""
    found = await executor.runner.run(executor.store.read(job_id))
    assert found is not None
    return found


async def serve(executor: Executor, *job_ids: str) -> list[dict[str, object]]:
    """Run the current tickets of jobs as one message."""
    tickets = [(job_id, (await read(executor, job_id)).generation) for job_id in job_ids]
    return await executor.run(tickets, "speed_demon")


async def test_a_failed_start_asks_nobody_and_leaves_nothing_open(settings: Settings, upstream: Upstream) -> None:
    """While Redis is away a worker starts over every second; it must not ask Groq or pile up connections."""
    with pytest.raises(RedisUnreachable):
        await Executor.open(settings, redis_url="redis://127.0.0.1:1", tiers=["power"], worker="w", slots=1)

    assert (upstream.listed, upstream.closed) == (0, True)


async def test_a_draining_worker_does_not_count_as_alive(executor: Executor) -> None:
    """Its calls may take minutes to end; no work is sent to its tier meanwhile."""
    alive = executor.door.alive(["speed_demon"])
    assert await executor.runner.run(alive) == {"speed_demon": 1}
    executor.drain()
    await executor._beat()

    assert await executor.runner.run(alive) == {"speed_demon": 0}


async def test_an_error_waits_for_the_other_jobs_of_its_message(executor: Executor, upstream: Upstream) -> None:
    """A message is done only when all its jobs are: what still ran would be cut by a shutdown."""
    broken, slow = await submit(executor, "boom"), await submit(executor, "slow")
    served = asyncio.ensure_future(serve(executor, broken, slow))

    async def both_called() -> bool:
        return len(upstream.calls) == 2

    await wait_until_async(both_called)
    assert not served.done()
    upstream.go.set()
    with pytest.raises(RuntimeError):
        await served
    assert (await read(executor, slow)).state is JobState.SUCCEEDED


async def test_a_cancel_during_a_call_that_fails_ends_the_job_unsent(executor: Executor, upstream: Upstream) -> None:
    """The job is not parked for its retry: its next claim cancels it and nothing more is sent."""
    job_id = await submit(executor, "full")
    held = await read(executor, job_id)
    flagging = executor.store.cancel(held)
    original = upstream.call

    async def call(*args: Any, **more: Any) -> Outcome:
        assert (await executor.runner.run(flagging)).word == "flagged"
        return await original(*args, **more)

    upstream.call = call  # type: ignore[method-assign]  # a cancel that comes in mid-call
    await serve(executor, job_id)

    async def ended() -> bool:
        found = await read(executor, job_id)
        if found.state is JobState.QUEUED:
            await serve(executor, job_id)
        return (await read(executor, job_id)).state is JobState.CANCELLED

    await wait_until_async(ended)
    assert len(upstream.calls) == 1


async def test_a_booking_that_is_still_ahead_is_slept_for_again(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timer that fires early, or a clock that steps back, costs another sleep and not the job."""
    slept: list[float] = []

    async def early(job_id: str, seconds: float) -> bool:
        assert job_id
        slept.append(seconds)
        return False

    job_id = await submit(executor, "hello")
    limits = executor.registry.model(MODEL).limits[executor.settings.groq_plan]
    assert limits.rpm
    now = await executor.runner.run(command("TIME", parse=lambda raw: int(raw[0]) * 1000 + int(raw[1]) // 1000))
    half_a_second = 1 - limits.rpm / 60 / 2
    gate = executor.keys.gate(executor.settings.org, MODEL)
    await executor.runner.run(command("HSET", gate, "l:rpm", half_a_second, "at", now, parse=int))
    await executor.runner.run(command("PEXPIRE", gate, 60_000, parse=int))
    monkeypatch.setattr(executor, "sleep_until_woken", early)
    await serve(executor, job_id)

    assert len(slept) > 1
    assert (await read(executor, job_id)).state is JobState.SUCCEEDED


@pytest.mark.parametrize("tier", ["flex", "on_demand"])
async def test_a_flex_job_that_its_gate_refuses_waits_by_time(executor: Executor, tier: str) -> None:
    """The feeder looks at the gate of on_demand: a job that flex has no room for would be fed at every tick."""
    gate = executor.keys.gate(executor.settings.org, MODEL + ("#flex" if tier == "flex" else ""))
    await executor.runner.run(command("HSET", gate, "l:rpm", -(10**6), parse=int))
    await executor.runner.run(command("PEXPIRE", gate, 60_000, parse=int))
    body = {"messages": [{"role": "user", "content": "hello"}], "service_tier": tier}
    policy = {"tier": "speed_demon", "fallback": "none"}
    prepared = executor.door.prepare(body, policy, availability=executor.availability)
    job_id = (await executor.runner.run(executor.door.create(prepared))).id
    (told,) = await serve(executor, job_id)
    assert shown_result(repr([told])) == f"parked on {MODEL}"
    found = await read(executor, job_id)
    assert (found.state, found.attempts) == (JobState.PARKED, ())
    assert found.waits_for_gate == (tier == "on_demand")


def refuse(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let patience be over at once for calls of a script; its replay goes through."""

    async def impatient(runner: AsyncRunner, call: Any) -> Any:
        if call.script is not None and call.script.name == script:
            raise RedisUnreachable
        return await persist(runner, call)

    monkeypatch.setattr(job, "persist", impatient)


async def test_an_answer_that_redis_does_not_take_is_delivered_later(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes to disk when patience ends, and from there into the same job."""
    job_id = await submit(executor, "hello")
    refuse(monkeypatch, "finish")
    (answer,) = await serve(executor, job_id)
    assert answer["state"] == "spooled"

    async def delivered() -> bool:
        return (await read(executor, job_id)).state is JobState.SUCCEEDED

    await wait_until_async(delivered)
    assert (await read(executor, job_id)).response == ANSWER


async def test_an_answer_that_comes_late_is_told_as_that(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker has ended the job meanwhile: this one's model has not served it, and it has not ended twice."""
    job_id = await submit(executor, "hello")

    async def overtaken(runner: AsyncRunner, call: Any) -> Any:
        if call.script is not None and call.script.name == "finish":
            name = executor.keys.job(job_id)
            await runner.run(command("HSET", name, "state", JobState.SUCCEEDED, "gen", 9, parse=int))
        return await persist(runner, call)

    monkeypatch.setattr(job, "persist", overtaken)
    (told,) = await serve(executor, job_id)
    assert shown_result(repr([told])) == f"late on {MODEL}"


async def test_a_retry_that_redis_does_not_take_is_delivered_later(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that failed goes on where it would have: its ending is not booked as unknown."""
    job_id = await submit(executor, "full")
    refuse(monkeypatch, "park")
    (answer,) = await serve(executor, job_id)
    assert answer["state"] == "spooled"

    async def parked() -> bool:
        return (await read(executor, job_id)).state is JobState.PARKED

    await wait_until_async(parked)
    (attempt,) = (await read(executor, job_id)).attempts
    assert (attempt.outcome, attempt.counted) == ("rate_limited", False)


async def test_an_answer_that_neither_redis_nor_the_disk_takes_is_offered_until_one_does(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has been paid for: that it is not safe is told, with a reason and no path, and it ends in its job."""
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(job, "log", SimpleNamespace(error=lambda event, **facts: told.append((event, facts))))
    threads: list[int] = []

    def full(*_: object) -> None:
        threads.append(threading.get_ident())
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/somewhere/spool")

    async def away_twice(runner: AsyncRunner, call: Any) -> Any:
        if call.script is not None and call.script.name == "finish" and len(threads) < 2:
            raise RedisUnreachable
        return await persist(runner, call)

    monkeypatch.setattr(executor.spool, "keep", full)
    monkeypatch.setattr(job, "persist", away_twice)
    job_id = await submit(executor, "hello")
    (answer,) = await serve(executor, job_id)
    assert answer["state"] == "succeeded"
    assert (await read(executor, job_id)).response == ANSWER
    assert [event for event, _ in told] == ["job.not_spooled"] * 2
    assert told[0][1]["reason"] == "ENOSPC, No space left on device"
    assert "/somewhere" not in str(told)
    assert threading.get_ident() not in threads, "a disk that hangs would stop every call's loop"


async def test_a_worker_that_could_keep_nothing_does_not_open(settings: Settings, upstream: Upstream) -> None:
    """Before it takes a job; also where Celery was started without `vessel worker`, which looks as well."""
    broken = settings.model_copy(update={"data_dir": Path("/dev/null/data")})
    with pytest.raises(SpoolUnwritable):
        await Executor.open(broken, redis_url="redis://127.0.0.1:1", tiers=["power"], worker="w", slots=1)
    assert (upstream.listed, upstream.closed) == (0, True)
