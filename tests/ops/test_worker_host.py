"""docs/scale-out.md, "A worker host": its steps in two booted Debians with a cable between them."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.ops.booted import FIRST, Booted, missing
from tests.ops.composed import ROOT
from tests.ops.servers import certificates
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(missing()), reason=missing() or "can boot"),
    pytest.mark.skipif(not all(map(shutil.which, ("openssl", "ip"))), reason="needs openssl and iproute2"),
]
NAME, CENTRE, OUTSIDE = "redis.example.org", "10.231.78.1", "10.231.78.2"
CABLE = ("vsltest-c", "vsltest-w")
HERE = "/srv/page"
INSTALL = "/src/ops/install.sh"
DROP_IN = "/etc/systemd/system/vessel-redis.service.d"
ADDRESS = f"rediss://@{NAME}:6379/0?ssl_ca_certs=/etc/vessel/redis/tls/ca.crt"
RUNS = ("vessel-worker@power", "vessel-scheduler", "vessel-credentials.path")
RUNS_NOT = ("vessel-api", "vessel-mcp", "vessel-flower", "vessel-worker@fast", "vessel-worker@compound")


def _steps(number: int) -> list[str]:
    """Read a block of the page; `systemctl edit` asks a person, so what that would write is written."""
    page = (ROOT / "docs" / "scale-out.md").read_text("utf-8").partition("## A worker host")[2].partition("\n## ")[0]
    block = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[number]
    asked = re.compile(r"^systemctl edit vessel-redis +# \[Service\], then (\S+)$", re.MULTILINE)
    written = f"mkdir -p {DROP_IN} && printf '[Service]\\n%s\\n' {{}} > {DROP_IN}/hosts.conf && systemctl daemon-reload"
    block = block.replace("sudo ", "").replace("ops/install.sh", INSTALL)
    edited = asked.sub(lambda found: written.format(found[1]), block)
    assert "systemctl edit" not in edited
    return edited.splitlines()


def _put(machine: Booted, *files: Path) -> None:
    (folder := machine.tree / HERE[1:]).mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, folder / file.name)


def _connect(machine: Booted, other: Booted) -> None:
    subprocess.run(["ip", "link", "add", CABLE[0], "type", "veth", "peer", "name", CABLE[1]], check=True)
    machine.plug(CABLE[0], f"{CENTRE}/24")
    other.plug(CABLE[1], f"{OUTSIDE}/24")


def _slots(machine: Booted) -> int:
    return next(int(one["live_workers"]) for one in machine.vessel("tiers") if one["name"] == "power")


@pytest.fixture
def worker_host(debian: Path, machine: Booted, tmp_path: Path) -> Iterator[Booted]:
    """Boot a second Debian that has the program and nothing of it installed, and put the page's files in place."""
    certificates(tmp_path, f"DNS:{NAME}")
    _put(machine, *(tmp_path / name for name in ("ca.crt", "redis.crt", "redis.key")))
    hosts = machine.run("cat", "/etc/hosts")
    with Booted(debian, tmp_path, program=machine.tree / "opt/vessel") as other:
        for one in (machine, other):
            one.sh(f"echo '{CENTRE} {NAME}' >> /etc/hosts")
        _connect(machine, other)
        (tmp_path / "groq.key").write_text(FIRST)
        secrets = machine.tree / "etc/vessel/credentials"
        _put(other, *(tmp_path / name for name in ("ca.crt", "groq.key")))
        _put(other, *(secrets / f"redis_url_{user}" for user in ("worker", "operator")))
        try:
            yield other
        finally:
            # While the address is there, or its clients would wait for it when they are replaced.
            machine.run(INSTALL, "--keep-redis", "--redis", "unix://@/run/vessel-redis/redis.sock")
            machine.sh(
                f"rm -rf {DROP_IN} && sed -i /tls.conf/d /etc/vessel/redis/redis.conf && systemctl daemon-reload"
            )
            machine.sh("rm /etc/vessel/redis/address && systemctl restart vessel-redis")
            machine.sh(f"cat > /etc/hosts <<'END'\n{hosts}\nEND")


@pytest.mark.timeout(900)
def test_the_pages_steps(machine: Booted, worker_host: Booted) -> None:
    """The second host works for the first, after a reboot and another install too, and runs only what it was told."""
    pids = machine.pids("vessel-worker@power", "vessel-api")
    for step in _steps(0):
        machine.sh(f"cd {HERE} && {step}")
    assert machine.pids(*pids) == pids, "who uses the socket goes on"
    for step in _steps(1):
        worker_host.sh(f"cd {HERE} && {step}")
        if INSTALL in step:
            worker_host.name_simulator()
    _works(machine, worker_host)
    worker_host.power_off()
    worker_host.boot(lambda: _connect(machine, worker_host))
    _works(machine, worker_host)
    before = worker_host.pids("vessel-worker@power")
    assert "Status: Ready" in worker_host.run(INSTALL)
    assert worker_host.pids(*before) == before
    _works(machine, worker_host)
    _the_first_host_too_may_use_that_address(machine)


def _works(machine: Booted, worker_host: Booted) -> None:
    wait_until(lambda: [worker_host.show(unit, "ActiveState") for unit in RUNS] == ["active"] * len(RUNS), 90)
    assert [worker_host.show(unit, "ActiveState") for unit in RUNS_NOT] == ["inactive"] * len(RUNS_NOT)
    wait_until(lambda: _slots(machine) == 2, 60)
    worker_host.await_check()
    called = worker_host.stats()["accepted"]
    jobs = machine.submit(300)
    assert [one["state"] for one in machine.ended(jobs)] == ["succeeded"] * len(jobs)
    assert worker_host.stats()["accepted"] > called, "the second host has had its part"


def _the_first_host_too_may_use_that_address(machine: Booted) -> None:
    """Its Redis stays, and what runs is replaced by processes that have the new address."""
    redis, api = machine.pids("vessel-redis"), machine.pids("vessel-api")
    refused = machine.attempt(INSTALL, "--redis", ADDRESS)
    assert (refused.returncode, "add --keep-redis" in refused.stderr) == (3, True)
    assert "Status: Ready" in machine.run(INSTALL, "--keep-redis", "--redis", ADDRESS)
    assert machine.pids("vessel-redis") == redis
    assert machine.pids("vessel-api") != api
    assert machine.run("cat", "/run/credentials/vessel-api.service/redis_url").startswith("rediss://api:")
