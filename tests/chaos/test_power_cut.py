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
from dataclasses import dataclass
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
LOADED_S = 6.0
"""Long enough for several fsyncs."""
CALL_S = 1.0
"""From the end of a call at the simulator to its booking, at most."""
SECOND_S = 1.0
"""How long after the last one `everysec` asks for an fsync; what it loses besides is what fsyncs took."""
SLACK_S = 0.5
"""For Redis' own timer, ten times a second, on a machine that is busy with strace."""
CALL = re.compile(r"^(?P<thread>\d+) +(?P<at>[\d.]+) (?P<what>write|fdatasync|fsync)\(\d+<[^>]*incr\.aof>(?P<rest>.*)$")
RESUMED = re.compile(r"^(?P<thread>\d+) +(?P<at>[\d.]+) <\.\.\. (?:write|fdatasync|fsync) resumed>(?P<rest>.*)$")
ENDED = re.compile(r"\) += (\d+) <([\d.]+)>$")


@dataclass(frozen=True, slots=True)
class Pending:
    """A write or an fsync that has begun: when, and how much had been written then."""

    what: str
    at: float
    written: int


@dataclass(frozen=True, slots=True)
class Synced:
    """What a power cut leaves: the file's length, when the fsync began that reached so far, and the slowest one."""

    length: int
    at: float
    slowest_s: float


class Disk:
    """Watches what a server writes to its append-only file, and how much of that an fsync has reached."""

    def __init__(self, pid: int, folder: Path) -> None:
        """Take the server's process, and the folder of its files."""
        (self.file,) = (folder / "appendonlydir").glob("*.incr.aof")
        self.trace = folder / "strace.out"
        assert STRACE is not None
        seen = ["-f", "-y", "-s", "0", "-ttt", "-T", "-e", "trace=write,fdatasync,fsync"]
        self.process = subprocess.Popen(
            [STRACE, *seen, "-o", str(self.trace), "-p", str(pid)], stderr=subprocess.DEVNULL
        )
        wait_until(lambda: self.trace.exists() and self.trace.stat().st_size)

    def synced(self, cut: float) -> Synced:
        """Say what a power cut at `cut` would leave.

        Reckoned from the file's end: what was written before strace had attached is not in its output.
        """
        self.process.wait(20)
        written, last, slowest = 0, None, 0.0
        begun: dict[str, Pending] = {}
        for line in self.trace.read_text(errors="replace").splitlines():
            if call := CALL.match(line):
                begun[call["thread"]] = Pending(call["what"], float(call["at"]), written)
            elif (call := RESUMED.match(line)) is None:
                continue
            ended = ENDED.search(call["rest"])
            # A write that overlaps an fsync of another thread is on two lines; other files' are not begun here.
            if ended is None or (pending := begun.pop(call["thread"], None)) is None:
                continue
            if pending.what == "write":
                written += int(ended[1])
                continue
            assert ended[1] == "0", line
            slowest = max(slowest, float(ended[2]))
            if last is None or pending.written >= last.written:
                last = pending
        assert last is not None, "no fsync was seen"
        slowest = max([slowest, *(cut - pending.at for pending in begun.values() if pending.what != "write")])
        return Synced(self.file.stat().st_size - (written - last.written), last.at, slowest)


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
                self.accepted[f"k{number}"] = (job.id, time.time())


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_a_power_cut_takes_no_more_than_it_says(tmp_path: Path, fsync: str) -> None:
    """What was accepted before the last fsync is there, what is there goes on, and what is not can be sent again."""
    with Stack(tmp_path, simulator=("--latency-ms", "50")) as stack:
        with GroqClient(settings=stack.settings()) as client:
            client.runner.client.config_set("appendfsync", fsync)
        stack.start_worker(["power"])
        disk = Disk(stack.redis.pid, tmp_path / "data" / "redis")
        with Submitting(stack.settings()) as load:
            began = time.time()
            wait_until(lambda: len(load.accepted) >= JOBS and time.time() > began + LOADED_S, 120)
            cut = time.time()
            os.kill(stack.redis.pid, signal.SIGKILL)
        synced = disk.synced(cut)
        if fsync == "everysec":
            assert cut - synced.at <= SECOND_S + 2 * synced.slowest_s + SLACK_S, "Redis has not asked for an fsync"
        since = cut if fsync == "always" else synced.at
        _cut(disk, synced)
        assert stack.redis.revive()
        with GroqClient(settings=stack.settings()) as client:
            lost = {key for key, (job_id, _) in load.accepted.items() if not _there(client, job_id)}
            late = {key for key, (_, at) in load.accepted.items() if at >= since}
            assert late < set(load.accepted), "all were accepted since the last fsync"
            assert lost <= late, f"{len(lost - late)} jobs are gone that were accepted before the last fsync"
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
        # What was called and forgotten was called again: no more than what was under way or ended since the fsync.
        calls = stack.ask("/_sim/calls")["calls"]
        forgotten = [call for call in calls if since - CALL_S <= call["finished_at"] and call["started_at"] <= cut]
        assert sum(call["accepted"] for call in calls) <= len(again) + len(forgotten)


def _cut(disk: Disk, synced: Synced) -> None:
    """Leave of the file what an fsync has reached, and half of what came next."""
    size = disk.file.stat().st_size
    with disk.file.open("rb+") as file:
        file.truncate(synced.length + (size - synced.length) // 2)


def _there(client: GroqClient, job_id: str) -> bool:
    try:
        client.job(job_id)
    except JobNotFound:
        return False
    return True
