"""What a power cut takes: Redis' file cut back to its last fsync and in the middle of a record, under load.

A killed process loses nothing that it has written; a power cut loses what no fsync has reached. Which bytes those are
is seen by strace: all that were written before the last fsync that had ended are on disk.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from bench.stack import Stack
from tests.chaos.working import Working
from tests.waiting import wait_until
from vessel.client import GroqClient
from vessel.errors import JobNotFound, Unreachable
from vessel.usage.log import entries

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.settings import Settings

STRACE = shutil.which("strace")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(STRACE is None or os.geteuid() != 0, reason="needs strace, as root"),
]
JOBS = 200
WINDOW_S = 2.0
"""What `everysec` may lose: a second, and another one while an fsync runs."""
WRITE = re.compile(r"^\d+ +write\(\d+<[^>]*incr\.aof[^>]*>.*= (\d+)$")
SYNC = re.compile(r"^(\d+) +f(?:data)?sync\(\d+<[^>]*incr\.aof[^>]*>\)? *(= 0|<unfinished)")
SYNCED = re.compile(r"^(\d+) +<\.\.\. f(?:data)?sync resumed>\) *= 0")


class Disk:
    """Watches what a server has written to its append-only file, and how much of that an fsync has reached."""

    def __init__(self, pid: int, folder: Path) -> None:
        """Take the server's process, and the folder of its files."""
        (self.file,) = (folder / "appendonlydir").glob("*.incr.aof")
        self.trace = folder / "strace.out"
        self.base = self.file.stat().st_size
        assert STRACE is not None
        self.process = subprocess.Popen(
            [STRACE, "-f", "-y", "-s", "0", "-e", "trace=write,fdatasync,fsync", "-o", str(self.trace), "-p", str(pid)],
            stderr=subprocess.DEVNULL,
        )
        wait_until(self.trace.exists)

    def durable(self) -> int:
        """Return the length of the file that a power cut would leave."""
        self.process.wait(20)
        written = durable = self.base
        asked: dict[str, int] = {}
        for line in self.trace.read_text(errors="replace").splitlines():
            if found := WRITE.match(line):
                written += int(found[1])
            elif found := SYNC.match(line):
                if found[2] == "= 0":
                    durable = max(durable, written)
                else:
                    asked[found[1]] = written
            elif found := SYNCED.match(line):
                durable = max(durable, asked.pop(found[1], durable))
        return durable


class Submitting(Working):
    """Submits jobs one by one, each with a key of its own, and keeps when each was accepted."""

    def __init__(self, settings: Settings) -> None:
        """Take where to."""
        super().__init__()
        self.settings = settings
        self.accepted: dict[str, tuple[str, float]] = {}
        self.doubtful: list[str] = []
        """The key whose answer the cut took: its job may be there, and is called then."""

    def work(self) -> None:
        """Submit."""
        with GroqClient(settings=self.settings) as client:
            for number in range(100_000):
                if self.over.is_set():
                    return
                try:
                    job = client.submit(f"Job {number}", tier="power", max_tokens=20, idempotency_key=f"k{number}")
                except Unreachable:
                    self.doubtful.append(f"k{number}")
                    return
                self.accepted[f"k{number}"] = (job.id, time.monotonic())


@pytest.mark.parametrize(("fsync", "may_lose_s"), [("always", 0.0), ("everysec", WINDOW_S)])
def test_a_power_cut_takes_no_more_than_it_says(tmp_path: Path, fsync: str, may_lose_s: float) -> None:
    """What was accepted before the window is there, what is there goes on, and what is not can be sent again."""
    with Stack(tmp_path, simulator=("--latency-ms", "50")) as stack:
        with GroqClient(settings=stack.settings()) as client:
            client.runner.client.config_set("appendfsync", fsync)
        stack.start_worker(["power"])
        disk = Disk(stack.redis.pid, tmp_path / "data" / "redis")
        with Submitting(stack.settings()) as load:
            began = time.monotonic()
            wait_until(lambda: len(load.accepted) >= JOBS and time.monotonic() > began + 3 * WINDOW_S, 120)
            cut = time.monotonic()
            os.kill(stack.redis.pid, signal.SIGKILL)
        _cut(disk)
        assert stack.redis.revive()
        with GroqClient(settings=stack.settings()) as client:
            lost = {key for key, (job_id, _) in load.accepted.items() if not _there(client, job_id)}
            late = {key for key, (_, at) in load.accepted.items() if at >= cut - may_lose_s}
            assert late < set(load.accepted), "all were accepted within the window"
            assert lost <= late, f"{len(lost - late)} jobs are gone that were accepted before the last {may_lose_s:g} s"
            again = {
                key: client.submit(f"Job {key[1:]}", tier="power", max_tokens=20, idempotency_key=key)
                for key in (*load.accepted, *load.doubtful)
            }
            assert {key for key in load.accepted if not again[key].existing} == lost
            assert all(job.result(timeout=60).text for job in again.values())
            found = client.runner.run(entries(client.door.keys.ledger, "", 100_000))
        booked = [fields["call"] for _, fields in found]
        assert len(booked) == len(set(booked))
        assert stack.workers[0].poll() is None, "the worker went through it"
        # What was called and forgotten was called again: no more than what the window held.
        assert stack.ask("/_sim/stats")["accepted"] <= len(again) + len(late)


def _cut(disk: Disk) -> None:
    """Leave of the file what an fsync has reached, and half of what came next."""
    durable, size = disk.durable(), disk.file.stat().st_size
    with disk.file.open("rb+") as file:
        file.truncate(durable + (size - durable) // 2)


def _there(client: GroqClient, job_id: str) -> bool:
    try:
        client.job(job_id)
    except JobNotFound:
        return False
    return True
