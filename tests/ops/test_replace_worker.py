"""Workers of a booted machine are replaced by way of a stand-in; a version that does not start changes nothing."""

from __future__ import annotations

import re

import pytest

from tests.ops.booted import WORKERS, Booted, missing
from tests.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing() or "can boot")]
SCRIPT = "/src/ops/replace_worker.sh"
UNIT = "vessel-worker@power"


def _steps(machine: Booted, since: str) -> list[tuple[str, str]]:
    """Read what systemd has started and begun to stop, in order."""
    told = machine.run("journalctl", "--no-pager", "-o", "cat", "--since", f"@{since}", "_PID=1")
    return re.findall(r"^(Started|Stopping) vessel-(worker|standin)@power", told, re.MULTILINE)


def _no_stand_in(machine: Booted) -> bool:
    units = machine.run("systemctl", "list-units", "--all", "--no-legend", "vessel-standin@*")
    return not units and not machine.sh("ls /run/systemd/system | grep standin || true")


def test_a_stand_in_serves_while_a_worker_is_replaced(machine: Booted) -> None:
    """It takes jobs before the old worker drains and until the new one takes them; no job is lost or called twice."""
    pid, since, called = machine.show(UNIT, "MainPID"), machine.run("date", "+%s"), machine.stats()["accepted"]
    jobs = machine.submit(300)
    wait_until(lambda: machine.stats()["accepted"] > called, 30)
    machine.run(SCRIPT, "power")
    assert machine.show(UNIT, "MainPID") not in {pid, "0"}
    assert _steps(machine, since) == [
        ("Started", "standin"),
        ("Stopping", "worker"),
        ("Started", "worker"),
        ("Stopping", "standin"),
    ]
    assert [one["state"] for one in machine.ended(jobs)] == ["succeeded"] * 300
    assert machine.stats()["accepted"] - called == 300, "a call was made twice or thrown away"
    assert _no_stand_in(machine)


def test_a_version_that_does_not_start_changes_nothing(machine: Booted) -> None:
    """The old worker serves on, and what to look at is told; so it is for a group that does not exist."""
    pid, folder = machine.show(UNIT, "MainPID"), f"/etc/systemd/system/{UNIT}.service.d"
    machine.sh(f"mkdir -p {folder} && printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > {folder}/broken.conf")
    try:
        done = machine.attempt(SCRIPT, "power")
    finally:
        machine.sh(f"rm -r {folder} && systemctl daemon-reload")
    assert (done.returncode, machine.show(UNIT, "MainPID")) == (1, pid)
    assert "the old worker of power serves on. Look: journalctl -u vessel-standin@power" in done.stderr
    (answer,) = machine.vessel("query", "Are you still there?", "--tier", "power")
    assert answer["tier"] == "power"
    unknown = machine.attempt(SCRIPT, "fast", "nobody")
    assert (unknown.returncode, "Nothing was changed" in unknown.stderr) == (2, True)
    assert _no_stand_in(machine)


def test_an_upgrade_replaces_workers_first_and_that_way(machine: Booted) -> None:
    """A new version is there and an old one runs: every group has its stand-in, and all services are new in the end."""
    units = [f"vessel-{name}" for name in ("api", "scheduler", "mcp", *(f"worker@{name}" for name in WORKERS))]
    pids = {unit: machine.show(unit, "MainPID") for unit in units}
    release = machine.run("readlink", "/opt/vessel/venv")
    machine.sh(f"cp -a {release} /opt/vessel/releases/old && ln -sfn /opt/vessel/releases/old /opt/vessel/venv")
    said = machine.run("/src/ops/install.sh")
    assert machine.run("readlink", "/opt/vessel/venv") == release
    told = re.findall(r"(?:replacing the worker of|restarting vessel-)(?: )?([\w-]+)", said)
    assert sorted(told[: len(WORKERS)]) == sorted(WORKERS)
    assert {"api", "scheduler", "mcp", "flower"} == set(told[len(WORKERS) :])
    for unit in units:
        assert machine.show(unit, "ActiveState") == "active", unit
        assert machine.show(unit, "MainPID") != pids[unit], unit
    assert _no_stand_in(machine)
