"""A client shared by threads, carried over a fork, interrupted, and outliving its Redis' restart."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integration.fake_worker import FakeWorker
from tests.waiting import wait_until
from vessel.client import GroqClient, JobState, WaitTimeout
from vessel.embedded import EmbeddedServer
from vessel.settings import Settings, load_settings
from vessel.watch.threads import LOOK_AGAIN_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALL = ("ultra_fast", "balanced", "power", "speed_demon", "compound", "compound_mini")
pytestmark = pytest.mark.redis("valkey")


@pytest.fixture
def worker(settings: Settings) -> Iterator[FakeWorker]:
    """Run a worker for all tiers."""
    with FakeWorker(settings, ALL) as running:
        yield running


def environment(settings: Settings) -> dict[str, str]:
    """Give a program the settings of a test."""
    own = {
        "VESSEL_REDIS_URL": settings.redis_url or "",
        "VESSEL_NAMESPACE": settings.namespace,
        "VESSEL_DATA_DIR": str(settings.data_dir),
    }
    return dict(os.environ) | own


def run(program: str, settings: Settings) -> tuple[int, str]:
    """Run a program in a process of its own, warnings being errors; give its exit code and what it complained of."""
    command = (sys.executable, "-W", "error", "-c", program)
    done = subprocess.run(command, check=False, env=environment(settings), capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


def test_threads_share_a_client(settings: Settings, worker: FakeWorker) -> None:
    """Each thread gets the answer to its own question."""
    prompts = [f"prompt {n}" for n in range(200)]
    with GroqClient(settings=settings) as client, ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda prompt: client.query(prompt, timeout=60).text, prompts))
    assert answers == [prompt.upper() for prompt in prompts]
    assert len(worker.started) == len(prompts)


def test_a_client_works_on_both_sides_of_a_fork(settings: Settings, worker: FakeWorker) -> None:
    """A child opens its own connections and reads jobs of its parent, whose own go on working."""
    program = """
import os, sys
from groq_vessel import GroqClient
client = GroqClient()
handle = client.submit("from the parent")
assert client.query("before", timeout=20).text == "BEFORE"
if (child := os.fork()) == 0:
    try:
        assert handle.result(timeout=20).text == "FROM THE PARENT"
        assert client.query("in the child", timeout=20).text == "IN THE CHILD"
        os._exit(0)
    finally:
        os._exit(1)
assert client.query("in the parent", timeout=20).text == "IN THE PARENT"
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    assert run(program, settings) == (0, "")
    assert len(worker.started) == 4


def test_an_interrupt_cancels_the_job_it_waits_for(settings: Settings, worker: FakeWorker) -> None:
    """Ctrl-C on `query` leaves no job running behind the user's back."""
    worker.hold()
    program = "import groq_vessel; groq_vessel.query('hi')"
    with (
        GroqClient(settings=settings) as client,
        subprocess.Popen(
            (sys.executable, "-c", program), env=environment(settings), stderr=subprocess.DEVNULL
        ) as asking,
    ):
        wait_until(lambda: worker.started)
        asking.send_signal(signal.SIGINT)
        assert asking.wait(20) == -signal.SIGINT
        wait_until(lambda: client.state(worker.started[0]) is JobState.CANCELLED)


def test_the_seeds_functions_share_one_client_of_the_environment(settings: Settings, worker: FakeWorker) -> None:
    """Appendix C runs as it stands, with nothing but the environment."""
    program = """
from groq_vessel import analyze, generate_code, query, research
response = query("What is the Lion's Sanctuary?")
assert response.text == "WHAT IS THE LION'S SANCTUARY?"
assert analyze("Evaluate Portal Oradea revenue potential").tier == "power"
code = generate_code("Python function to parse CSV", language="python")
assert code.code == "PYTHON FUNCTION TO PARSE CSV"
findings = research("EU agricultural funding 2025", tools=["web_search"])
assert findings.tier == "compound" and findings.sources == []
"""
    assert run(program, settings) == (0, "")
    assert len(worker.started) == 4


def test_a_waiting_call_outlives_a_restart_of_redis(tmp_path: Path) -> None:
    """While Redis is away a waiter keeps trying; the end that was written afterwards wakes it."""
    server = EmbeddedServer(tmp_path).start()
    settings = load_settings({}, redis_url=server.url, data_dir=tmp_path)
    with GroqClient(settings=settings) as client, ThreadPoolExecutor(1) as threads:
        handle = client.submit("hi")
        call = threads.submit(handle.result, 60)
        wait_until(lambda: client.waiter._waiting)
        server.stop()
        server.start()
        assert server.url == settings.redis_url
        with FakeWorker(settings, ALL):
            assert call.result(60).text == "HI"
    server.stop()


def test_two_threads_may_wait_for_the_same_job(settings: Settings, worker: FakeWorker) -> None:
    """When one of them gives up, the other is still woken by the job's end and not by a later look."""
    worker.hold()
    with GroqClient(settings=settings) as client, ThreadPoolExecutor(4) as threads:
        handle = client.submit("hi", idempotency_key="k")
        patient = [threads.submit(handle.result, 60), threads.submit(client.result, handle.id, 60)]
        asking = threads.submit(client.query, "hi", idempotency_key="k", priority="normal", timeout=60)
        wait_until(lambda: handle.id in client.waiter._waiting)
        with pytest.raises(WaitTimeout):
            handle.result(timeout=0.05)
        worker.release()
        assert {call.result(LOOK_AGAIN_S / 2).text for call in (*patient, asking)} == {"HI"}
    assert worker.started == [handle.id]
