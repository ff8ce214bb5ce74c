"""Repairs of answers that do not fit: whose jobs they are, what bounds them, and who is told what."""

from __future__ import annotations

import asyncio
import json
import pickle
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from tests.integration.fake_worker import FakeWorker, failed, said, succeeded
from tests.waiting import wait_until, wait_until_async
from vessel.client import (
    AsyncGroqClient,
    GroqClient,
    InvalidAnswer,
    InvalidRequest,
    JobFailed,
    JobState,
    WaitTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vessel.jobs.model import Job
    from vessel.jobs.steps import Final
    from vessel.settings import Settings

ALL = ("ultra_fast", "balanced", "power", "speed_demon", "compound", "compound_mini")
pytestmark = pytest.mark.redis("valkey")


class City(BaseModel):
    """What is asked for."""

    name: str
    people: int


def improving(job: Job) -> Final:
    """Answer as often wrong as the first message says, then right."""
    messages = job.request()["messages"]
    wrong, answered = int(messages[0]["content"]), sum(m["role"] == "assistant" for m in messages)
    text = '{"name": "canary"}' if answered < wrong else '{"name": "Oradea", "people": 196367}'
    return succeeded(job, said(text))


@pytest.fixture
def client(settings: Settings) -> Iterator[GroqClient]:
    """Open a client."""
    with GroqClient(settings=settings) as opened:
        yield opened


@pytest.fixture
def worker(settings: Settings) -> Iterator[FakeWorker]:
    """Run a worker for all tiers."""
    with FakeWorker(settings, ALL, improving) as running:
        yield running


def test_a_repair_tells_the_model_what_is_wrong(client: GroqClient, worker: FakeWorker) -> None:
    """It goes on with the conversation, on the tier of the first job, under the first job's tags and lane."""
    result = client.query("1", response_model=City, tags={"team": "a"}, webhook="https://example.org/x", timeout=20)
    assert result.parsed == City(name="Oradea", people=196367)
    first, second = (client.job(job_id) for job_id in worker.started)
    assert (second.tier, second.priority) == (first.tier, first.priority)
    roles = [message["role"] for message in second.request()["messages"]]
    assert roles == ["user", "assistant", "user"]
    assert "people: Field required" in second.request()["messages"][-1]["content"]
    assert second.request()["response_format"] == first.request()["response_format"]
    assert second.policy["tags"] == {"team": "a", "repair_of": first.id}
    assert "webhook" not in second.policy


def test_a_repair_is_paid_for_once(client: GroqClient, worker: FakeWorker, settings: Settings) -> None:
    """Whoever reads the same job by the same type again gets the repaired answer of before."""
    handle = client.submit("2", response_model=City, idempotency_key="k")
    first = handle.result(timeout=20)
    assert len(worker.started) == 3
    with GroqClient(settings=settings) as other:
        again = [
            handle.result(timeout=20),
            other.result(handle.id, timeout=20, response_model=City),
            other.submit("2", response_model=City, idempotency_key="k").result(timeout=20),
        ]
    assert {result.job_id for result in (first, *again)} == {worker.started[-1]}
    assert len(worker.started) == 3
    assert handle.result(timeout=20).parsed.people == 196367


def test_a_job_that_was_asked_plainly_can_be_read_by_a_type(client: GroqClient, worker: FakeWorker) -> None:
    """A repair of it asks for the schema then."""
    plain = client.submit("1", tier="power")
    assert client.result(plain.id, timeout=20, response_model=City).parsed.name == "Oradea"
    assert "response_format" not in client.job(plain.id).request()
    assert client.job(worker.started[-1]).request()["response_format"]["type"] == "json_schema"


def test_a_timeout_leaves_the_repair_running(client: GroqClient, settings: Settings) -> None:
    """Waiting again finds it."""
    handle = client.submit("1", response_model=City)
    with FakeWorker(settings, ALL, improving) as worker:
        wait_until(lambda: client.state(handle.id) is JobState.SUCCEEDED)
        worker.hold()
        with pytest.raises(WaitTimeout) as ended:
            handle.result(timeout=0.3)
        assert ended.value.job_id not in {None, handle.id}
        worker.release()
        assert handle.result(timeout=20).job_id == ended.value.job_id


@pytest.mark.anyio
async def test_a_cancelled_query_cancels_its_repair(settings: Settings) -> None:
    """Who gives up does not pay for another answer; who only waits for a handle leaves the job be."""
    async with AsyncGroqClient(settings=settings) as client:
        for interactive, state in ((True, "cancelled"), (False, "succeeded")):
            with FakeWorker(settings, ALL, improving) as worker:
                held = _holding_second(worker)
                if interactive:
                    task = asyncio.ensure_future(client.query("1", response_model=City))
                else:
                    task = asyncio.ensure_future((await client.submit("1", response_model=City)).result())
                await wait_until_async(lambda: asyncio.sleep(0, len(worker.started) == 2))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                if not interactive:
                    worker.release()
                await _becomes(client, held[-1], state)


def _holding_second(worker: FakeWorker) -> list[str]:
    """Let the first job end and hold the one after it."""
    answer = worker.answer

    def watched(job: Job) -> Final:
        worker.hold()
        return answer(job)

    worker.answer = watched
    return worker.started


async def _becomes(client: AsyncGroqClient, job_id: str, state: str) -> None:
    async def reached() -> bool:
        return await client.state(job_id) == state

    await wait_until_async(reached)


def test_the_cost_cap_bounds_the_repairs_too(client: GroqClient, settings: Settings) -> None:
    """What the first answer cost is gone; with nothing left there is no repair."""

    def dear(job: Job) -> Final:
        final = improving(job)
        return replace(final, fields={**final.fields, "cost": "0.006"})

    with FakeWorker(settings, ALL, dear) as worker, pytest.raises(InvalidAnswer, match="max_cost_usd is used up"):
        client.query("9", response_model=City, max_cost_usd="0.01", max_completion_tokens=50, timeout=20)
    assert [client.job(job_id).policy["max_cost_usd"] for job_id in worker.started] == ["0.01", "0.004"]


def test_the_deadline_bounds_the_repairs_too(client: GroqClient, worker: FakeWorker) -> None:
    """A repair must end when the first job had to."""
    client.query("1", response_model=City, deadline="1h", timeout=20)
    first, second = (client.job(job_id) for job_id in worker.started)
    assert first.deadline_at is not None
    assert second.deadline_at is not None
    assert abs(second.deadline_at - first.deadline_at) < 20_000


def test_an_answer_that_was_cut_is_not_asked_for_again(client: GroqClient, settings: Settings) -> None:
    """It would be cut again."""

    def cut(job: Job) -> Final:
        response = said('{"name": "canary')
        response["choices"][0]["finish_reason"] = "length"
        return succeeded(job, response)

    with FakeWorker(settings, ALL, cut) as worker, pytest.raises(InvalidAnswer, match="max_completion_tokens") as ended:
        client.query("9", response_model=City, timeout=20)
    assert worker.started == [ended.value.job_id]
    assert "canary" not in str(ended.value)
    assert ended.value.result.text == '{"name": "canary'


def test_a_repair_that_fails_says_what_it_was_for(client: GroqClient, settings: Settings) -> None:
    """The failure is that of the repair, with a note."""

    def once(job: Job) -> Final:
        return failed(job) if len(job.request()["messages"]) > 1 else improving(job)

    with FakeWorker(settings, ALL, once) as worker, pytest.raises(JobFailed) as ended:
        client.query("1", response_model=City, timeout=20)
    assert ended.value.job_id == worker.started[1]
    assert worker.started[0] in ended.value.__notes__[0]


def test_clients_and_handles_travel(client: GroqClient, worker: FakeWorker) -> None:
    """A pool that pickles what it runs takes them; each connects anew there."""
    there, handle = pickle.loads(pickle.dumps((client, client.submit("1", response_model=City))))  # noqa: S301  our own
    assert there.query("0", response_model=City, timeout=20).parsed.name == "Oradea"
    assert handle.result(timeout=20).parsed == City(name="Oradea", people=196367)
    assert len(worker.started) == 3
    there.close()
    handle._client.close()


def test_what_a_wait_takes(client: GroqClient, worker: FakeWorker) -> None:
    """One job needs no list around it; a time that is no number is told before anything is sent."""
    handle = client.submit("0", tier="power")
    assert [end.job_id for end in client.wait(handle, timeout=20)] == [handle.id]
    assert [end.job_id for end in client.wait(handle.id, timeout=20)] == [handle.id]
    for wrong in ("5s", float("nan"), [1], -1):
        calls: tuple[Callable[[Any], object], ...] = (
            lambda t: client.query("0", timeout=t),
            lambda t: handle.result(timeout=t),
            lambda t: GroqClient(settings=client._core.settings, timeout=t),
        )
        for call in calls:
            with pytest.raises(InvalidRequest, match="number of seconds"):
                call(wrong)
    assert worker.started == [handle.id]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"response_format": {"type": "json_object"}}, "not both"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "two steps"),
        ({"builtin_tools": ["web_search"], "tier": "power"}, "two steps"),
        ({"response_model": "City"}, "pydantic model"),
    ],
)
def test_what_cannot_be_a_value_is_refused(client: GroqClient, options: dict[str, Any], told: str) -> None:
    """The reason is told, and nothing is sent."""
    with pytest.raises(InvalidRequest, match=told):
        client.submit("1", **{"response_model": City, **options})
    assert client.jobs() == []


def test_calls_without_a_value_refuse_a_type(client: GroqClient) -> None:
    """Streams, code, research and lines take none."""
    refused: Any = client
    calls: tuple[Callable[[], object], ...] = (
        lambda: refused.stream("x", response_model=City),
        lambda: refused.submit("x", stream=True, response_model=City),
        lambda: refused.generate_code("x", response_model=City),
        lambda: refused.research("x", response_model=City),
        lambda: refused.execute("x", response_model=City),
        lambda: refused.route("x", response_model=City),
        lambda: refused.submit_many([{"prompt": "x", "response_model": City}]),
    )
    for call in calls:
        with pytest.raises(InvalidRequest, match="response_model"):
            call()
    assert client.jobs() == []


def test_the_repr_of_what_travels_holds_no_answer(client: GroqClient, worker: FakeWorker) -> None:
    """A result with a value may be logged; the value is the caller's."""
    result = client.query("1", response_model=City, timeout=20)
    assert worker.started
    assert "Oradea" not in repr(result)
    assert "canary" not in repr(result.repairs)
    assert json.loads(str(result)) == result.parsed.model_dump()
    assert result.total_cost_usd == 2 * Decimal("0.00000123")
