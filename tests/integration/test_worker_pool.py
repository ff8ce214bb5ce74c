"""A real Celery worker with the asyncio pool: each ticket once, plain commands work, nothing of an argument leaks."""

from __future__ import annotations

import json
import signal
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.worker_process import NAMESPACE, Broker, Worker, celery_command, jobs_of
from tests.waiting import wait_until
from vessel.dispatch.app import make_app
from vessel.dispatch.ticket import TASK_NAME, render
from vessel.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANARY = "canary-9f3a"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """Give an empty broker on a server of its own."""
    with EmbeddedServer(tmp_path / "s") as server:
        yield Broker(server.url, tmp_path)


class Listener:
    """Every event the workers publish, raw and parsed."""

    def __init__(self, broker: Broker) -> None:
        """Subscribe."""
        self._pubsub: Any = broker.redis.pubsub()
        self._pubsub.psubscribe(f"{NAMESPACE}:/*celeryev*")
        self.raw: list[str] = []
        self.events: list[dict[str, Any]] = []
        wait_until(lambda: self._pubsub.get_message(timeout=0.1))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Read what has come and give the events of one type."""
        while message := self._pubsub.get_message(ignore_subscribe_messages=True, timeout=0.01):
            envelope = json.loads(message["data"])
            self.raw.append(envelope["body"])
            body = json.loads(envelope["body"])
            self.events += body if isinstance(body, list) else [body]
        return [event for event in self.events if event["type"] == kind]


def test_500_tickets_of_both_lanes_run_once_each(broker: Broker) -> None:
    """Every ticket starts one job once and is acknowledged; nothing stays in flight."""
    jobs = [f"noop-{n}" for n in range(500)]
    broker.send(*jobs[:300])
    broker.send(*jobs[300:], queue="power.batch")
    with Worker(broker, "-Q", "power,power.batch", "-c", "40"):
        # Between the list and the books a ticket is in neither, so that quiet alone proves nothing.
        wait_until(lambda: len(broker.ended) >= len(jobs) and broker.quiet() and not broker.waiting("power.batch"))
        assert Counter(jobs_of(broker.started)) == Counter(jobs)
        assert Counter(entry.split()[1] for entry in broker.started) == {"power": 300, "power.batch": 200}


def test_interactive_tickets_are_taken_before_batch_tickets(broker: Broker) -> None:
    """With one slot, every ticket of the interactive lane starts before any of the batch lane."""
    broker.send(*[f"noop-batch{n}" for n in range(5)], queue="power.batch")
    broker.send(*[f"noop-inter{n}" for n in range(5)])
    with Worker(broker, "-Q", "power.batch,power", "-c", "1"):
        wait_until(lambda: len(broker.ended) == 10)
    assert [entry.split()[1] for entry in broker.started] == ["power"] * 5 + ["power.batch"] * 5


def test_many_tickets_travel_in_one_message(broker: Broker) -> None:
    """All pairs of a message run side by side, each with its generation."""
    pairs = [(f"noop-{n}", n) for n in range(16)]
    broker.redis.lpush(f"{NAMESPACE}:power", render("power", pairs, "tag", "task", "16 jobs"))
    with Worker(broker, "-Q", "power"):
        wait_until(lambda: broker.quiet() and broker.ended)
    assert sorted(broker.ended) == sorted(f"{job}:{generation}" for job, generation in pairs)


def test_slots_bound_what_runs_at_once_and_do_not_stall(broker: Broker) -> None:
    """With two slots two jobs run at a time, and the next starts as soon as one ends."""
    broker.send(*[f"sleep-0.05-{n}" for n in range(20)])
    with Worker(broker, "-Q", "power", "-c", "2"):
        wait_until(lambda: len(broker.ended) == 20, timeout=10)


def test_plain_celery_opens_the_executor_with_the_tiers_of_its_queues(broker: Broker) -> None:
    """`celery -A workers.app worker -Q power` serves that tier; without -Q it serves all of the registry."""
    with Worker(broker, "-Q", "power", "-c", "7"), Worker(broker):
        opened = [entry.split() for entry in broker.opened]
    by_slots = {slots: tiers for _, tiers, slots in opened}
    assert by_slots["7"] == "power"
    assert {"power", "balanced", "ultra_fast"} <= set(by_slots["200"].split(","))


def test_celery_inspect_and_flower_see_the_pool(broker: Broker) -> None:
    """Ping, stats and active answer; stats name the pool, active shows the ticket and no more."""
    broker.send("sleep-30-x")
    with Worker(broker, "-Q", "power", "-c", "5"):
        wait_until(lambda: broker.started)
        assert "pong" in celery_command(broker, "inspect", "ping").stdout
        stats = celery_command(broker, "inspect", "stats", "--json").stdout
        pool = next(iter(json.loads(stats).values()))["pool"]
        assert pool["implementation"] == "workers.pool:AsyncioPool"
        assert (pool["max-concurrency"], pool["running"]) == (5, 1)
        active = json.loads(celery_command(broker, "inspect", "active", "--json").stdout)
        (request,) = next(iter(active.values()))
        assert request["id"] == "sleep-30-x:0"


def test_the_brokers_password_is_not_in_the_statistics(broker: Broker) -> None:
    """`inspect stats`, which Flower shows, masks it for a unix socket as well."""
    broker.redis.config_set("requirepass", CANARY)
    locked = Broker(broker.url.replace("://", f"://:{CANARY}@"), broker.data_dir)
    with Worker(locked, "-Q", "power", "-l", "DEBUG") as worker:
        stats = celery_command(locked, "inspect", "stats")
        conf = celery_command(locked, "inspect", "conf")
        assert "global_keyprefix" in stats.stdout
        assert CANARY not in stats.stdout + conf.stdout + worker.output


def test_the_pool_grows_and_shrinks_by_remote_control(broker: Broker) -> None:
    """Flower's buttons change the slots and the prefetch with them."""
    broker.send(*[f"sleep-30-{n}" for n in range(4)])
    with Worker(broker, "-Q", "power", "-c", "1"):
        wait_until(lambda: len(broker.started) == 1)
        celery_command(broker, "control", "pool_grow", "2")
        wait_until(lambda: len(broker.started) == 3)
        celery_command(broker, "control", "pool_shrink", "2")
        stats = celery_command(broker, "inspect", "stats", "--json").stdout
        assert next(iter(json.loads(stats).values()))["pool"]["max-concurrency"] == 1


def test_remote_shutdown_drains(broker: Broker) -> None:
    """`celery control shutdown` lets running jobs end, releases the rest and closes the executor."""
    broker.send("sleep-1-x", "late-y")
    with Worker(broker, "-Q", "power") as worker:
        wait_until(lambda: len(broker.started) == 2)
        celery_command(broker, "control", "shutdown")
        assert worker.wait() == 0
    assert sorted(jobs_of(broker.ended)) == ["late-y", "sleep-1-x"]
    assert len(broker.closed) == 1
    assert broker.quiet()


def test_a_revoked_running_task_is_cancelled_and_acknowledged(broker: Broker) -> None:
    """`revoke --terminate` cancels the coroutine; the job itself goes back through its lease."""
    broker.send("sleep-30-x")
    with Worker(broker, "-Q", "power"):
        wait_until(lambda: broker.started)
        celery_command(broker, "control", "revoke", "sleep-30-x:0", "--terminate")
        celery_command(broker, "control", "terminate", "SIGTERM", "sleep-30-x:0")
        wait_until(broker.quiet)
        broker.send("noop-after")
        wait_until(lambda: broker.ended)
    assert jobs_of(broker.ended) == ["noop-after"]


def test_a_plain_sync_task_runs_through_celerys_tracer(broker: Broker) -> None:
    """Somebody's own Celery task works in the same worker."""
    listener = Listener(broker)
    with Worker(broker, "-Q", "power"):
        app = make_app(broker.url, namespace=NAMESPACE, tiers=("power",))
        with app.connection_for_write() as connection:
            app.send_task("test.plain", args=("hello",), queue="power", connection=connection)
        wait_until(lambda: listener.of("task-succeeded"))
    assert listener.of("task-succeeded")[0]["result"] == "'HELLO'"


def test_events_tell_a_tasks_life(broker: Broker) -> None:
    """Received, started and succeeded reach Flower, with ids and states only."""
    listener = Listener(broker)
    broker.send("noop-1")
    with Worker(broker, "-Q", "power"):
        wait_until(lambda: listener.of("task-succeeded"))
    (received,), (started,), (succeeded,) = (listener.of(f"task-{k}") for k in ("received", "started", "succeeded"))
    assert received["name"] == TASK_NAME
    assert received["args"] == "noop-1:0 power a-model"
    assert started["uuid"] == succeeded["uuid"] == "noop-1:0"
    assert "'state': 'succeeded'" in succeeded["result"]


def test_a_failing_run_is_acknowledged_and_says_nothing_of_its_text(broker: Broker) -> None:
    """The error's class and place are logged and sent as an event; its message, at any log level, is not."""
    listener = Listener(broker)
    broken = render("power", [], "tag", "task", "r").replace("[[[]]", "[[[],1,2]")
    with Worker(broker, "-Q", "power", "-l", "DEBUG") as worker:
        broker.redis.lpush(f"{NAMESPACE}:power", broken)
        wait_until(lambda: listener.of("task-failed"))
        broker.redis.lpush(f"{NAMESPACE}:power", render("power", [(f"boom-{CANARY}", 0)], "tag2", "task2", "shown"))
        wait_until(lambda: len(listener.of("task-failed")) == 2)
        wait_until(broker.quiet)
        worker.tell(signal.SIGTERM)
        worker.wait()
    first, second = (event["exception"] for event in listener.of("task-failed"))
    assert "TypeError" in first
    assert "RuntimeError at fake_executor.py" in second
    assert CANARY not in worker.output
    assert CANARY not in "".join(listener.raw)
    assert "RuntimeError" in worker.output


def test_another_pool_is_refused(broker: Broker) -> None:
    """With -P threads the coroutines would never run, so the worker says so and exits with 2."""
    with Worker(broker, "-P", "threads", ready=False) as worker:
        assert worker.wait() == 2
    assert "Leave out -P" in worker.output


@pytest.mark.parametrize(
    ("variables", "status", "said"),
    [
        ({"VESSEL_REDIS_URL": "http://x", "VESSEL_LOG_LEVEL": "loud"}, 2, ["VESSEL_REDIS_URL", "VESSEL_LOG_LEVEL"]),
        ({"VESSEL_REDIS_URL": ""}, 3, ["VESSEL_REDIS_URL"]),
    ],
)
def test_faulty_settings_end_the_worker_with_every_fault_and_no_traceback(
    tmp_path: Path, variables: dict[str, str], status: int, said: list[str]
) -> None:
    """Bad values exit with 2, no Redis with 3; both say how to go on."""
    (tmp_path / "data").mkdir()
    with Worker(Broker("redis://127.0.0.1:1/0", tmp_path), ready=False, **variables) as worker:
        assert worker.wait() == status
    assert all(name in worker.output for name in said)
    assert "Traceback" not in worker.output
