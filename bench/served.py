"""A stack with one `vessel api` process, what that process uses, and how a benchmark reports."""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis

from bench.stack import Stack, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_LIMITS = {"model": "*", "limits": {"rpm": 10_000_000, "tpm": 1_000_000_000, "rpd": None, "tpd": None}}


class Api(Stack):
    """Processes that a benchmark looks at; the API is started by name."""

    api: subprocess.Popen[str] | None = None
    url = ""

    def start_api(self, *arguments: str, port: int = 0, **env: str) -> Self:
        """Start the API and wait until it listens."""
        with (self.folder / "api.log").open("ab") as log:
            command = [sys.executable, "-m", "vessel.cli.main", "api", "--json", "--port", str(port or free_port())]
            self.api = subprocess.Popen(
                [*command, *arguments],
                env=self.environment() | env, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        assert self.api.stdout is not None
        line = self.api.stdout.readline()
        assert line, self.log("api")
        self.url = json.loads(line)["url"]
        return self

    def stop(self) -> None:
        """End everything."""
        if self.api is not None:
            self.api.terminate()
            try:
                self.api.wait(30)
            except subprocess.TimeoutExpired:
                self.api.kill()
                self.api.wait()
            assert self.api.stdout is not None
            self.api.stdout.close()
            self.api = None
        super().stop()

    @property
    def pid(self) -> int:
        """Name the API's process."""
        assert self.api is not None
        return self.api.pid

    def rss_mib(self, what: str = "VmRSS") -> float:
        """Read the API's resident memory of this moment, or with `VmHWM` its largest so far."""
        status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        return int(status.partition(f"{what}:")[2].split()[0]) / 1024

    def open_files(self) -> int:
        """Count the API's file descriptors."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def redis_connections(self) -> int:
        """Count all clients of Redis but the one that asks; what a process has is the difference to before it."""
        with redis.Redis.from_url(self.redis.url) as client:
            return len(client.client_list()) - 1


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20)[-1] if len(values) > 1 else math.nan


def load_average() -> str:
    """Tell how busy the machine is: figures taken beside other work say little."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def verdict(value: float, goal: float, *, least: bool = False) -> str:
    """Say whether a goal was met; `least`: it is the least and not the most."""
    return "ok" if (value >= goal if least else value <= goal) else "missed"


def table(rows: Sequence[tuple[str, Any, str]]) -> str:
    """Set rows of what, value and remark below each other."""
    wide = max(len(row[0]) for row in rows)
    middle = max(len(str(row[1])) for row in rows)
    return "\n".join(f"{what:<{wide}}  {value!s:>{middle}}  {remark}".rstrip() for what, value, remark in rows)
