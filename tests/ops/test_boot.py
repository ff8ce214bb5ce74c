"""The services in a booted Debian: installed twice, started by the boot, stopped under load, killed, stuck, removed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.ops.booted import Booted, missing
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing() or "can boot")]
WORKERS = ("fast", "power", "compound")
FIRST, SECOND = "gsk_sim_first_key_0001", "gsk_sim_second_key_002"
LATENCY_MS = 400


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Install and boot once."""
    with Booted(tmp_path_factory.mktemp("boot"), keys=(FIRST, SECOND), latency_ms=LATENCY_MS) as booted:
        wait_until(lambda: booted.show("vessel-worker@power", "ActiveState") == "active", 90)
        yield booted


def _submit(machine: Booted, number: int, tier: str = "power") -> list[str]:
    machine.run("sh", "-c", f"for n in $(seq {number}); do echo '{{\"prompt\": \"say '$n'\"}}'; done > /tmp/jobs.jsonl")
    return [one["id"] for one in machine.vessel("submit", "--file", "/tmp/jobs.jsonl", "--tier", tier)]  # noqa: S108  the machine is made for the test


def _ended(machine: Booted, jobs: list[str], seconds: float = 120) -> list[dict[str, Any]]:
    found = machine.vessel("wait", *jobs, "--timeout", f"{seconds:g}")
    return [dict(one) for one in found]


def _services() -> list[str]:
    names = [f"vessel-{name}" for name in ("redis", "api", "scheduler", "flower", "mcp")]
    return [*names, *(f"vessel-worker@{name}" for name in WORKERS)]


def test_the_boot_starts_everything_and_it_says_so(machine: Booted) -> None:
    """Every unit is active because its process said READY, and shows what it serves; the seed's name works."""
    for unit in _services():
        assert machine.show(unit, "ActiveState") == "active", machine.run("journalctl", "-u", unit, "-n", "30")
    assert machine.show("vessel-worker@power", "StatusText") == "serves balanced, power, 200 calls at a time"
    assert machine.show("vessel-api", "StatusText").startswith("listens on http://127.0.0.1:8080")
    assert "vessel-mcp.service" in machine.show("groq-mcp.service", "Id")
    (answer,) = machine.vessel("query", "Are you there?", "--tier", "power")
    assert answer["tier"] == "power"


def test_an_install_over_an_install_changes_nothing(machine: Booted) -> None:
    """Keys, settings and passwords stay, nothing is restarted, and the same version is not installed again."""
    before = machine.run("sh", "-c", "cat /etc/vessel/credentials/* /etc/vessel/*.env | sha256sum")
    pids = {unit: machine.show(unit, "MainPID") for unit in _services()}
    said = machine.run("/src/ops/install.sh")
    assert "is installed already" in said
    assert machine.run("sh", "-c", "cat /etc/vessel/credentials/* /etc/vessel/*.env | sha256sum") == before
    assert {unit: machine.show(unit, "MainPID") for unit in _services()} == pids


def test_a_stop_under_load_ends_the_calls_that_were_begun(machine: Booted) -> None:
    """Calls in flight are not made twice; the rest waits in Redis until the workers are there again."""
    called = machine.stats()["accepted"]
    jobs = _submit(machine, 300)
    wait_until(lambda: machine.stats()["accepted"] > called, 30)
    machine.run("systemctl", "stop", *(f"vessel-worker@{name}" for name in WORKERS))
    assert machine.stats()["in_flight"] == 0
    machine.run("systemctl", "start", *(f"vessel-worker@{name}" for name in WORKERS))
    ended = _ended(machine, jobs)
    assert [one["state"] for one in ended] == ["succeeded"] * 300
    assert machine.stats()["accepted"] - called == 300, "a call was made twice or thrown away"


@pytest.mark.parametrize("unit", ["vessel-worker@power", "vessel-redis", "vessel-scheduler"])
def test_a_kill_under_load_loses_nothing(machine: Booted, unit: str) -> None:
    """It is started again, and every job ends with a result; Redis' own end takes nothing in its profile `durable`."""
    if unit == "vessel-redis":
        machine.run("sed", "-i", "s|/redis/standard.conf|/redis/durable.conf|", "/etc/vessel/redis/redis.conf")
        machine.run("systemctl", "restart", unit)
    jobs = _submit(machine, 100)
    before = int(machine.show(unit, "NRestarts"))
    machine.kill(unit, signal.SIGKILL)
    wait_until(lambda: int(machine.show(unit, "NRestarts")) == before + 1, 60)
    wait_until(lambda: machine.show(unit, "ActiveState") == "active", 60)
    assert [one["state"] for one in _ended(machine, jobs)] == ["succeeded"] * 100


@pytest.mark.parametrize("unit", ["vessel-worker@fast", "vessel-scheduler", "vessel-api"])
def test_a_process_that_is_stuck_is_started_anew(machine: Booted, unit: str) -> None:
    """It lives but its loop does not turn; the watchdog sees that nothing beats."""
    drop_in = f"/run/systemd/system/{unit}.service.d"
    machine.run("sh", "-c", f"mkdir -p {drop_in} && printf '[Service]\\nWatchdogSec=6\\n' > {drop_in}/soon.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", unit)
    before = int(machine.show(unit, "NRestarts"))
    pid = machine.show(unit, "MainPID")
    machine.kill(unit, signal.SIGSTOP)
    wait_until(lambda: int(machine.show(unit, "NRestarts")) > before, 60)
    wait_until(lambda: machine.show(unit, "ActiveState") == "active", 60)
    assert machine.show(unit, "MainPID") != pid
    assert "watchdog" in machine.run("journalctl", "-u", unit, "--no-pager").lower()


def test_a_new_key_reaches_running_services(machine: Booted) -> None:
    """It is written into one file; no service is restarted, and the old key is nowhere any more."""
    pids = {unit: machine.show(unit, "MainPID") for unit in _services()}
    machine.run("sh", "-c", f"echo {SECOND} > /etc/vessel/credentials/groq_api_key")
    held = "/run/credentials/vessel-worker@power.service/groq_api_key"
    wait_until(lambda: machine.run("cat", held) == SECOND, 30)
    wait_until(lambda: machine.run("cat", held.replace("worker@power", "scheduler")) == SECOND, 30)
    (answer,) = machine.vessel("query", "And now?", "--tier", "power")
    assert answer["tier"] == "power"
    assert {unit: machine.show(unit, "MainPID") for unit in _services()} == pids
    assert machine.run("stat", "-c", "%U %a", held) == "vessel 400"


def test_no_secret_is_shown(machine: Booted) -> None:
    """Neither by systemd nor in an environment, a command line or the journal."""
    passwords = "sed 's/.*:\\([0-9a-f]\\{64\\}\\)@.*/\\1/' /etc/vessel/credentials/redis_url_*"
    secrets = [*machine.run("sh", "-c", passwords).split(), FIRST, SECOND]
    assert len(secrets) == 6
    shown = machine.run("systemctl", "show", *(f"{unit}.service" for unit in _services()))
    ours = "for p in $(pgrep -u vessel,vessel-redis); do cat /proc/$p/environ /proc/$p/cmdline; done | tr '\\0' '\\n'"
    shown += machine.run("sh", "-c", ours) + machine.run("journalctl", "--no-pager")
    assert "/opt/vessel" in shown
    assert not [secret[:8] for secret in secrets if secret in shown]


def test_what_runs_is_as_closed_as_its_unit_says(machine: Booted) -> None:
    """The running services' exposure, and that a worker cannot write where it has nothing to write."""
    for unit in _services():
        machine.run("systemd-analyze", "security", "--no-pager", "--threshold=13", f"{unit}.service")
    pid = machine.show("vessel-worker@power", "MainPID")
    for place in ("/etc/vessel/x", "/opt/vessel/x", "/usr/x", "/var/lib/vessel-redis/x"):
        said = machine.run("nsenter", "-t", pid, "-m", "-S", "0", "touch", place, check=False)
        assert said == ""
        assert machine.run("sh", "-c", f"test ! -e {place} && echo absent") == "absent"


def test_an_uninstall_keeps_the_data_and_a_purge_does_not(machine: Booted) -> None:
    """The last test: services go, jobs and keys stay until they are purged."""
    machine.run("/src/ops/uninstall.sh")
    assert machine.run("sh", "-c", "systemctl list-units --no-legend --all 'vessel*'", check=False) == ""
    assert machine.run("ls", "/etc/systemd/system").count("vessel") == 0
    machine.run("test", "-s", "/etc/vessel/credentials/groq_api_key")
    assert machine.run("sh", "-c", "ls /var/lib/vessel-redis/appendonlydir | wc -l") != "0"
    machine.run("/src/ops/uninstall.sh")  # twice is as good as once
    machine.run("/src/ops/uninstall.sh", "--purge")
    assert (
        machine.run("sh", "-c", "ls -d /etc/vessel /var/lib/vessel /opt/vessel 2>/dev/null | wc -l", check=False) == "0"
    )
