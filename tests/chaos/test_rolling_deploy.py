"""Workers of the last version and of this one side by side: replaced one after another under load, nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.stack import Stack, free_port
from tests.chaos.working import Working
from tests.waiting import wait_until
from vessel.client import GroqClient
from vessel.keyspace.release import release
from vessel.keyspace.script import command, word
from vessel.usage.log import entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vessel.settings import Settings

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]
LUA = "vessel/keyspace/lua"
JOBS, LINES, AHEAD = 300, 200, 60
GIT = "/usr/bin/git"


def _git(*arguments: str) -> str:
    done = subprocess.run([GIT, "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _before_the_last_change_of_scripts() -> str | None:
    """Name the last commit whose scripts are other ones; None where the history does not reach so far."""
    try:
        changed = _git("log", "-1", "--format=%H", "--", LUA)
        return _git("rev-parse", "--verify", f"{changed}^")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None


@pytest.fixture(scope="module")
def last_version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Check the last version out, beside this one."""
    commit = _before_the_last_change_of_scripts()
    if commit is None:
        pytest.skip("needs a clone with history")
    folder = tmp_path_factory.mktemp("last") / "version"
    _git("worktree", "add", "--detach", str(folder), commit)
    yield folder
    _git("worktree", "remove", "--force", str(folder))


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


class Load(Working):
    """Submits jobs for as long as the block lasts, so that some always wait, and at least JOBS of them."""

    def __init__(self, settings: Settings) -> None:
        """Take where to."""
        super().__init__()
        self.settings = settings
        self.ids: list[str] = []

    def work(self) -> None:
        """Submit."""
        with GroqClient(settings=self.settings) as client:
            while not self.over.is_set() or len(self.ids) < JOBS:
                wait_until(lambda: sum(tier.waiting or 0 for tier in client.tiers()) < AHEAD, 120)
                made = client.submit_many({"prompt": f"Job {n}", "max_tokens": 20} for n in range(20))
                self.ids += [handle.id for handle in made]


def test_workers_are_replaced_one_after_another(tmp_path: Path, last_version: Path) -> None:
    """500 jobs and lines, or more, run meanwhile: each ends well, was called once, and is in the ledger once."""
    with Deploying(tmp_path, simulator=("--latency-ms", "400")) as stack:
        stack.ask("/_sim/limits", {"rpm": 100_000, "tpm": 50_000_000})
        stack.root = last_version
        old = [stack.start_worker(slots=10), stack.start_worker(slots=10)]
        stack.root = ROOT
        with GroqClient(settings=stack.settings()) as client:
            batch = client.submit_batch([{"prompt": f"Line {n}", "max_tokens": 20} for n in range(LINES)])
            with Load(stack.settings()) as load:
                for worker in old:
                    _served(stack, 40)
                    stack.start_worker(slots=10)
                    _mixed(client, stack)
                    _served(stack, 40)
                    worker.send_signal(signal.SIGTERM)
                    assert worker.wait(60) == 0
                _served(stack, 40)
            results = [client.result(job_id, timeout=120) for job_id in load.ids]
            found = batch.wait(timeout=120)
            rows: Any = [fields for _, fields in client.runner.run(entries(client.door.keys.ledger, "", 100_000))]
    assert all(result.text for result in results)
    assert (found.completed, found.failed) == (LINES, 0)
    assert calls_booked(rows) == len(load.ids) + LINES >= JOBS + LINES


def _served(stack: Stack, more: int) -> None:
    """Wait until so many more calls have been answered."""
    at = stack.ask("/_sim/stats")["accepted"]
    wait_until(lambda: stack.ask("/_sim/stats")["accepted"] >= at + more, 120)


def _mixed(client: GroqClient, stack: Stack) -> None:
    """Wait until workers of both versions are seen to live."""
    keys = client.door.keys

    def releases() -> set[str]:
        workers = client.runner.run(command("HKEYS", keys.slots, parse=lambda raw: [word(name) for name in raw]))
        return set(client.runner.run_all([command("GET", keys.release(name), parse=word) for name in workers]))

    wait_until(lambda: release() in releases() and len(releases()) > 1, 30)
    assert stack.workers


def calls_booked(rows: Sequence[dict[str, bytes]]) -> int:
    """Count the calls of the ledger, each once, none of them without an answer."""
    calls = [row["call"] for row in rows]
    assert len(calls) == len(set(calls)), "a call is booked twice"
    assert {row["outcome"] for row in rows} == {b"succeeded"}
    jobs = [json.loads(row["row"])["job_id"] for row in rows]
    assert len(jobs) == len(set(jobs)), "a job was called twice"
    return len(jobs)
