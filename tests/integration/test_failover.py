"""The OpenAI vessel: jobs that an outage of Groq sends elsewhere, and those that it does not."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.failing_over import bench
from tests.simulated import MODEL, Process
from vessel.client.result import Result
from vessel.gate.view import look
from vessel.keyspace.names import gate_keys
from vessel.keyspace.script import command
from vessel.registry import OPENAI_PREFIX
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.integration.failing_over import Bench
    from vessel.gate.view import GateView
    from vessel.settings import Settings

pytestmark = pytest.mark.redis("valkey")
SEEING = "qwen/qwen3.8-27b"
ELSEWHERE = OPENAI_PREFIX + MODEL


@pytest.fixture(scope="module")
def groq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Run the simulator that stands for Groq."""
    with Process(tmp_path_factory.mktemp("groq")) as process:
        yield process


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Run the simulator that stands for the failover endpoint."""
    with Process(tmp_path_factory.mktemp("other")) as process:
        yield process


@pytest.fixture
async def armed(settings: Settings, redis_url: str, groq: Process, other: Process) -> AsyncIterator[Bench]:
    """Give a worker with the failover armed, while Groq is down."""
    async with bench(settings, redis_url, groq, other) as opened:
        groq.ask("outage", {"mode": "503"})
        yield opened


async def view(armed: Bench, model: str) -> GateView:
    """Look at a model's gate."""
    keys = gate_keys(armed.executor.keys, armed.executor.settings.org, model, "*")
    return await armed.executor.runner.run(look(keys, "0 0 0 0 0 0"))


async def test_an_outage_sends_a_job_to_the_other_vessel(armed: Bench) -> None:
    """It succeeds there, and result, usage and cost say so."""
    job = await armed.until(await armed.submit(), "succeeded")
    result = Result(job)
    assert (result.vessel, result.model, result.tier) == ("openai", MODEL, "speed_demon")
    assert [a.model for a in job.attempts] == [MODEL, ELSEWHERE]
    assert [a.counted for a in job.attempts] == [False, True]
    usage = result.usage
    millionths = usage.prompt_tokens * Decimal("0.15") + usage.completion_tokens * Decimal("0.60")
    assert result.cost_usd == millionths / 10**6 > 0
    [row] = await armed.ledger()
    booked = json.loads(row)
    assert (booked["vessel"], booked["model"], booked["job_id"]) == ("openai", MODEL, job.id)
    assert "estimated" not in booked


async def test_a_job_alone_goes_elsewhere_when_groq_cuts_every_call(armed: Bench) -> None:
    """Its own calls are too few to open a breaker."""
    armed.groq.ask("outage", {"mode": "refuse_reset"})
    job = await armed.until(await armed.submit(max_attempts=2), "succeeded", "failed")
    assert Result(job).vessel == "openai"
    assert [a.reason for a in job.attempts] == ["connection_lost", "connection_lost", ""]


async def test_queue_waits_for_groq(armed: Bench) -> None:
    """Nothing goes elsewhere that did not ask for it."""
    job_id = await armed.submit(on_outage="queue")
    await armed.until(job_id, "parked")
    armed.groq.ask("outage", {"mode": "off"})
    job = await armed.until(job_id, "succeeded")
    assert Result(job).vessel == "groq"
    assert armed.other.calls() == []


async def test_batch_work_without_a_cap_waits_and_says_why(armed: Bench) -> None:
    """With a cap it goes."""
    uncapped = await armed.submit(priority="batch")
    await armed.said(uncapped, "only with a cost cap (max_cost_usd)")
    assert armed.other.calls() == []
    capped = await armed.until(await armed.submit(priority="batch", max_cost_usd="1"), "succeeded")
    assert Result(capped).vessel == "openai"
    assert not (await armed.read(uncapped)).terminal


async def test_batch_work_does_not_go_where_the_price_is_not_known(
    settings: Settings, redis_url: str, groq: Process, other: Process
) -> None:
    """A cap could not hold there; other work goes, and its cost is marked as estimated."""
    unknown: dict[str, Any] = {"failover_price_input": None, "failover_price_output": None}
    async with bench(settings, redis_url, groq, other, **unknown) as unpriced:
        groq.ask("outage", {"mode": "503"})
        batch = await unpriced.submit(priority="batch", max_cost_usd="1")
        await unpriced.said(batch, "is not known")
        done = await unpriced.until(await unpriced.submit(), "succeeded")
        assert Result(done).vessel == "openai"
        [row] = await unpriced.ledger()
        assert json.loads(row)["estimated"] is True


async def test_when_both_are_down_a_job_waits_for_either(armed: Bench) -> None:
    """It uses up no attempt meanwhile, and Groq serves it when it is back first."""
    armed.other.ask("outage", {"mode": "503"})
    job_id = await armed.submit(max_attempts=1)
    job = await armed.until(job_id, "parked")
    while not any(a.model == ELSEWHERE for a in job.attempts):
        job = await armed.step(job_id)
    assert job.counted_attempts == 0
    assert job.current.model == MODEL or job.state is not JobState.PARKED
    armed.groq.ask("outage", {"mode": "off"})
    done = await armed.until(job_id, "succeeded")
    assert Result(done).vessel == "groq"


@pytest.mark.system
async def test_a_bad_key_there_does_not_pause_groq(armed: Bench) -> None:
    """The endpoint has breakers of its own."""
    armed.other.fault(kind="status", status=401)
    job_id = await armed.submit()
    job = await armed.read(job_id)
    while sum(a.reason == "unauthorized" for a in job.attempts) < 3:
        job = await armed.step(job_id)
    assert (await view(armed, ELSEWHERE)).provider.state == "open"
    assert (await view(armed, MODEL)).provider.state == "closed"
    armed.groq.ask("outage", {"mode": "off"})
    assert Result(await armed.until(job_id, "succeeded")).vessel == "groq"


async def test_a_request_that_it_refuses_is_not_sent_there_again(armed: Bench) -> None:
    """A model that is not served there is no reason to fail: the job waits for Groq."""
    armed.other.fault(kind="model_decommissioned")
    job_id = await armed.submit()
    await armed.said(job_id, "has refused this request")
    assert len(armed.other.calls()) == 1
    armed.groq.ask("outage", {"mode": "off"})
    assert Result(await armed.until(job_id, "succeeded")).vessel == "groq"


async def test_a_maintenance_sends_work_elsewhere(armed: Bench) -> None:
    """Also what waits in the backlog; what did not ask for it is held."""
    armed.groq.ask("outage", {"mode": "off"})
    runner, keys = armed.executor.runner, armed.executor.keys
    on = command("HSET", keys.maintenance, "all", "0 0 planned", parse=int)
    await runner.run(on)
    waits = await armed.submit(on_outage="queue")
    batch = await armed.submit(priority="batch", max_cost_usd="1")
    for job_id in (await armed.submit(), batch):
        assert Result(await armed.until(job_id, "succeeded")).vessel == "openai"
    assert not (await armed.step(waits)).terminal
    assert armed.groq.calls() == []
    await runner.run(command("DEL", keys.maintenance, parse=int))
    assert Result(await armed.until(waits, "succeeded")).vessel == "groq"


@pytest.mark.parametrize("priority", ["normal", "batch"])
async def test_images_go_where_a_model_takes_them(
    settings: Settings, redis_url: str, groq: Process, other: Process, priority: str
) -> None:
    """To Groq while it serves one, else to the endpoint, without an outage and without being asked for."""
    image: Any = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
    ]
    asked: dict[str, Any] = {"tier": None, "fallback": "chain", "on_outage": "queue", "priority": priority}
    async with bench(settings, redis_url, groq, other, tiers=["balanced"], failover_model=SEEING) as seeing:
        first = await seeing.until(await seeing.submit(image, max_cost_usd="1", **asked), "succeeded")
        assert (Result(first).vessel, Result(first).model) == ("groq", SEEING)
        groq.ask("models", {"remove": [SEEING]})
        assert seeing.executor.sweeper is not None
        await seeing.executor.sweeper.refresh_models()
        await seeing.executor._beat()
        second = await seeing.until(await seeing.submit(image, max_cost_usd="1", **asked), "succeeded")
        assert (Result(second).vessel, Result(second).model, Result(second).tier) == ("openai", SEEING, "balanced")


@pytest.mark.parametrize("priority", ["normal", "batch"])
async def test_a_dead_tiers_job_is_taken_by_a_living_one(armed: Bench, priority: str) -> None:
    """Groq still serves it, through a worker of another tier; one that waits stays in its queue."""
    armed.groq.ask("outage", {"mode": "off"})
    asked: dict[str, Any] = {"tier": "power", "priority": priority, "max_cost_usd": "1"}
    stays, goes = await armed.submit(on_outage="queue", **asked), await armed.submit(**asked)
    job = await armed.until(goes, "succeeded")
    assert (Result(job).vessel, Result(job).tier, job.queue.partition(".")[0]) == ("groq", "power", "speed_demon")
    assert (await armed.read(stays)).queue.partition(".")[0] == "power"


@pytest.mark.system
async def test_many_jobs_keep_to_the_endpoints_own_limit(
    settings: Settings, redis_url: str, groq: Process, other: Process
) -> None:
    """Three a minute are sent and no more; the rest waits, and goes to Groq when it is back."""
    async with bench(settings, redis_url, groq, other, failover_rpm=3) as slow:
        groq.ask("outage", {"mode": "503"})
        ids = [await slow.submit(str(number)) for number in range(8)]
        for job_id in ids:
            await slow.until(job_id, "succeeded", "parked")
        for job_id in ids:
            await slow.step(job_id)
        assert 1 <= len(other.calls()) <= 4
        groq.ask("outage", {"mode": "off"})
        served = [Result(await slow.until(job_id, "succeeded")).vessel for job_id in ids]
        assert {"groq", "openai"} == set(served)
        assert all(call["status"] == 200 for call in other.calls())
