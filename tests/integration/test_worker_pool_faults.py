"""What a worker does when asked to stop, killed, or without Redis: no ticket is lost, no worker leaves by itself."""

from __future__ import annotations

import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.integration.worker_process import Broker, Worker, jobs_of
from tests.waiting import wait_until
from vessel.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    """Give a server that a test may stop and start."""
    with EmbeddedServer(tmp_path / "s") as embedded:
        yield embedded


@pytest.fixture
def broker(server: EmbeddedServer, tmp_path: Path) -> Broker:
    """Give an empty broker on it."""
    return Broker(server.url, tmp_path)


def test_sigterm_lets_running_jobs_end_and_takes_nothing_more(broker: Broker) -> None:
    """What runs ends and is acknowledged, what has not started is released, the rest stays queued."""
    broker.send("sleep-1-a", "sleep-1-b", "late-c", "late-d")
    with Worker(broker, "-Q", "power", "-c", "4") as worker:
        wait_until(lambda: len(broker.started) == 4)
        broker.send(*[f"noop-{n}" for n in range(6)])
        worker.tell(signal.SIGTERM)
        assert worker.wait() == 0
    assert sorted(jobs_of(broker.ended)) == ["late-c", "late-d", "sleep-1-a", "sleep-1-b"]
    assert broker.unacked() == 0
    assert broker.waiting() == 6
    assert len(broker.closed) == 1


def test_an_ack_leaves_during_the_drain_and_not_at_its_end(broker: Broker) -> None:
    """A long drain does not hold back the acknowledgements of what has ended."""
    broker.send("sleep-30-long", "sleep-1-short")
    with Worker(broker, "-Q", "power") as worker:
        wait_until(lambda: len(broker.started) == 2)
        worker.tell(signal.SIGTERM)
        wait_until(lambda: jobs_of(broker.ended) == ["sleep-1-short"])
        wait_until(lambda: broker.unacked() == 1)
        assert worker.alive


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGQUIT])
def test_a_second_signal_stops_a_drain_at_once_and_returns_its_tickets(broker: Broker, second: signal.Signals) -> None:
    """The cold shutdown cancels running calls; their tickets are back in the queue, not lost and not acknowledged."""
    broker.send(*[f"sleep-60-{n}" for n in range(5)])
    with Worker(broker, "-Q", "power") as worker:
        wait_until(lambda: len(broker.started) == 5)
        worker.tell(signal.SIGTERM)
        wait_until(lambda: "Warm shutdown" in worker.output)
        worker.tell(second)
        worker.wait()
    assert broker.waiting() == 5
    assert broker.unacked() == 0
    assert not broker.ended
    assert len(broker.closed) == 1


def test_sigquit_alone_returns_the_tickets_too(broker: Broker) -> None:
    """A cold shutdown without a drain before it loses nothing either."""
    broker.send(*[f"sleep-60-{n}" for n in range(5)])
    with Worker(broker, "-Q", "power", "-c", "3") as worker:
        wait_until(lambda: len(broker.started) == 3)
        worker.tell(signal.SIGQUIT)
        worker.wait()
    assert broker.waiting() == 5
    assert broker.unacked() == 0


def test_a_killed_workers_tickets_come_back_after_the_visibility_timeout(broker: Broker) -> None:
    """After kill -9 another worker puts back what was unacknowledged; what had ended does not come again."""
    broker.send(*[f"sleep-60-{n}" for n in range(3)], "noop-done")
    with Worker(broker, "-Q", "power", TEST_VISIBILITY="1") as worker:
        wait_until(lambda: len(broker.started) == 4 and broker.unacked() == 3)
        worker.tell(signal.SIGKILL)
        worker.wait()
    assert broker.unacked() == 3
    with Worker(broker, "-Q", "power.batch", TEST_VISIBILITY="1"):
        wait_until(lambda: broker.waiting() == 3)
    assert broker.unacked() == 0


def test_a_redis_restart_under_late_ack_work_does_not_end_the_worker(broker: Broker, server: EmbeddedServer) -> None:
    """The regression of Celery 5.7.0: in-flight runs end and are acknowledged once, and work goes on."""
    broker.send(*[f"sleep-3-{n}" for n in range(5)])
    with Worker(broker, "-Q", "power") as worker:
        wait_until(lambda: len(broker.started) == 5)
        server.stop()
        wait_until(lambda: "onnection" in worker.output)
        server.start()
        broker.send("noop-after")
        wait_until(lambda: "noop-after" in jobs_of(broker.ended))
        wait_until(broker.quiet)
        assert worker.alive
        assert Counter(jobs_of(broker.started)) == Counter([*(f"sleep-3-{n}" for n in range(5)), "noop-after"])
        assert len(broker.ended) == 6
        broker.send(*[f"noop-more{n}" for n in range(50)])
        wait_until(lambda: len(broker.ended) == 56)
        worker.tell(signal.SIGTERM)
        assert worker.wait() == 0


def test_runs_that_end_while_redis_is_away_are_acknowledged_later(broker: Broker, server: EmbeddedServer) -> None:
    """Nothing is settled against a dead connection and forgotten; the worker also drains in such a state."""
    broker.send(*[f"sleep-1-{n}" for n in range(3)])
    with Worker(broker, "-Q", "power") as worker:
        wait_until(lambda: len(broker.started) == 3)
        server.stop()
        wait_until(lambda: worker.output.count("Cannot connect") >= 1)
        server.start()
        wait_until(lambda: len(broker.ended) == 3)
        wait_until(broker.quiet)
        assert worker.alive


def test_dropped_connections_redeliver_and_the_worker_goes_on(broker: Broker) -> None:
    """Redis closing every connection returns the tickets in flight; the claim decides who runs them."""
    broker.send(*[f"sleep-2-{n}" for n in range(3)])
    with Worker(broker, "-Q", "power") as worker:
        wait_until(lambda: len(broker.started) == 3)
        broker.redis.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: len(broker.ended) >= 6)
        wait_until(broker.quiet)
        assert worker.alive
        assert set(Counter(jobs_of(broker.started)).values()) == {2}


def test_a_worker_waits_for_redis_with_one_line_and_obeys_sigterm_meanwhile(tmp_path: Path) -> None:
    """Started before Redis, the worker says so once; it leaves when asked and works when Redis comes."""
    server = EmbeddedServer(tmp_path / "s").start()
    server.stop()
    broker = Broker(server.url, tmp_path)
    with Worker(broker, "-Q", "power", ready=False) as patient, Worker(broker, "-Q", "power", ready=False) as leaving:
        wait_until(lambda: "worker.waits" in patient.output and "worker.waits" in leaving.output, timeout=30)
        leaving.tell(signal.SIGTERM)
        assert leaving.wait() == 0
        with server.start():
            broker.send("noop-1")
            wait_until(lambda: broker.ended)
            assert patient.output.count("worker.waits") == 1
            assert "Cannot connect" not in patient.output


def test_a_worker_whose_loop_ended_leaves_and_returns_its_tickets(broker: Broker) -> None:
    """A worker without its loop would take tickets and run none, so it goes and its supervisor starts it anew."""
    broker.send("sleep-60-x")
    with Worker(broker, "-Q", "power") as worker:
        wait_until(lambda: broker.started)
        broker.send("exit-y")
        worker.wait()
        assert "loop.ended" in worker.output
    assert broker.waiting() == 2
    assert broker.unacked() == 0


def test_a_redis_out_of_memory_does_not_end_the_worker(broker: Broker) -> None:
    """While Redis refuses writes the worker stays; at most the one ticket popped meanwhile is left to the sweep.

    A refused ack may leave one message behind until its visibility ends: its job has run, so the copy will be dropped.
    """
    broker.send("sleep-2-x", *[f"noop-{n}" for n in range(10)])
    with Worker(broker, "-Q", "power", "-c", "1") as worker:
        wait_until(lambda: broker.started)
        broker.redis.config_set("maxmemory", 1)
        wait_until(lambda: "maxmemory" in worker.output)
        assert worker.alive
        broker.redis.config_set("maxmemory", 0)
        wait_until(lambda: not broker.waiting() and len(broker.ended) >= 9)
        wait_until(lambda: broker.unacked() <= 1)
        assert worker.alive
