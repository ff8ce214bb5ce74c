"""The processes of a vessel one by one: worker, scheduler, simulate, and `up` on a Redis that is there already."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.running_up import VESSEL, environment, vessel
from tests.simulated import Process
from tests.waiting import wait_until
from vessel.embedded import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the environment of a Redis and a simulator, both empty."""
    with EmbeddedServer(tmp_path / "r") as server, Process(tmp_path) as simulator:
        yield environment(
            tmp_path / "d", VESSEL_REDIS_URL=server.url, GROQ_BASE_URL=simulator.url, GROQ_API_KEY="sim-test"
        )


def _start(env: dict[str, str], *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*VESSEL, *arguments], env=env, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


def _first_event(process: subprocess.Popen[str]) -> dict[str, object]:
    assert process.stdout is not None
    event: dict[str, object] = json.loads(process.stdout.readline())
    return event


def _end(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, Sequence[str]]:
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    return process.returncode, out.splitlines()


def test_a_worker_serves_its_tiers_and_no_others(env: dict[str, str], tmp_path: Path) -> None:
    """It serves what it was told, from a folder with another `workers` in it, too, and SIGTERM ends it with 0."""
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("raise SystemExit('not this one')")
    worker = _start(env, "worker", "--tiers", "power", "--concurrency", "3", "--json", cwd=tmp_path)
    try:
        started = _first_event(worker)
        assert started == {"event": "starting", "tiers": ["power"], "concurrency": 3, "pid": worker.pid}
        answered = wait_until(lambda: _answered(env), 60)
        assert answered["tier"] == "power"
        live = {t["name"]: t["live_workers"] for t in vessel("tiers", "--json", env=env).documents}
        assert {name for name, number in live.items() if number} == {"power"}
        refused = vessel("submit", "Nobody is there", "--tier", "balanced", "--on-outage", "fail", env=env)
        assert refused.code == 3
        assert "balanced" in refused.err
    finally:
        code, _ = _end(worker, signal.SIGTERM)
    assert code == 0


def _answered(env: dict[str, str]) -> dict[str, object]:
    ran = vessel("query", "Hello", "--tier", "power", "--json", env=env)
    return {} if ran.code else dict(ran.document)


@pytest.mark.system
def test_a_worker_ignores_a_broker_of_celery(env: dict[str, str]) -> None:
    """CELERY_BROKER_URL would win over the app's own broker, and the worker would serve nobody."""
    worker = _start(env | {"CELERY_BROKER_URL": "redis://127.0.0.1:1/0"}, "worker", "--tiers", "power", "--json")
    try:
        assert wait_until(lambda: _answered(env), 60)["tier"] == "power"
    finally:
        assert _end(worker, signal.SIGTERM)[0] == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_scheduler_ends_on_signals(env: dict[str, str], number: signal.Signals, code: int) -> None:
    """SIGTERM is its normal end, Ctrl-C an interrupt; it has listed the models meanwhile."""
    scheduler = _start(env, "scheduler", "--json")
    assert _first_event(scheduler)["event"] == "started"
    wait_until(lambda: vessel("route", "x", "--json", env=env).document["as_listed"])
    ended, lines = _end(scheduler, number)
    assert ended == code
    assert json.loads(lines[-1]) == {"event": "stopped", "signal": number.name}


@pytest.mark.parametrize("command", ["worker", "scheduler"])
def test_nothing_that_keeps_answers_starts_where_it_cannot(env: dict[str, str], command: str) -> None:
    """It says which folder, why, and what to do, and exits 3: somebody may mend it, and a unit tries again."""
    refused = vessel(command, env=env | {"VESSEL_DATA_DIR": "/dev/null/data"})
    assert refused.code == 3
    assert "/dev/null/data/spool cannot be written (ENOTDIR, Not a directory), so nothing was started" in refused.err
    assert "Traceback" not in refused.err


def test_the_simulator_tells_its_address(env: dict[str, str], tmp_path: Path) -> None:
    """With --json one line names the address; SIGTERM ends it with 0; a taken port is told, exit 3."""
    simulator = _start(env, "simulate", "--port", "0", "--json")
    url = str(_first_event(simulator)["url"])
    assert url.startswith("http://127.0.0.1:")
    taken = vessel("simulate", "--port", url.rpartition(":")[2], env=env)
    assert taken.code == 3
    assert "--port" in taken.err
    assert _end(simulator, signal.SIGTERM)[0] == 0
    scenario = tmp_path / "s.toml"
    scenario.write_text("wrld = 'today'\n")
    assert vessel("simulate", "--scenario", str(scenario), env=env).code == 2


def test_a_simulator_that_nobody_would_call_does_not_start(env: dict[str, str]) -> None:
    """Told the name that others have for it, it starts where GROQ_BASE_URL is that; else it exits 2 and says why."""
    refused = vessel("simulate", "--port", "0", "--url", "http://simulator:8090", env=env)
    assert refused.code == 2
    assert f"GROQ_BASE_URL is {env['GROQ_BASE_URL']}, so jobs would be sent there" in refused.err
    assert "Set GROQ_BASE_URL=http://simulator:8090" in refused.err
    named = env | {"GROQ_BASE_URL": "http://simulator:8090/"}
    simulator = _start(named, "simulate", "--port", "0", "--url", "http://simulator:8090", "--json")
    assert _first_event(simulator)["event"] == "listening"
    assert _end(simulator, signal.SIGTERM)[0] == 0


@pytest.mark.system
def test_up_on_a_redis_that_is_set_tells_others_where_it_is(env: dict[str, str]) -> None:
    """Commands of the same data directory find the Redis of a running `up` without any setting."""
    stack = _start(env, "up", "--group", "ultra_fast", "--json")
    assert stack.stdout is not None
    for line in stack.stdout:
        if json.loads(line)["event"] == "ready":
            break
    beside = {name: value for name, value in env.items() if name != "VESSEL_REDIS_URL"}
    assert vessel("query", "Found", env=beside).code == 0
    assert _end(stack, signal.SIGTERM)[0] == 0
    assert vessel("query", "Gone", env=beside).code == 3
