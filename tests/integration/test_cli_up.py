"""`vessel up`: ready when it says so, started again when it crashes, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.integration.running_up import Up, environment, processes_of, vessel
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


def _workers(data_dir: Path) -> list[int]:
    return [pid for pid in processes_of(data_dir) if b"workers.app" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123  no path of ours
            return file.read()
    except OSError:
        return b""


def answers(url: str) -> bool:
    """Tell whether a face is ready."""
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def test_up_serves_every_tier_once_it_says_ready(tmp_path: Path) -> None:
    """Every tier has a live worker, a query is answered, counted figures are told, and SIGTERM ends it with 0."""
    with Up(tmp_path / "d") as up:
        ready = up.await_event("ready")
        assert [tier for group in ready["groups"] for tier in group] == [
            "ultra_fast", "speed_demon", "balanced", "power", "compound", "compound_mini",
        ]  # fmt: skip
        assert ready["models"]["listed"]
        assert ready["models"]["total"] == sum(
            ready["models"][kind] for kind in ("production", "systems", "preview", "enterprise")
        )
        assert {tier["name"]: tier["live_workers"] for tier in up.vessel("tiers", "--json").documents} == dict.fromkeys(
            (tier for group in ready["groups"] for tier in group), 1
        )
        face = f"http://127.0.0.1:{up.env['VESSEL_MCP_PORT']}/ready"
        wait_until(lambda: answers(face))
        assert "What is a lease" in up.vessel("query", "What is a lease?").out
        assert up.end(signal.SIGTERM) == 0
        assert up.events[-1] == {"event": "stopped", "killed": 0}


def test_up_starts_a_crashed_worker_and_a_dead_redis_again(tmp_path: Path) -> None:
    """What was killed is told of and started again, and what had been accepted is served as if nothing were."""
    with Up(tmp_path / "d", "--group", "power") as up:
        job_id = up.vessel("submit", "Still there?", "--tier", "power").out.strip()
        assert up.vessel("wait", job_id).code == 0
        (worker,) = _workers(up.data_dir)
        os.kill(worker, signal.SIGKILL)
        told = up.await_event("restarting")
        assert told["child"] == "worker power"
        assert told["code"] == -signal.SIGKILL
        wait_until(lambda: set(_workers(up.data_dir)) - {worker})
        wait_until(lambda: up.vessel("query", "Again?", "--tier", "power").code == 0, 60)
        server = json.loads((up.data_dir / "server.json").read_bytes())["pid"]
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: sum(event["event"] == "redis" for event in up.events) == 2, 30)
        wait_until(lambda: up.vessel("query", "Again?", "--tier", "power").code == 0, 60)
        assert up.vessel("job", job_id).code == 0


def test_a_killed_up_takes_everything_with_it(tmp_path: Path) -> None:
    """After kill -9 of `up` no child is left: not Redis, not the simulator, not a worker."""
    with Up(tmp_path / "d", "--group", "ultra_fast") as up:
        assert len(processes_of(up.data_dir)) >= 5
        assert up.end(signal.SIGKILL) == -signal.SIGKILL
        wait_until(lambda: not processes_of(up.data_dir), 40)


def test_up_stopped_while_it_starts_leaves_nothing(tmp_path: Path) -> None:
    """A signal before readiness ends it just as well."""
    up = Up(tmp_path / "d")
    up.await_event("simulator")
    assert up.end(signal.SIGTERM) == 0
    wait_until(lambda: not processes_of(up.data_dir))


def test_a_second_up_is_refused_and_ctrl_c_ends_the_first(tmp_path: Path) -> None:
    """Two cannot own one data directory: the second exits 3 and says why. SIGINT drains; the exit code tells it."""
    with Up(tmp_path / "d", "--group", "ultra_fast") as up:
        refused = up.vessel("up", "--sim")
        assert refused.code == 3
        assert "already has a running server" in refused.err
        assert up.vessel("query", "Still there?").code == 0
        assert up.end(signal.SIGINT) == 130
        wait_until(lambda: not processes_of(up.data_dir))


def test_up_needs_a_key_or_the_simulator(tmp_path: Path) -> None:
    """Without either it exits 3, names both ways, and starts nothing."""
    refused = vessel("up", env=environment(tmp_path / "d"))
    assert refused.code == 3
    assert "GROQ_API_KEY" in refused.err
    assert "--sim" in refused.err
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("group", ["powr", "power,power", ","])
def test_up_refuses_groups_that_cannot_be(tmp_path: Path, group: str) -> None:
    """An unknown, repeated or missing tier is bad use: exit 2, nothing started."""
    refused = vessel("up", "--sim", "--group", group, env=environment(tmp_path / "d"))
    assert refused.code == 2
    assert "--group" in refused.err
