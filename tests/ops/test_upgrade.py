"""Upgrades in a booted Debian: in order, with Redis' users first, killed half-way, taken back, over a damaged install.

The other version is a checkout with other rights, settings of Redis and units, built from packages of a local folder.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.booted import WORKERS, Booted, missing
from tests.ops.composed import ROOT
from tests.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing() or "can boot")]
THIS, OTHER = "/src/ops/install.sh", "/srv/other/ops/install.sh"
RELEASES = Path("/opt/vessel/releases")
OFFLINE = ("env", "PIP_NO_INDEX=1", "PIP_CONFIG_FILE=/dev/null", "PIP_FIND_LINKS=/srv/wheels", "PIP_NO_COMPILE=1")
SERVICES = ["vessel-scheduler", "vessel-api", "vessel-mcp", "vessel-flower"]
UNITS = (*SERVICES, *(f"vessel-worker@{name}" for name in WORKERS))
CHECKOUT = """
rm -rf {to} && mkdir -p {to} && cd /src
cp -R pyproject.toml constraints.txt README.md LICENSE CHANGELOG.md vessel workers ops {to}
"""
CHANGES = """
cd /srv/other/ops
sed -i 's/^user operator .*/& +echo/' users.acl
sed -i 's/^slowlog-max-len .*/slowlog-max-len 257/' redis.conf
sed -i 's/^Description=.*/Description=Another version/' systemd/vessel-api.service
mkdir prometheus-secrets && echo vsl_secret > prometheus-secrets/api-key
"""
AS_OPERATOR = (
    "REDISCLI_AUTH=$(sed 's/.*:\\([0-9a-f]*\\)@.*/\\1/' /etc/vessel/credentials/redis_url_operator) "
    "redis-cli -s /run/vessel-redis/redis.sock --user operator "
)


@pytest.fixture(scope="module")
def packages(machine: Booted) -> Booted:
    """Put what pip needs into the machine, which has no network, and the other version's checkout beside it."""
    frozen = machine.run("/opt/vessel/venv/bin/pip", "freeze", "--exclude", "groq-vessel").splitlines()
    fetch = (sys.executable, "-m", "pip", "download", "-q", "-d", machine.tree / "srv/wheels", "-c", "constraints.txt")
    for wanted in (["--no-deps", *frozen], ["hatchling"]):
        subprocess.run([*fetch, *wanted], check=True, cwd=ROOT, capture_output=True)
    machine.sh(CHECKOUT.format(to="/srv/other") + CHANGES)
    return machine


@pytest.fixture
def upgradable(packages: Booted) -> Booted:
    """Have this version run, and the other one built."""
    for version in (OTHER, THIS):
        packages.run(*OFFLINE, version, "--no-start")
    if _running(packages) != _release(packages):
        packages.run(THIS)
    return packages


@pytest.fixture(scope="module", autouse=True)
def _this_version_again(machine: Booted) -> object:
    yield
    machine.run(*OFFLINE, THIS)


def _release(machine: Booted) -> str:
    return Path(machine.run("readlink", "/opt/vessel/venv")).name


def _running(machine: Booted) -> str:
    return machine.run("cat", f"{RELEASES}/.running")


def test_all_is_replaced_in_order_and_redis_first(upgradable: Booted) -> None:
    """Redis knows its users' new rights before anything new runs; then workers, scheduler, faces; once, and no more."""
    pids, old = upgradable.pids("vessel-redis", *UNITS), _running(upgradable)
    assert "NOPERM" in upgradable.sh(f"{AS_OPERATOR} ECHO hello 2>&1 || true")
    said = upgradable.run(OTHER)
    told = re.findall(r"(?:replacing the worker of |restarting )([\w-]+)", said)
    assert told == ["vessel-redis", *sorted(WORKERS), *SERVICES]
    assert upgradable.sh(f"{AS_OPERATOR} ECHO hello") == "hello"
    assert upgradable.sh(f"{AS_OPERATOR} CONFIG GET slowlog-max-len").split()[-1] == "257"
    assert upgradable.show("vessel-api", "Description") == "Another version"
    now = upgradable.pids(*pids)
    assert [unit for unit in pids if now[unit] in {pids[unit], "0"}] == []
    assert _running(upgradable) == _release(upgradable) != old
    # Scripts and units are part of a version, so they change with it, in one step, and without anybody's secrets.
    assert upgradable.run("readlink", "/opt/vessel/ops") == "venv/ops"
    assert upgradable.attempt("ls", "/opt/vessel/ops/prometheus-secrets").returncode != 0
    assert "restarting" not in upgradable.run(OTHER)
    assert upgradable.pids(*pids) == now
    assert upgradable.run("ls", str(RELEASES)).split() == sorted([old, _release(upgradable)]), "the last one is kept"


def test_what_was_disabled_stays_so(upgradable: Booted) -> None:
    """The target starts what is enabled, at a boot, an upgrade and a second run."""
    given_up = ("vessel-flower.service", "vessel-mcp.service")
    upgradable.run("systemctl", "disable", "--now", *given_up)
    try:
        for _ in range(2):
            said = upgradable.run(OTHER)
            assert "Status: Ready" in said
            assert [upgradable.show(unit, "ActiveState") for unit in given_up] == ["inactive"] * 2
        assert [upgradable.show(unit, "UnitFileState") for unit in given_up] == ["disabled"] * 2
    finally:
        upgradable.run("systemctl", "enable", "--now", *given_up)


@pytest.mark.parametrize("then", [OTHER, THIS], ids=["again", "the one before"])
def test_one_that_was_killed_half_way_is_finished_by_the_next(upgradable: Booted, then: str) -> None:
    """Killed among the workers: old processes keep their files, and the next run, either way, replaces them all."""
    pids, old = upgradable.pids(*UNITS), _running(upgradable)
    run = upgradable.sh(f"setsid {OTHER} >/srv/upgrade 2>&1 & echo $!")
    wait_until(lambda: upgradable.run("cat", "/srv/upgrade").count("replacing the worker of") == 2, 120)
    upgradable.sh(f"kill -KILL -{run}")
    assert _running(upgradable) == old != _release(upgradable)
    assert upgradable.show("vessel-api", "MainPID") == pids["vessel-api"]
    upgradable.run("test", "-x", f"{RELEASES}/{old}/bin/vessel")
    upgradable.run(then)
    now = upgradable.pids(*UNITS)
    assert [unit for unit in UNITS if now[unit] in {pids[unit], "0"}] == []
    assert _running(upgradable) == _release(upgradable)
    assert (_running(upgradable) == old) == (then == THIS)
    assert upgradable.run("systemctl", "list-units", "--all", "--no-legend", "vessel-standin@*") == ""


def test_a_version_that_does_not_come_up_is_taken_back(upgradable: Booted) -> None:
    """What ends later is started again in the version that was there, by its units."""
    pids, old = upgradable.pids(*UNITS), _running(upgradable)
    folder = "/etc/systemd/system/vessel-worker@compound.service.d"
    upgradable.sh(f"mkdir -p {folder} && printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > {folder}/bad.conf")
    try:
        done = upgradable.attempt(OTHER)
    finally:
        upgradable.sh(f"rm -r {folder} && systemctl daemon-reload")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "the old worker of compound serves on" in done.stderr
    assert f"version {old} is what is started from now on" in done.stdout
    assert _running(upgradable) == _release(upgradable) == old
    assert upgradable.pids(*UNITS) == pids
    assert upgradable.show("vessel-api", "Description") == "Vessel REST API"
    assert "replacing the worker of power" in upgradable.run(OTHER)


def test_the_runbook_of_a_damaged_installation(upgradable: Booted) -> None:
    """Its steps, from a checkout: no process of the damaged folder is left, and all is well."""
    page = (ROOT / "ops" / "runbooks" / "corrupted-install.md").read_text("utf-8")
    steps = page.partition("## Do")[2].partition("```sh\n")[2].partition("```")[0].splitlines()
    assert steps[-1] == "/opt/src/vessel/ops/install.sh"
    upgradable.sh(CHECKOUT.format(to="/opt/src/vessel"))
    pids = upgradable.pids(*UNITS)
    upgradable.sh("rm -r /opt/vessel/venv/lib/python3*/site-packages/celery")
    assert upgradable.attempt("/opt/vessel/venv/bin/python", "-c", "import celery").returncode == 1
    for step in steps:
        if not step.startswith("git "):  # there is none in there: the checkout is clean
            upgradable.run(*OFFLINE, "sh", "-c", step)
    now = upgradable.pids(*UNITS)
    assert [unit for unit in UNITS if now[unit] in {pids[unit], "0"}] == []
    assert upgradable.attempt("/opt/vessel/ops/verify_boot.sh", "--deadline", "60").returncode == 0


def test_extras_are_kept(upgradable: Booted) -> None:
    """Named once they are part of every later version, until others are; one that does not exist is refused."""
    version = _running(upgradable)
    upgradable.sh(f"cp -a {RELEASES}/{version} {RELEASES}/{version}-failover-")
    refused = upgradable.attempt(THIS, "--with", "failovr")
    assert (refused.returncode, "there is no extra failovr" in refused.stderr) == (2, True)
    for options in (("--with", "failover"), ()):
        assert f"version {version}-failover- is installed already" in upgradable.run(THIS, "--no-start", *options)
    assert f"version {version} is installed already" in upgradable.run(THIS, "--no-start", "--with", "")
    upgradable.sh(f"rm -r {RELEASES}/{version}-failover-")
