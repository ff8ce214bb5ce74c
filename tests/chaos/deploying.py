"""A stack whose processes are of two versions, work that waits for them, and the throughput that the simulator saw."""

from __future__ import annotations

import bisect
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.stack import Stack, free_port
from tests.chaos.working import Working
from tests.waiting import wait_until
from vessel.client import GroqClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.settings import Settings

ROOT = Path(__file__).parents[2]
LUA = "vessel/keyspace/lua"
GIT = "/usr/bin/git"
STEP_S = 0.25


def git(*arguments: str) -> str:
    """Ask this checkout's history. Raises CalledProcessError, FileNotFoundError."""
    done = subprocess.run([GIT, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def no_history() -> str:
    """Say why there is no last version to deploy over; empty where there should be one."""
    if not (ROOT / ".git").exists() or not Path(GIT).exists():
        return "there is no last version: this is no checkout, or there is no git"
    if git("rev-parse", "--is-shallow-repository") == "true":
        return "there is no last version: the clone is shallow (git fetch --unshallow)"
    return ""


def before_the_last_change_of_scripts() -> str:
    """Name the last commit whose scripts are other ones. Raises CalledProcessError where git cannot tell."""
    changed = git("log", "-1", "--format=%H", "--", LUA)
    return git("rev-parse", "--verify", f"{changed}^")


class Deploying(Stack):
    """A stack whose next process is of the version in `root`."""

    root = ROOT

    def spawn(self, command: Sequence[str], name: str) -> subprocess.Popen[bytes]:
        """Start a process of that version."""
        path = os.pathsep.join((str(self.root), str(self.root / "vessel" / "alias")))
        # 0, for none, came later than some last versions.
        more = {"PYTHONPATH": path} | ({} if self.root == ROOT else {"VESSEL_METRICS_PORT": str(free_port())})
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                command, env=self.environment() | more, cwd=self.root, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def start_service(self, *command: str) -> subprocess.Popen[bytes]:
        """Start the scheduler or the API; `stop` ends it with the workers."""
        process = self.spawn([sys.executable, "-m", "vessel.cli.main", *command], command[0])
        self.workers.append(process)
        return process

    @property
    def api_url(self) -> str:
        """Name the address of the API, which is that of whichever process serves it now."""
        return f"http://127.0.0.1:{self.more_env['VESSEL_API_PORT']}"


def drain(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end what it has begun, and wait for it."""
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


class Load(Working):
    """Submits jobs for as long as the block lasts, so that some always wait, and at least so many of them."""

    def __init__(self, settings: Settings, *, least: int, ahead: int) -> None:
        """Take where to, how many at least, and how many are to wait."""
        super().__init__()
        self.settings, self.least, self.ahead = settings, least, ahead
        self.ids: list[str] = []

    def work(self) -> None:
        """Submit."""
        with GroqClient(settings=self.settings) as client:
            while not self.over.is_set() or len(self.ids) < self.least:
                wait_until(lambda: sum(tier.waiting or 0 for tier in client.tiers()) < self.ahead, 120)
                made = client.submit_many({"prompt": f"Job {n}", "max_tokens": 20} for n in range(20))
                self.ids += [handle.id for handle in made]


class Calling(Working):
    """A caller of the API, one job after another, who asks again with the same key where nobody answers."""

    def __init__(self, url: str) -> None:
        """Take where to."""
        super().__init__()
        self.url = url
        self.ids: list[str] = []

    def work(self) -> None:
        """Submit a job and wait for its end, again and again."""
        number = 0
        while not self.over.is_set():
            number += 1
            body = {"model": "auto", "max_tokens": 20, "vessel": {"priority": "interactive"}}
            body["messages"] = [{"role": "user", "content": f"Call {number}"}]
            job_id = self._asked("/v1/jobs", body, f"call{number}")["id"]
            self.ids.append(job_id)
            while self._asked(f"/v1/jobs/{job_id}?wait=20")["state"] in {"queued", "running", "parked"}:
                pass

    def _asked(self, path: str, body: object = None, key: str = "") -> Any:
        return wait_until(lambda: self._once(path, body, key), 60)

    def _once(self, path: str, body: object, key: str) -> Any:
        """Ask once; None where the API is away or about to go."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        request = urllib.request.Request(self.url + path, data, headers)  # noqa: S310  loopback
        try:
            with urllib.request.urlopen(request, timeout=40) as answer:  # noqa: S310  loopback
                return json.load(answer)
        except urllib.error.HTTPError as refusal:
            if refusal.code != HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        except (OSError, http.client.HTTPException):
            pass
        return None


def all_calls(stack: Stack) -> list[dict[str, Any]]:
    """Read the simulator's whole log."""
    found: list[dict[str, Any]] = []
    since = 0
    while page := stack.ask(f"/_sim/calls?since={since}&limit=1000")["calls"]:
        found += page
        since = page[-1]["seq"]
    return found


@dataclass(frozen=True, slots=True)
class Throughput:
    """Answers a second, in windows that slide over the simulator's own log."""

    ends: Sequence[float]
    window_s: float

    @classmethod
    def of(cls, calls: Sequence[dict[str, Any]], window_s: float) -> Throughput:
        """Take the answers out of a log."""
        return cls(sorted(call["finished_at"] for call in calls if call["completed"]), window_s)

    def rates(self, since: float, until: float) -> list[float]:
        """Give the rate of each window that lies wholly in this span."""
        found: list[float] = []
        while since + self.window_s <= until:
            first = bisect.bisect_left(self.ends, since)
            last = bisect.bisect_left(self.ends, since + self.window_s)
            found.append((last - first) / self.window_s)
            since += STEP_S
        return found

    def least_part(self, before: tuple[float, float], during: tuple[float, float]) -> float:
        """Say what part of the usual rate, the median before, the slowest window had meanwhile."""
        return min(self.rates(*during)) / statistics.median(self.rates(*before))


def answers(url: str) -> bool:
    """Tell whether an API answers there."""
    with suppress(OSError), urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:  # noqa: S310  loopback
        return bool(answer.status == HTTPStatus.OK)
    return False
