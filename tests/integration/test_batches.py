"""Batches on real workers against the simulator: exact counts, each line once, kills, cancel and expiry."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from bench.stack import Stack
from tests.waiting import wait_until
from vessel.batches.model import BatchStatus, line_job_id
from vessel.client import AsyncGroqClient, BatchHandle, GroqClient, InvalidBatch, WrongState
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vessel.batches.model import Batch

SMALL, LARGE = "openai/gpt-oss-20b", "openai/gpt-oss-120b"
REGISTRY = "".join(
    f'[models."{name}"]\nlimits.developer = {{ rpm = 1000000, tpm = 100000000 }}\n' for name in (SMALL, LARGE)
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start Redis, the simulator without limits, and two workers."""
    folder = tmp_path_factory.mktemp("batches")
    registry = folder / "registry.toml"
    registry.write_text(REGISTRY, "utf-8")
    with Stack(folder / "stack", simulator=["--latency-ms", "30"], lease_s=2.0, VESSEL_REGISTRY=str(registry)) as made:
        made.ask("/_sim/limits", {"model": "*", "limits": {"rpm": 1_000_000, "tpm": 100_000_000, "rpd": None}})
        for _ in range(2):
            made.start_worker(slots=60)
        yield made


@pytest.fixture
def client(stack: Stack) -> Iterator[GroqClient]:
    """Give a client of the stack."""
    with GroqClient(settings=stack.settings()) as made:
        yield made


def line(number: int, **more: Any) -> dict[str, Any]:
    """Write a line; every third one is for the larger model."""
    model = SMALL if number % 3 else LARGE
    body = {"model": model, "messages": [{"role": "user", "content": f"Say {number}"}], "max_completion_tokens": 60}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body | more}


def written(folder: Path, count: int, **more: Any) -> Path:
    """Write a file."""
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(line(n, **more)) + "\n" for n in range(count)), "utf-8")
    return path


def check_counts(batch: Batch) -> Batch:
    """Check that a batch's counts never say more than there is."""
    assert batch.completed + batch.failed + batch.left == batch.total
    return batch


def ended(handle: BatchHandle, timeout: float = 90) -> Batch:
    """Wait for the end, looking at the counts on the way."""
    return wait_until(lambda: found if (found := check_counts(handle.progress())).ended else None, timeout) or (
        handle.progress()
    )


def test_lines_end_once_each_though_a_worker_is_killed(stack: Stack, client: GroqClient, tmp_path: Path) -> None:
    """Mixed models, a worker killed in the middle, results read while it runs: complete, once each, ids matched."""
    handle = client.submit_batch(written(tmp_path, 800), idempotency_key="once")
    assert handle.estimate is not None
    assert handle.estimate.lines == 800
    assert client.submit_batch(tmp_path / "in.jsonl", idempotency_key="once").id == handle.id
    wait_until(lambda: handle.progress().completed > 50)
    early = [result.custom_id for result in handle.results(follow=False)]
    assert early
    victim = stack.workers.pop()
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    stack.start_worker(slots=60)
    batch = ended(handle)
    assert (batch.status, batch.completed, batch.failed) == (BatchStatus.COMPLETED, 800, 0)
    found = list(handle.results())
    assert [result.custom_id for result in found[: len(early)]] == early
    assert sorted(result.custom_id for result in found) == sorted(f"r{n}" for n in range(800))
    assert all(result.response and result.response["model"] in {SMALL, LARGE} for result in found)
    job = client.job(line_job_id(handle.id, "0:7"))
    assert job.request()["messages"][0]["content"].startswith("Say ")
    again = client.retry(job.id)
    assert again.result(timeout=30).text
    assert batch.usage[0] > 0
    assert batch.cost_usd > 0


def test_a_cancel_keeps_results_and_ends_the_rest(client: GroqClient) -> None:
    """What had a result keeps it; everything else is told as cancelled, and the counts add up."""
    handle = client.submit_batch(line(n) for n in range(1000))
    wait_until(lambda: handle.progress().completed > 20)
    handle.cancel()
    batch = ended(handle)
    assert batch.status is BatchStatus.CANCELLED
    results, errors = list(handle.results()), list(handle.errors())
    assert (len(results), len(errors)) == (batch.completed, batch.failed)
    assert {e.error["code"] for e in errors if e.error} == {"batch_cancelled"}
    assert sorted(r.custom_id for r in [*results, *errors]) == sorted(f"r{n}" for n in range(1000))
    with pytest.raises(WrongState):
        handle.cancel()


def test_an_expiry_keeps_results_and_tells_the_rest(client: GroqClient) -> None:
    """When the window is over, lines that ended are kept and all others expire."""
    handle = client.submit_batch(line(n) for n in range(1000))
    wait_until(lambda: handle.progress().completed > 20)
    keys, run = client.door.keys, client.runner.client
    run.hset(keys.batch(handle.id), "expires", 1)
    for place in client.runner.run(client.door.batches.open_lines(handle.id)):
        job_id = line_job_id(handle.id, place)
        run.hset(keys.job(job_id), "deadline", 1)
        run.zadd(keys.deadlines, {job_id: 1})
    batch = ended(handle)
    assert batch.status is BatchStatus.EXPIRED
    assert batch.counts[JobState.EXPIRED] > 0
    results, errors = list(handle.results()), list(handle.errors())
    assert sorted(r.custom_id for r in [*results, *errors]) == sorted(f"r{n}" for n in range(1000))


def test_a_line_that_the_upstream_refuses_is_an_error_with_its_status(stack: Stack, client: GroqClient) -> None:
    """Its error line has the status and the code; the others have results."""
    told = {"error": {"message": "`temperature` is odd", "type": "invalid_request_error"}}
    stack.ask("/_sim/faults", {"kind": "status", "status": 400, "body": told, "match": "Say 77"})
    handle = client.submit_batch([line(1), line(77), line(4)])
    batch = ended(handle)
    stack.ask("/_sim/faults", method="DELETE")
    assert (batch.completed, batch.failed) == (2, 1)
    (row,) = map(json.loads, client.batch_document(handle.id, "err").raw())
    assert (row["custom_id"], row["response"]["status_code"], row["error"]["code"]) == ("r77", 400, "bad_request")


def test_a_faulty_file_is_refused_with_a_report_and_nothing_is_kept(client: GroqClient) -> None:
    """The client's own check names each line; Redis holds nothing of it."""
    before = client.runner.client.dbsize()
    with pytest.raises(InvalidBatch) as refused:
        client.submit_batch([line(1), line(1), {"prompt": "hi", "model": "no/such"}])
    assert [(f.line, f.code) for f in refused.value.faults] == [(2, "duplicate_custom_id"), (3, "model_not_found")]
    wait_until(lambda: client.runner.client.dbsize() <= before + 2)


def test_the_async_client_does_the_same(stack: Stack) -> None:
    """Submit, follow the results as they come, wait."""

    async def run() -> None:
        async with contextlib.AsyncExitStack() as close:
            client = AsyncGroqClient(settings=stack.settings())
            close.push_async_callback(client.close)
            handle = await client.submit_batch({"prompt": f"Say {n}", "tier": "ultra_fast"} for n in range(30))
            ids = [result.custom_id async for result in handle.results()]
            assert sorted(ids) == sorted(f"line-{n}" for n in range(1, 31))
            assert (await handle.wait(5)).completed == 30
            assert [batch.id for batch in await client.batches(1)] == [handle.id]

    asyncio.run(run())
