"""Workers of a booted machine are replaced by way of a stand-in; a version that does not start changes nothing."""

from __future__ import annotations

import re

import pytest

from tests.ops.booted import Booted, missing
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


def test_an_interrupted_run_leaves_no_stand_in(machine: Booted) -> None:
    """Ended while the old worker drains and the stand-in serves: that goes once the new worker is there."""
    pid = machine.show(UNIT, "MainPID")
    jobs = machine.submit(300)
    run = machine.sh(f"setsid {SCRIPT} power >/srv/replaced 2>&1 & echo $!")
    wait_until(lambda: machine.show("vessel-standin@power", "ActiveState") == "active", 60)
    machine.sh(f"kill -TERM -{run}")
    wait_until(lambda: machine.attempt("kill", "-0", run).returncode != 0, 60)
    assert "interrupted; the stand-in of power ends when its worker is there" in machine.run("cat", "/srv/replaced")
    wait_until(lambda: machine.show("vessel-standin@power", "ActiveState") in {"inactive", "failed"}, 120)
    assert machine.show(UNIT, "ActiveState") == "active"
    assert [one["state"] for one in machine.ended(jobs)] == ["succeeded"] * 300
    machine.run(SCRIPT, "power")
    assert machine.show(UNIT, "MainPID") not in {pid, "0"}
    assert _no_stand_in(machine)


def test_a_worker_that_does_not_start_is_told(machine: Booted) -> None:
    """None was active, and none is afterwards: the reader hears of it and where to look."""
    machine.run("systemctl", "stop", UNIT)
    folder = f"/etc/systemd/system/{UNIT}.service.d"
    machine.sh(f"mkdir -p {folder} && printf '[Service]\nExecStart=\nExecStart=/bin/false\n' > {folder}/broken.conf")
    try:
        done = machine.attempt(SCRIPT, "power")
    finally:
        machine.sh(f"rm -r {folder} && systemctl daemon-reload && systemctl restart {UNIT}")
    assert done.returncode == 1
    assert f"the worker of power does not come up. Look: journalctl -u {UNIT}" in done.stderr
