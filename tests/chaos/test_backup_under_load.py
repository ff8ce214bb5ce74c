"""A backup taken while workers run, restored on another server: every job is there, ends once, and is counted once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bench.stack import Stack
from tests.waiting import wait_until
from vessel.client import GroqClient
from vessel.usage.log import entries

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system
JOBS, LINES = 150, 250


def _run(stack: Stack, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "vessel.cli.main", *arguments, "--json"], env=stack.environment(), capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_what_ran_when_it_was_taken_is_run_again(tmp_path: Path) -> None:
    """Jobs and a batch are in the middle: the copy ends as the original does, and no key of a call is booked twice."""
    file = tmp_path / "backup"
    with Stack(tmp_path / "one", simulator=("--latency-ms", "500"), lease_s=5.0) as one:
        one.ask("/_sim/limits", {"rpm": 100_000, "tpm": 50_000_000})
        one.start_worker(slots=20)
        with GroqClient(settings=one.settings()) as client:
            jobs = client.submit_many({"prompt": f"Job {n}", "max_tokens": 20} for n in range(JOBS))
            batch = client.submit_batch([{"prompt": f"Line {n}", "max_tokens": 20} for n in range(LINES)])
            wait_until(lambda: one.ask("/_sim/stats")["accepted"] > 60, 60)
            _run(one, "backup", str(file))
            assert one.ask("/_sim/stats")["accepted"] < JOBS + LINES, "all was over before the backup"
    with Stack(tmp_path / "two", simulator=("--latency-ms", "50"), lease_s=5.0) as two:
        two.ask("/_sim/limits", {"rpm": 100_000, "tpm": 50_000_000})
        restored = _run(two, "restore", str(file))
        assert restored["running"] > 0, "none ran when it was taken"
        two.start_worker(slots=20)
        with GroqClient(settings=two.settings()) as client:
            assert all(client.result(handle.id, timeout=120).text for handle in jobs)
            ended = client.batch(batch.id).wait(timeout=120)
            assert (ended.completed, ended.failed, ended.total) == (LINES, 0, LINES)
            found = client.runner.run(entries(client.door.keys.ledger, "", 100_000))
        calls = [fields["call"] for _, fields in found]
        assert len(calls) == len(set(calls))
        answered = [
            call.partition(b"/")[0]
            for call, (_, row) in zip(calls, found, strict=True)
            if row["outcome"] == b"succeeded"
        ]
        assert len(answered) == len(set(answered)) == JOBS + LINES
        unknown = sum(row["outcome"] == b"unknown" for _, row in found)
        assert unknown <= restored["running"], "only calls that were under way have an answer that nobody saw"
