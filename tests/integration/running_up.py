"""`vessel up --sim` as a process of a test, and the other commands beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench.stack import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VESSEL = [sys.executable, "-m", "vessel.cli.main"]
READY_S = 60.0
PROCESSES_WITH_METRICS = 4
"""Three workers and the scheduler."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        """Its standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        """Its only JSON document."""
        (only,) = self.documents
        return only


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """Give a clean environment with a data directory of its own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VESSEL_", "GROQ_", "OPENAI_"))}
    return kept | {"VESSEL_DATA_DIR": str(data_dir), "COLUMNS": "200"} | more


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def vessel(*arguments: str, env: Mapping[str, str], stdin: bytes = b"") -> Ran:
    """Run one command to its end."""
    done = subprocess.run(
        [*VESSEL, *arguments], env=dict(env), input=stdin, capture_output=True, timeout=90, check=False
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def processes_of(data_dir: Path) -> set[int]:
    """Name the processes whose environment names a data directory; Linux only, elsewhere none."""
    mark = f"VESSEL_DATA_DIR={data_dir}\0".encode()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes() + b"\0" and not _is_zombie(folder):
                found.add(int(folder.name))
        except OSError:
            continue
    return found - {os.getpid()}


def _is_zombie(folder: Path) -> bool:
    return (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


class Up:
    """A running `vessel up --sim --json`."""

    def __init__(self, data_dir: Path, *arguments: str, flower: bool = False, **more: str) -> None:
        """Start it; `await_event` says when it is ready. Flower takes a second, so few start it."""
        self.data_dir = data_dir
        leave_out = () if flower else ("--no-flower",)
        data_dir.mkdir(parents=True, exist_ok=True)
        ports = {f"VESSEL_{name}_PORT": str(free_port()) for name in ("API", "FLOWER", "MCP")}
        ports["VESSEL_METRICS_PORT"] = str(free_port(PROCESSES_WITH_METRICS))
        self.env = environment(data_dir, **(ports | more))
        self.events: list[dict[str, Any]] = []
        self.log = (data_dir / "up.log").open("wb")
        self.process = subprocess.Popen(
            [*VESSEL, "up", "--sim", "--json", *leave_out, *arguments],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=self.log,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        """Wait until it is ready."""
        self.await_event("ready")
        return self

    def __exit__(self, *_: object) -> None:
        """End it and wait until nothing of it is left."""
        self.end(signal.SIGTERM)
        wait_until(lambda: not processes_of(self.data_dir), READY_S)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(READY_S)
        self._reader.join(READY_S)
        if self.process.stdout:
            self.process.stdout.close()
        self.log.close()
        return code

    def await_event(self, name: str) -> dict[str, Any]:
        """Wait for an event and give it."""

        def seen() -> list[dict[str, Any]]:
            if self.process.poll() is not None and not self._reader.is_alive():
                raise AssertionError(f"up ended: {(self.data_dir / 'up.log').read_text()[-3000:]}")
            return [event for event in self.events if event["event"] == name]

        return wait_until(seen, READY_S)[0]

    def vessel(self, *arguments: str, stdin: Sequence[str] = ()) -> Ran:
        """Run another command beside it."""
        return vessel(*arguments, env=self.env, stdin="\n".join(stdin).encode())

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
