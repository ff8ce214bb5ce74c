"""In a booted Debian: what the doctor says to do helps, the spool is closed to the faces, the first API key is one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.ops.booted import KEY_FILE, Booted, missing
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing() or "can boot")]
CONF = "/etc/vessel/redis/redis.conf"
SPOOL = "/var/lib/vessel/spool"
FACES = ("vessel-api", "vessel-mcp", "vessel-flower")
CAUSES = {
    "redis_unreachable": "systemctl stop vessel-redis",
    "sweeper_missing": "systemctl stop vessel-scheduler 'vessel-worker@*'",
    "tier_dead": "systemctl stop vessel-worker@power",
    "redis_evicts": f"echo maxmemory-policy allkeys-lru >>{CONF}; systemctl restart vessel-redis",
    "redis_fsync_off": f"echo appendfsync no >>{CONF}; systemctl restart vessel-redis",
    "data_dir_read_only": f"chown -R root: {SPOOL}",
    "flower_hangs": "systemctl kill --kill-who=main --signal=STOP vessel-flower",
    "maintenance_on": "vessel-service maintenance on --reason 'a disk is changed'",
    "key_file_open": f"chmod 644 {KEY_FILE}",
}
"""What a finding is called, and what brings it about."""


def _findings(machine: Booted) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for one in json.loads(machine.attempt("vessel-service", "doctor", "--json").stdout)["findings"]:
        found.setdefault(one["code"], []).append(one)
    return found


def _follow(machine: Booted, cure: str) -> None:
    """Do what it says, to the letter: lines into files, then commands."""
    for place, line in re.findall(r"let (\S+) say `([^`]+)`", cure):
        machine.sh(f"echo '{line}' >>{place}")
    commands = [line for line in re.findall(r"`([^`]+)`", cure) if re.match(r"(systemctl|ch\w+|vessel-\w+) ", line)]
    assert commands, cure
    for command in commands:
        machine.sh(command)


@pytest.fixture
def restored(machine: Booted) -> Iterator[Booted]:
    """Put back what a test has left, whatever came of it."""
    machine.run("cp", CONF, "/srv/redis.conf")
    yield machine
    machine.sh(f"chown -R vessel: {SPOOL}; vessel-service maintenance off")
    machine.sh(f"cmp -s /srv/redis.conf {CONF} || {{ cp /srv/redis.conf {CONF}; systemctl restart vessel-redis; }}")
    machine.sh("systemctl start vessel.target; systemctl restart vessel-check || true")
    machine.await_check()


@pytest.mark.parametrize("code", CAUSES)
def test_the_doctors_cure_is_done_and_helps(restored: Booted, code: str) -> None:
    """Each command that it names is there, may be used by the operator, and takes the finding away."""
    assert code not in _findings(restored)
    restored.sh(CAUSES[code])
    found = wait_until(lambda: _findings(restored).get(code, []), 60)
    for one in found:
        _follow(restored, one["cure"])
    wait_until(lambda: code not in _findings(restored), 90)


def test_a_worker_that_cannot_keep_answers_does_not_start_until_it_can(restored: Booted) -> None:
    """It says so in its log, is tried again, and serves as soon as somebody has followed the doctor."""
    unit = "vessel-worker@power"
    restored.sh(f"chown -R root: {SPOOL}; systemctl restart {unit} || true")
    wait_until(lambda: restored.show(unit, "ExecMainStatus") == "3", 30)
    said = restored.run("journalctl", "-u", unit, "-n", "20", "-o", "cat", "--no-pager")
    assert f"{SPOOL} cannot be written (EACCES, Permission denied), so nothing was started" in said
    (one,) = _findings(restored)["data_dir_read_only"]
    assert f"{SPOOL} cannot be written by vessel" in one["what"]
    _follow(restored, one["cure"])
    wait_until(lambda: restored.show(unit, "ActiveState") == "active", 60)


def test_the_faces_see_no_spool(machine: Booted) -> None:
    """They are the same user as the workers, which may write there; it is closed to them from their first start."""
    machine.run("systemctl", "stop", "vessel.target")
    machine.sh(f"rm -rf {SPOOL}")
    machine.run("systemctl", "start", *FACES)
    machine.run("systemctl", "start", "vessel.target")
    machine.await_check()
    user = machine.run("id", "-u", "vessel")
    for unit, may in {**dict.fromkeys(FACES, False), "vessel-worker@power": True, "vessel-scheduler": True}.items():
        inside = ("nsenter", "-t", machine.show(unit, "MainPID"), "-m", "-S", user, "-G", user)
        for command in (("touch", f"{SPOOL}/x"), ("ls", SPOOL)):
            assert (machine.attempt(*inside, *command).returncode == 0) is may, (unit, command)
    machine.run("rm", f"{SPOOL}/x")


def test_the_first_api_key_is_one(machine: Booted) -> None:
    """The file that docs/install.md names opens REST and MCP; nothing else does."""
    ask = (
        "import sys, urllib.request as u, urllib.error as e\n"
        "try: print(u.urlopen(u.Request(sys.argv[1], headers={'authorization': 'Bearer ' + sys.argv[2]})).status)\n"
        "except e.HTTPError as error: print(error.code)"
    )
    key = machine.run("cat", "/etc/vessel/credentials/api_key")
    for url, good in (
        ("http://127.0.0.1:8080/v1/models", {"200"}),
        ("http://127.0.0.1:8081/mcp", {"400", "405", "406"}),
    ):
        assert machine.run("python3", "-c", ask, url, key) in good
        assert machine.run("python3", "-c", ask, url, "vsl_guessed") == "401"
