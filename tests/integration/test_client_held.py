"""What a call tells, or refuses, when its tier has no worker or a spend cap holds its job."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.integration.fake_worker import FakeWorker, beat
from tests.waiting import wait_until
from vessel.client import GroqClient, JobState, NoWorkers, WaitTimeout, asking
from vessel.client.gates import explained
from vessel.control import set_budget

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from vessel.client.steps import Steps
    from vessel.jobs.model import Job
    from vessel.settings import Settings
    from vessel.watch.waiting import Waiting


@pytest.fixture
def client(settings: Settings) -> Iterator[GroqClient]:
    """Open a client."""
    with GroqClient(settings=settings) as opened:
        yield opened


def test_without_any_worker_query_refuses_before_anything_is_written(
    client: GroqClient, redis_client: redis.Redis
) -> None:
    """Nobody would answer, so nothing is enqueued; `submit` holds the job instead."""
    with pytest.raises(NoWorkers):
        client.query("hi", timeout=20)
    assert list(redis_client.scan_iter()) == []
    assert client.submit("hi").state() is JobState.QUEUED


def test_a_dead_tier_fails_at_once_where_that_was_asked_for(client: GroqClient, settings: Settings) -> None:
    """With `on_outage="fail"` a tier without workers is an error that names it; nothing is enqueued."""
    with FakeWorker(settings, ["balanced"]):
        with pytest.raises(NoWorkers, match="power"):
            client.query("hi", tier="power", on_outage="fail", timeout=20)
        with pytest.raises(NoWorkers, match="power"):
            client.submit("hi", tier="power", on_outage="fail")
        assert client.jobs() == []


def test_a_tier_that_dies_under_a_waiting_call_is_told(client: GroqClient, redis_client: redis.Redis) -> None:
    """With `on_outage="fail"` a job that waits for a tier whose last worker left is cancelled and said to be."""
    beat(client.runner, client.door, ["power"])
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(lambda: client.query("hi", tier="power", on_outage="fail", timeout=20))
        wait_until(lambda: redis_client.llen(client.door.keys.queue("power")))
        redis_client.delete(client.door.keys.live("power"))
        with pytest.raises(NoWorkers, match="was cancelled"):
            call.result()
    assert [job.state for job in client.jobs()] == [JobState.CANCELLED]


def test_a_held_job_is_told_of_and_runs_when_its_worker_comes(
    client: GroqClient, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """By default a job waits for its own tier: a warning names the tier, and the answer comes with the worker."""
    handle = client.submit("hi", tier="power")
    with FakeWorker(settings, ["balanced"]), caplog.at_level(logging.WARNING, "groq_vessel"):
        with pytest.raises(WaitTimeout):
            client.query("hi there", tier="power", timeout=2)
        assert "No worker serves tier power" in caplog.text
        with FakeWorker(settings, ["power"]):
            assert handle.result(timeout=20).text == "HI"


def test_a_call_that_a_spend_cap_holds_says_so(
    client: GroqClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which cap, until when, the way out; what its long prompt may cost counts; it is told once, however late."""
    monkeypatch.setattr(asking, "LOOK_S", 0.01)
    beat(client.runner, client.door, ["power"])
    looks: list[Job] = []

    def explained_late(of: asking.Asking, job: Job) -> Steps[Waiting | None]:
        looks.append(job)
        return None if len(looks) == 1 else (yield from explained(of, job))

    monkeypatch.setattr(asking, "explained", explained_late)
    client.runner.run(set_budget(client.door, None, day=Decimal("0.0001")))
    with caplog.at_level(logging.WARNING, "groq_vessel"), pytest.raises(WaitTimeout, match=r"within 0\.5 s"):
        client.query("x" * 1000, tier="power", max_tokens=10, timeout=0.5)
    (told,) = caplog.messages
    assert re.fullmatch(
        r"Job (job_\w+) waits until .+ at the earliest: the spend cap of the whole "
        r"vessel for this day does not allow it; `vessel budget show` tells more\. It goes on when the cap is raised "
        r"with `vessel budget set`; to give it up: `vessel cancel \1`\.", told,
    )  # fmt: skip


def test_failover_is_taken_by_any_live_worker(client: GroqClient, settings: Settings) -> None:
    """A job that may fail over goes into the queue of a tier that lives."""
    with FakeWorker(settings, ["compound"]):
        assert client.query("hi", tier="power", on_outage="failover", timeout=20).text == "HI"
