"""A whole Vessel on this machine, as real processes: embedded Redis, simulator, workers. For benchmarks and tests."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any, Self

from vessel.dispatch.queues import queues_of
from vessel.embedded import EmbeddedServer
from vessel.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from vessel.settings import Settings

READY_S = 60.0
PORTS = range(10_000, 32_768)
PROCESSES = 16
"""How many processes of a test run have ports of their own."""
SPAN = 32
"""The ports that are kept free behind the last of a part, for spans that begin there."""
KEY = "gsk_simulated0000000000000000000000000000"


def free_port(span: int = 1) -> int:
    """Find the first of `span` consecutive ports that nobody listens on.

    They are below those that Linux gives to outgoing connections, of which one could take a port before it is used.
    Each process of a test run has a part of them to itself, and goes round it, as another one could do that too.
    """
    while True:
        first = next(_firsts)
        ports = range(first, first + span)
        if all(map(_is_free, ports)):
            for _ in ports[1:]:
                next(_firsts)
            return first


def _own_ports() -> Iterator[int]:
    """Go round the part of the ports that is this process' own, from anywhere: other test runs may do the same."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    part = len(PORTS) // PROCESSES
    own = PORTS[process % PROCESSES * part :][: part - SPAN]
    begin = secrets.randbelow(len(own))
    return itertools.cycle((*own[begin:], *own[:begin]))


_firsts = _own_ports()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Stack:
    """Processes that a benchmark or a test starts, kills and looks at; all end with the `with` block."""

    def __init__(
        self, folder: Path, *, world: str = "today", simulator: Sequence[str] = (), lease_s: float = 15.0, **env: str
    ) -> None:
        """Choose what runs; nothing is started yet. `env` adds VESSEL_* variables by full name."""
        self.folder = folder
        self.redis = EmbeddedServer(folder / "data")
        self.world, self.simulator_args, self.lease_s, self.more_env = world, simulator, lease_s, env
        self.simulator: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.base_url = ""
        self.started = 0
        self.namespace = "vessel"

    def __enter__(self) -> Self:
        """Start Redis and the simulator; workers are started by name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self.redis.start()
            self.start_simulator()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        self.stop()

    def environment(self) -> dict[str, str]:
        """Give the environment every process of this stack runs in."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("VESSEL_", "GROQ_", "OPENAI_", "CELERY_"))}
        return kept | self.variables()

    def variables(self) -> dict[str, str]:
        """Give what this stack sets."""
        return {
            "VESSEL_REDIS_URL": self.redis.url,
            "VESSEL_DATA_DIR": str(self.folder / "data"),
            "VESSEL_NAMESPACE": self.namespace,
            "VESSEL_LEASE": str(self.lease_s),
            "VESSEL_METRICS_PORT": "0",
            "GROQ_API_KEY": KEY,
            "GROQ_BASE_URL": self.base_url,
        } | self.more_env

    def settings(self, **overrides: object) -> Settings:
        """Read this stack's settings as its processes do."""
        from vessel.settings import load_settings  # noqa: PLC0415  the module is light without it

        return load_settings(self.environment(), **overrides)

    def start_simulator(self) -> None:
        """Start the simulator and wait for its address."""
        address = self.folder / "simulator.url"
        address.unlink(missing_ok=True)
        command = [sys.executable, "-m", "vessel.simulator", "--port", "0", "--world", self.world]
        command += ["--url-file", str(address), *self.simulator_args]
        self.simulator = self.spawn(command, "simulator")
        self.until(address.exists, "the simulator's address")
        self.base_url = address.read_text("utf-8").strip()

    def start_worker(
        self, tiers: Iterable[str] | None = None, *, slots: int = 100, app: str = "workers.app", at: int | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a worker for some tiers, or all, and wait until it has said that it lives."""
        names = list(tiers or load_registry().tiers)
        self.started += 1
        number = self.started
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-l", "INFO", "-c", str(slots)]
        command += ["-Q", ",".join(queues_of(names)), "-n", f"w{number}@stack", "--without-mingle", "--without-gossip"]
        process = self.spawn(command, f"worker{number}")
        self.workers.insert(len(self.workers) if at is None else at, process)
        self.until(lambda: self._lives(process, names), f"worker {number}", process)
        return process

    def _lives(self, process: subprocess.Popen[bytes], tiers: Sequence[str]) -> bool:
        import redis  # noqa: PLC0415  only stacks with workers need it

        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.redis.url) as client:
            names = [client.zrange(f"{self.namespace}:live:{tier}", 0, -1) for tier in tiers]
            return all(any(n.decode().endswith(f":{process.pid}") for n in found) for found in names)
        return False

    def spawn(self, command: Sequence[str], name: str) -> subprocess.Popen[bytes]:
        """Start a process of this stack, its output in a log of its own."""
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def log(self, name: str) -> str:
        """Read what a process has printed."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def kill(self, process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal and wait for the end."""
        process.send_signal(how)
        return process.wait(READY_S)

    def ask(self, path: str, body: object | None = None, method: str | None = None) -> Any:
        """Ask the simulator's own side."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base_url + path, data, method=method)  # noqa: S310  loopback
        with urllib.request.urlopen(request, timeout=READY_S) as answer:  # noqa: S310  loopback
            return json.loads(answer.read() or b"null")

    def until(
        self,
        condition: Callable[[], object],
        what: str,
        process: subprocess.Popen[bytes] | None = None,
        patience_s: float = READY_S,
    ) -> None:
        """Wait for a condition; say what was waited for when it does not come, or when the process ended."""
        deadline = time.monotonic() + patience_s
        while not condition():
            if process is not None and process.poll() is not None:
                raise RuntimeError(f"{what} ended with {process.returncode}; see the logs in its folder")
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {patience_s:g} s for {what}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End all processes, workers first."""
        running = [p for p in [*self.workers, self.simulator] if p is not None and p.poll() is None]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.redis.stop()
