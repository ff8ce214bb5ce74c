"""A Celery worker as a subprocess, with the fake executor, and what the tests see of it."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

import redis

from tests.integration.fake_executor import CLOSED, ENDED, OPENED, STARTED
from tests.waiting import wait_until
from vessel.dispatch.ticket import render

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable
    from types import TracebackType

ROOT = Path(__file__).parents[2]
FAKE_APP = "tests.integration.fake_worker_app"
NAMESPACE = "poolt"
_tags = itertools.count()


def environment(url: str, data_dir: Path) -> dict[str, str]:
    """Give a worker's environment: this machine's without any setting of ours, then ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VESSEL_", "GROQ_", "CELERY_"))}
    return kept | {
        "VESSEL_REDIS_URL": url,
        "VESSEL_NAMESPACE": NAMESPACE,
        "VESSEL_DATA_DIR": str(data_dir),
        "PYTHONPATH": str(ROOT),
    }


class Broker:
    """What a test does to the queues and sees of the work done."""

    def __init__(self, url: str, data_dir: Path) -> None:
        """Take the server's address."""
        self.url = url
        self.data_dir = data_dir
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    def send(self, *jobs: str, queue: str = "power", generation: int = 0) -> None:
        """Push one ticket for each job."""
        for job in jobs:
            name = f"{job}:{generation}"
            envelope = render(queue, [(job, generation)], f"{name}:{next(_tags)}", name, f"{name} {queue} a-model")
            self.redis.lpush(f"{NAMESPACE}:{queue}", envelope)

    def _noted(self, key: str) -> list[str]:
        return cast("list[str]", self.redis.lrange(key, 0, -1))

    @property
    def opened(self) -> list[str]:
        """Workers that opened an executor: name, tiers, slots."""
        return self._noted(OPENED)

    @property
    def started(self) -> list[str]:
        """Jobs started: `job:generation queue`."""
        return self._noted(STARTED)

    @property
    def ended(self) -> list[str]:
        """Jobs ended: `job:generation`."""
        return self._noted(ENDED)

    @property
    def closed(self) -> list[str]:
        """Workers that closed in order."""
        return self._noted(CLOSED)

    def waiting(self, queue: str = "power") -> int:
        """Count the tickets in a queue."""
        return self.redis.llen(f"{NAMESPACE}:{queue}")

    def unacked(self) -> int:
        """Count the tickets received and not acknowledged."""
        return self.redis.hlen(f"{NAMESPACE}:unacked")

    def quiet(self) -> bool:
        """Tell whether no ticket waits or is in flight."""
        return self.waiting() == 0 and self.unacked() == 0


class Worker:
    """One worker process; killed at the end of the block unless it has ended."""

    def __init__(self, broker: Broker, *options: str, ready: bool = True, **variables: str) -> None:
        """Start it; with `ready`, entering the block waits until it consumes. Variables go into its environment."""
        self.log_path = broker.data_dir / f"worker{next(_tags)}.log"
        self._wait_ready = ready
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", FAKE_APP, "worker", "-n", f"w{next(_tags)}@test", *options],
                cwd=ROOT,
                env=environment(broker.url, broker.data_dir) | variables,
                stdout=log,
                stderr=log,
            )

    @property
    def output(self) -> str:
        """Everything the process has written."""
        return self.log_path.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def tell(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end and give the exit status."""
        return self.process.wait(30)

    def __enter__(self) -> Self:
        """Wait until the worker consumes."""
        if self._wait_ready:
            wait_until(lambda: " ready." in self.output or not self.alive, timeout=30)
            assert self.alive, self.output
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing running."""
        if self.alive:
            self.process.kill()
        self.process.wait(30)


def celery_command(broker: Broker, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a celery command against the fake worker app."""
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", FAKE_APP, *arguments],
        cwd=ROOT,
        env=environment(broker.url, broker.data_dir),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def jobs_of(noted: Iterable[str]) -> list[str]:
    """Give the job ids of noted starts or ends."""
    return [entry.split(":")[0] for entry in noted]
