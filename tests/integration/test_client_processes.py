"""A client shared by threads, carried over a fork, interrupted, and outliving its Redis' restart."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.integration.fake_worker import FakeWorker
from tests.waiting import wait_until
from vessel.client import ClientClosed, GroqClient, JobNotFound, JobState, NoWorkers, WaitTimeout
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


def test_a_client_goes_through_a_pool_of_processes(settings: Settings, worker: FakeWorker) -> None:
    """Forked workers use their parent's client; results and failures come back whole, and all end without noise."""
    program = """
import multiprocessing
from groq_vessel import GroqClient, JobFailed, WaitTimeout
client = GroqClient()
client.query("warm", timeout=20)
def ask(n):
    if n == 3:
        return WaitTimeout("late", job_id="job_x")
    return client.query(f"child {n}", timeout=20)
def fail(n):
    raise JobFailed("job_1", "failed", "bad_request", "no", ())
with multiprocessing.get_context("fork").Pool(2) as pool:
    answers = pool.map(ask, range(4))
    assert [str(a) for a in answers[:3]] == ["CHILD 0", "CHILD 1", "CHILD 2"]
    assert (answers[3].job_id, str(answers[3])) == ("job_x", "late")
    try:
        pool.apply(fail, (1,))
    except JobFailed as error:
        assert (error.job_id, error.reason) == ("job_1", "bad_request")
    else:
        raise SystemExit("no failure")
assert client.query("after", timeout=20).text == "AFTER"
"""
    assert run(program, settings) == (0, "")
    assert len(worker.started) == 5


def test_a_closed_client_says_so(settings: Settings) -> None:
    """Closing twice does nothing; a call afterwards, or one that waits, is told, and its job goes on."""
    with GroqClient(settings=settings) as client, ThreadPoolExecutor(2) as threads:
        handle = client.submit("hi")
        waits = [threads.submit(handle.result), threads.submit(GroqClient(settings=settings).result, handle.id, 30)]
        wait_until(lambda: client.waiter._waiting)
        client.close()
        with pytest.raises(ClientClosed):
            waits[0].result(LOOK_AGAIN_S / 2)
        client.close()
        for call in (client.jobs, handle.result, client.__enter__, lambda: client.query("hi")):
            with pytest.raises(ClientClosed):
                call()
        with FakeWorker(settings, ALL):
            assert waits[1].result(30).text == "HI"


def test_a_dropped_client_leaves_no_thread(settings: Settings) -> None:
    """A program that makes a client per call and never closes one does not fill up."""
    with FakeWorker(settings, ALL):
        waiters = []
        for n in range(3):
            client = GroqClient(settings=settings)
            assert client.query(f"{n}", timeout=20).text == f"{n}"
            waiters.append(client.waiter)
            del client
        gc.collect()
        tails = [waiter._tail for waiter in waiters]
        wait_until(lambda: not any(tail is not None and tail.is_alive() for tail in tails))


def test_several_clients_live_side_by_side(settings: Settings, worker: FakeWorker) -> None:
    """Namespaces, tenants and connections of one do not touch those of another."""
    apart = settings.model_copy(update={"namespace": f"{settings.namespace}b"})
    with (
        GroqClient(settings=settings) as one,
        GroqClient(settings=settings, tenant="other") as two,
        GroqClient(settings=apart) as three,
    ):
        handle = one.submit("hi")
        assert two.query("ho", timeout=20).text == "HO"
        one_result = handle.result(timeout=20)
        for other in (two, three):
            with pytest.raises(JobNotFound):
                other.result(handle.id, timeout=5)
        with pytest.raises(NoWorkers):
            three.query("hi")
        one.close()
        assert two.query("still", timeout=20).text == "STILL"
    assert one_result.text == "HI"
    assert len(worker.started) == 3


def test_an_interrupt_cancels_the_job_it_waits_for(settings: Settings, worker: FakeWorker) -> None:
    """Ctrl-C on `query` leaves no job running behind the user's back, and its traceback says what became of it."""
    worker.hold()
    program = "import groq_vessel; groq_vessel.query('hi')"
    with (
        GroqClient(settings=settings) as client,
        subprocess.Popen(
            (sys.executable, "-c", program), env=environment(settings), stderr=subprocess.PIPE, text=True
        ) as asking,
    ):
        wait_until(lambda: worker.started)
        asking.send_signal(signal.SIGINT)
        _, told = asking.communicate(timeout=20)
        assert asking.returncode == -signal.SIGINT
        assert f"Job {worker.started[0]} was cancelled" in told
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
