"""A model that cannot serve for now is gone back to where the rest of the chain never can; nothing goes in a circle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.stack import Stack
from tests.waiting import wait_until
from vessel.client import GroqClient
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vessel.jobs.model import Job

FIRST, SECOND = "openai/gpt-oss-120b", "openai/gpt-oss-20b"
NO_CAPACITY = {"kind": "over_capacity", "model": FIRST}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """Give a vessel with one worker for all tiers."""
    with Stack(tmp_path / "stack") as running:
        running.start_worker()
        yield running


def retired(stack: Stack) -> None:
    """Take the fallback off; no worker has heard of it yet."""
    stack.ask("/_sim/models", {"remove": [SECOND]})


def too_small(stack: Stack) -> None:
    """Let the fallback take next to nothing."""
    stack.ask("/_sim/limits", {"model": SECOND, "tpm": 50})


def read(client: GroqClient, job_id: str) -> Job:
    """Read a job that is there."""
    job = client.job(job_id)
    assert job is not None
    return job


def ended(client: GroqClient, job_id: str) -> Job:
    """Wait until a job has ended."""
    wait_until(lambda: read(client, job_id).terminal, 60)
    return read(client, job_id)


@pytest.mark.parametrize("spoil", [retired, too_small])
def test_a_passing_503_costs_no_job_though_the_fallback_never_takes_it(
    stack: Stack, spoil: Callable[[Stack], None]
) -> None:
    """It waits without using up its attempts, and is answered once the model that was asked for has capacity."""
    spoil(stack)
    stack.ask("/_sim/faults", NO_CAPACITY)
    with GroqClient(settings=stack.settings()) as client:
        handle = client.submit("Step down, please", tier="power")
        wait_until(lambda: len(read(client, handle.id).attempts) > 3, 30)
        waiting = read(client, handle.id)
        assert not waiting.terminal
        assert not any(call.counted for call in waiting.attempts if call.reason == "over_capacity")
        stack.ask("/_sim/faults", method="DELETE")
        result = client.result(handle.id, timeout=60)
    assert (result.model, bool(result.text)) == (FIRST, True)


def test_who_does_not_wait_out_an_outage_is_told_of_the_503(stack: Stack) -> None:
    """Not that the fallback is gone, which is no reason why the model that was asked for did not answer."""
    retired(stack)
    stack.ask("/_sim/faults", NO_CAPACITY)
    with GroqClient(settings=stack.settings()) as client:
        handle = client.submit("Now or never", tier="power", on_outage="fail")
        job = ended(client, handle.id)
    assert (job.state, job.reason) == (JobState.FAILED, "over_capacity")


def test_a_job_that_the_gate_knows_to_be_too_large_for_all_ends_at_once(stack: Stack) -> None:
    """No attempt tells so: the limits were learned from another job's calls. It must not be sent round the chain."""
    for model in (FIRST, SECOND):
        stack.ask("/_sim/limits", {"model": model, "tpm": 50})
    with GroqClient(settings=stack.settings()) as client:
        for calls in (2, 0):
            job = ended(client, client.submit("Too much", tier="power").id)
            assert (job.state, job.reason, len(job.attempts)) == (JobState.FAILED, "too_large", calls)
            assert "lower max_completion_tokens" in job.message
            assert "No other model of the chain takes it" in job.message
