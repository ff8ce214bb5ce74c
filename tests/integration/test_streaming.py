"""Streams end to end: real workers, a real Redis and the simulator; tokens arrive before the end, and once."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest
from groq_vessel import AsyncGroqClient, GroqClient

from bench.stack import Stack
from tests.chaos.judge import read_ledger
from tests.chaos.test_kill_campaign import REGISTRY
from vessel.errors import InvalidRequest, JobFailed, JobNotFound, NoWorkers, WaitTimeout
from vessel.simulator import expected_text
from vessel.watch.tokens import Ended, Tokens, follow
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLOW = {"kind": "stream_drip", "delay_s": 0.2}


@contextmanager
def unlimited(folder: Path, **more: Any) -> Iterator[Stack]:
    """Run a stack whose quota is out of the way, without a worker."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "registry.toml").write_text(REGISTRY, "utf-8")
    with Stack(folder, simulator=["--latency-ms", "100"], VESSEL_REGISTRY=str(folder / "registry.toml"), **more) as it:
        yield it


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run one worker for all tiers."""
    variables = {"VESSEL_STREAM_IDLE_TIMEOUT": "1", "VESSEL_FIRST_TOKEN_TIMEOUT": "2"}
    with unlimited(tmp_path_factory.mktemp("streaming"), **variables) as stack:
        stack.start_worker()
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    """Give it without faults."""
    running.ask("/_sim/faults", method="DELETE")
    return running


@pytest.fixture
def client(stack: Stack) -> Iterator[GroqClient]:
    """Open a client."""
    with GroqClient(settings=stack.settings()) as opened:
        yield opened


def ledger_of(stack: Stack, job_id: str) -> list[tuple[str, bool]]:
    """Read a job's ledger rows: outcome, and whether it is an estimate."""
    rows = read_ledger(stack.redis.url, stack.namespace)
    return [(row["outcome"], row.get("estimated", False)) for row in rows if row["job_id"] == job_id]


def test_pieces_arrive_before_the_end_and_are_the_answer(stack: Stack, client: GroqClient) -> None:
    """In order, each once; the record holds a completion with usage, as without a stream."""
    stack.ask("/_sim/faults", SLOW | {"match": "slowly", "delay_s": 0.05})
    stream = client.stream("Tell me slowly. <<tokens:60>>", tier="power", timeout=60)
    first = next(stream)
    assert client.state(stream.job_id) is JobState.RUNNING
    pieces = [first, *stream]
    assert stream.result is not None

    assert len(pieces) > 5
    assert "".join(pieces) == stream.result.text
    assert expected_text([{"role": "user", "content": "Tell me slowly. <<tokens:60>>"}]).startswith(first)
    assert stream.result.usage.completion_tokens == 60
    assert stream.result.raw["object"] == "chat.completion"
    assert [event.name for event in client.events(stream.job_id)][-2:] == ["streaming", "succeeded"]
    assert ledger_of(stack, stream.job_id) == [("succeeded", False)]


async def test_coroutines_stream_side_by_side(stack: Stack) -> None:
    """Each gets its own answer, whole and in order."""
    async with AsyncGroqClient(settings=stack.settings()) as client:
        streams = [client.stream(f"Number {n}?", tier="power", timeout=60) for n in range(20)]

        async def read(n: int) -> str:
            return "".join([piece async for piece in streams[n]])

        texts = await asyncio.gather(*(read(n) for n in range(len(streams))))
    assert texts == [stream.result.text for stream in streams if stream.result]
    assert [text[:18] for text in texts] == [
        expected_text([{"role": "user", "content": f"Number {n}?"}])[:18] for n in range(20)
    ]


def test_a_handle_streams_from_its_beginning_and_as_often_as_asked(client: GroqClient) -> None:
    """Also after its end; an answer that was not to be streamed comes in one piece."""
    handle = client.submit("Again and again. <<tokens:60>>", tier="power", stream=True)
    pieces = list(handle.stream(timeout=60))
    assert len(pieces) > 5
    assert list(handle.stream(timeout=60)) == pieces
    assert "".join(pieces) == handle.result(60).text
    plain = client.submit("At once. <<tokens:60>>", tier="power")
    assert list(plain.stream(timeout=60)) == [plain.result(60).text]


def test_a_reader_goes_on_after_an_event(stack: Stack, client: GroqClient) -> None:
    """Whoever was cut off gets what came since, while the call goes on and after it."""
    stack.ask("/_sim/faults", SLOW | {"match": "resume", "delay_s": 0.1})
    handle = client.submit("resume <<tokens:60>>", tier="power", stream=True)
    door, url = client.door, stack.redis.url
    first = follow(url, door.store, client.runner, handle.id)
    begun = [event for event in (next(first), next(first)) if isinstance(event, Tokens)]
    first.close()
    rest = list(follow(url, door.store, client.runner, handle.id, after=begun[-1].id))
    assert isinstance(rest[-1], Ended)
    texts = [event.text for event in [*begun, *rest] if isinstance(event, Tokens)]
    assert "".join(texts) == handle.result(60).text


def test_a_worker_killed_after_the_first_token_breaks_the_stream(tmp_path: Path) -> None:
    """After a kill -9 the job fails as stream_broken and is not run again; its call is booked once, as unknown."""
    with unlimited(tmp_path, lease_s=2.0) as stack, GroqClient(settings=stack.settings()) as client:
        worker = stack.start_worker(["power"])
        stack.ask("/_sim/faults", SLOW)
        stream = client.stream("Will I be whole? <<tokens:200>>", tier="power", timeout=60)
        next(stream)
        stack.kill(worker)
        stack.workers.remove(worker)
        stack.start_worker(["power"])
        with pytest.raises(JobFailed) as failed:
            list(stream)
        assert (failed.value.reason, len(failed.value.attempts)) == ("stream_broken", 1)
        assert ledger_of(stack, stream.job_id) == [("unknown", True)]
        broken = client.job(stream.job_id)
        assert broken.usage is not None
        assert (broken.usage["unknown_calls"], (broken.cost_usd or 0) > 0) == (1, True)
        stats = stack.ask("/_sim/stats")
        assert stats["calls"] + stats["in_flight"] == 1


def test_a_worker_killed_before_the_first_token_is_made_up_for(tmp_path: Path) -> None:
    """After a kill -9 before anything was read another worker answers the same reader."""
    with unlimited(tmp_path, lease_s=2.0) as stack, GroqClient(settings=stack.settings()) as client:
        worker = stack.start_worker(["power"])
        stack.ask("/_sim/faults", {"kind": "hang", "count": 1})
        stream = client.stream("Will I be answered?", tier="power", timeout=60)
        stack.until(lambda: stack.ask("/_sim/stats")["in_flight"] == 1, "the call to be under way")
        stack.kill(worker)
        stack.workers.remove(worker)
        stack.start_worker(["power"])
        text = "".join(stream)
        assert stream.result is not None
        assert text == stream.result.text
        assert [outcome for outcome, _ in ledger_of(stack, stream.job_id)] == ["unknown", "succeeded"]


def test_a_restart_of_redis_in_mid_stream_loses_no_token(tmp_path: Path) -> None:
    """Worker and reader wait for it, and go on where they were."""
    with unlimited(tmp_path) as stack, GroqClient(settings=stack.settings()) as client:
        stack.start_worker(["power"])
        stack.ask("/_sim/faults", SLOW | {"delay_s": 0.1})
        stream = client.stream("Still there? <<tokens:200>>", tier="power", timeout=100)
        pieces = [next(stream), next(stream)]
        stack.redis.stop()
        stack.redis.start()
        pieces += stream
        assert stream.result is not None
        assert "".join(pieces) == stream.result.text
        assert len(stream.result.attempts) == 1


FAULTS = (
    *("stream_event_error", "stream_data_error", "stream_x_groq_error", "stream_broken_json", "stream_no_done"),
    *("stream_early_fin", "stream_reset", "stream_silence", "stream_comments"),
)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_after_the_first_token_ends_the_job(stack: Stack, client: GroqClient, kind: str) -> None:
    """The reader has what came and the reason; nothing is tried again, and the call is booked at its estimate."""
    stack.ask("/_sim/faults", {"kind": kind, "at": 3})
    stream = client.stream("Break. <<tokens:60>>", tier="power", timeout=60)
    pieces: list[str] = []
    with pytest.raises(JobFailed) as failed:
        pieces.extend(stream)
    assert failed.value.reason == "stream_broken"
    assert expected_text([{"role": "user", "content": "Break. <<tokens:60>>"}]).startswith("".join(pieces))
    assert ledger_of(stack, stream.job_id) == [("unknown", True)]


@pytest.mark.parametrize("kind", [*FAULTS, "over_capacity", "model_not_found", "reset_before_headers"])
def test_a_fault_before_the_first_token_is_made_up_for(stack: Stack, client: GroqClient, kind: str) -> None:
    """A retry or the next model answers, and the reader sees one whole answer."""
    stack.ask("/_sim/faults", {"kind": kind, "at": 0, "count": 1})
    stream = client.stream("Mend. <<tokens:60>>", tier="power", timeout=60)
    text = "".join(stream)
    assert stream.result is not None
    assert text == stream.result.text
    assert len(stream.result.attempts) == 2


def test_a_schema_is_answered_as_a_whole(client: GroqClient) -> None:
    """Groq refuses to stream it, so it is not asked to; the reader gets one piece."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
    stream = client.stream("In JSON.", tier="power", timeout=60, response_format=form)
    (piece,) = stream
    assert piece.startswith("{")


def test_leaving_early_cancels_the_job(stack: Stack, client: GroqClient) -> None:
    """Whoever breaks out of the loop pays for no more of it."""
    stack.ask("/_sim/faults", SLOW)
    with client.stream("Too long. <<tokens:200>>", tier="power", timeout=60) as stream:
        next(stream)
    stack.until(lambda: client.state(stream.job_id) is JobState.CANCELLED, "the job to be cancelled")
    assert ledger_of(stack, stream.job_id) == [("unknown", True)]


def test_an_answer_that_nobody_reads_is_cut(stack: Stack, client: GroqClient) -> None:
    """Ten seconds after its last reader has gone without a word, the worker cancels the job."""
    stack.ask("/_sim/faults", SLOW | {"delay_s": 0.5})
    handle = client.submit("Anybody? <<tokens:900>>", tier="power", stream=True)
    reader = follow(stack.redis.url, client.door.store, client.runner, handle.id)
    next(reader)
    reader.close()
    stack.until(lambda: handle.state() is JobState.CANCELLED, "the job to be cancelled")
    job = client.job(handle.id)
    assert "Nobody has read the answer for 10 s" in job.message
    assert job.read_at is not None
    assert job.finished_at is not None
    assert job.finished_at - job.read_at >= 10_000
    assert ledger_of(stack, handle.id) == [("unknown", True)]


@pytest.mark.parametrize("on_outage", ["queue", "fail"])
@pytest.mark.system
def test_a_reader_is_told_of_an_outage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, on_outage: Literal["queue", "fail"]
) -> None:
    """The last worker of the tier dies before it takes the job: a warning, or the job is cancelled as it asked."""
    with unlimited(tmp_path) as stack, GroqClient(settings=stack.settings()) as client:
        worker = stack.start_worker(["power"])
        worker.send_signal(signal.SIGSTOP)
        stream = client.stream("Anybody?", tier="power", on_outage=on_outage, timeout=60)
        stack.kill(worker)
        stack.workers.remove(worker)
        stack.until(lambda: not client.runner.run(client.door.alive(["power"]))["power"], "the worker to count as gone")
        if on_outage == "fail":
            with pytest.raises(NoWorkers):
                list(stream)
            assert client.state(stream.job_id) is JobState.CANCELLED
        else:

            def help_out() -> None:
                stack.until(lambda: "No worker serves tier power" in caplog.text, "the warning")
                stack.start_worker(["power"])

            helper = threading.Thread(target=help_out)
            helper.start()
            assert "Anybody?" in "".join(stream)
            helper.join()


def test_the_time_of_a_reader_is_bounded(stack: Stack, client: GroqClient) -> None:
    """As `query` is; the job is not worth anything to anybody then."""
    stack.ask("/_sim/faults", SLOW)
    stream = client.stream("Hurry. <<tokens:300>>", tier="power", timeout=1)
    with pytest.raises(WaitTimeout):
        list(stream)
    stack.until(lambda: client.state(stream.job_id) is JobState.CANCELLED, "the job to be cancelled")


def test_what_cannot_be_streamed_says_so(tmp_path: Path, client: GroqClient) -> None:
    """No worker, no job, many at once, and a retry, which has no reader."""
    with pytest.raises(JobNotFound):
        list(client.stream_of("job_none"))
    with pytest.raises(InvalidRequest, match="stream"):
        client.submit_many([{"messages": [{"role": "user", "content": "hi"}], "stream": True}])
    done = client.submit("Once. <<tokens:60>>", tier="power", stream=True)
    text = "".join(done.stream(timeout=60))
    assert client.retry(done.id).result(60).text == text
    with unlimited(tmp_path) as bare, GroqClient(settings=bare.settings()) as alone, pytest.raises(NoWorkers):
        alone.stream("hi")
