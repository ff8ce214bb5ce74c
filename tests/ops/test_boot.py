"""The services in a booted Debian: installed twice, started by the boot, stopped under load, killed, stuck, removed."""

from __future__ import annotations

import signal

import pytest

from tests.ops.booted import FIRST, KEY_FILE, SECOND, WORKERS, Booted, missing
from tests.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.skipif(bool(missing()), reason=missing() or "can boot")]


def _services() -> list[str]:
    names = [f"vessel-{name}" for name in ("redis", "api", "scheduler", "flower", "mcp")]
    return [*names, *(f"vessel-worker@{name}" for name in WORKERS)]


def test_the_boot_starts_everything_and_it_says_so(machine: Booted) -> None:
    """Every unit is active because its process said READY, and shows what it serves; the seed's name works."""
    for unit in _services():
        assert machine.show(unit, "ActiveState") == "active", machine.run("journalctl", "-u", unit, "-n", "30")
    # Another test may have restarted Redis just now.
    serves = "serves balanced, power, 200 calls at a time"
    wait_until(lambda: machine.show("vessel-worker@power", "StatusText") == serves, 60)
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
    assert "install: Status: Ready; Models: " in said
    assert machine.run("sh", "-c", "cat /etc/vessel/credentials/* /etc/vessel/*.env | sha256sum") == before
    assert {unit: machine.show(unit, "MainPID") for unit in _services()} == pids


def test_a_stop_under_load_ends_the_calls_that_were_begun(machine: Booted) -> None:
    """Calls in flight are not made twice; the rest waits in Redis until the workers are there again."""
    called = machine.stats()["accepted"]
    jobs = machine.submit(300)
    wait_until(lambda: machine.stats()["accepted"] > called, 30)
    machine.run("systemctl", "stop", *(f"vessel-worker@{name}" for name in WORKERS))
    assert machine.stats()["in_flight"] == 0
    machine.run("systemctl", "start", *(f"vessel-worker@{name}" for name in WORKERS))
    ended = machine.ended(jobs)
    assert [one["state"] for one in ended] == ["succeeded"] * 300
    assert machine.stats()["accepted"] - called == 300, "a call was made twice or thrown away"


@pytest.mark.parametrize("unit", ["vessel-worker@power", "vessel-redis", "vessel-scheduler"])
def test_a_kill_under_load_loses_nothing(machine: Booted, unit: str) -> None:
    """It is started again, and every job ends with a result; Redis' own end takes nothing in its profile `durable`."""
    if unit == "vessel-redis":
        machine.run("sed", "-i", "s|/redis/standard.conf|/redis/durable.conf|", "/etc/vessel/redis/redis.conf")
        machine.run("systemctl", "restart", unit)
    jobs = machine.submit(100)
    before = int(machine.show(unit, "NRestarts"))
    machine.kill(unit, signal.SIGKILL)
    wait_until(lambda: int(machine.show(unit, "NRestarts")) == before + 1, 60)
    wait_until(lambda: machine.show(unit, "ActiveState") == "active", 60)
    assert [one["state"] for one in machine.ended(jobs)] == ["succeeded"] * 100


@pytest.mark.parametrize("unit", ["vessel-worker@fast", "vessel-scheduler", "vessel-api", "vessel-flower"])
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
    machine.run("rm", "-r", drop_in)
    machine.run("systemctl", "daemon-reload")


def test_a_new_key_reaches_running_services(machine: Booted) -> None:
    """It is written into one file; no service is restarted, the old key is nowhere any more, the new one is checked."""
    pids = {unit: machine.show(unit, "MainPID") for unit in _services()}
    checked = machine.show("vessel-check", "InvocationID")
    machine.sh(f"echo {SECOND} > {KEY_FILE}")
    held = "/run/credentials/vessel-worker@power.service/groq_api_key"
    wait_until(lambda: machine.run("cat", held) == SECOND, 30)
    wait_until(lambda: machine.run("cat", held.replace("worker@power", "scheduler")) == SECOND, 30)
    (answer,) = machine.vessel("query", "And now?", "--tier", "power")
    assert answer["tier"] == "power"
    assert {unit: machine.show(unit, "MainPID") for unit in _services()} == pids
    assert machine.run("stat", "-c", "%U %a", held) == "vessel 400"
    wait_until(lambda: machine.show("vessel-check", "InvocationID") != checked, 30)
    machine.await_check()


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
    enter = ("nsenter", "-t", machine.show("vessel-worker@power", "MainPID"), "-m")
    # The same way in, as root, works where a worker may write.
    machine.run(*enter, "touch", "/var/lib/vessel/x")
    machine.run("rm", "/var/lib/vessel/x")
    for place in ("/etc/vessel/x", "/opt/vessel/x", "/usr/x", "/var/lib/vessel-redis/x"):
        tried = machine.attempt(*enter, "touch", place)
        assert "Read-only file system" in tried.stderr, (place, tried)
        assert machine.run("sh", "-c", f"test ! -e {place} && echo absent") == "absent"


def test_the_kernel_lets_the_faces_reach_this_machine_alone(machine: Booted) -> None:
    """A face that is taken over sends nothing away; workers have to reach Groq, whose addresses nobody can list.

    Looked at from inside each unit's control group, where systemd has put the filter.
    """
    machine.run("ip", "link", "add", "away", "type", "veth", "peer", "name", "there")
    machine.run("ip", "addr", "add", "203.0.113.1/24", "dev", "away")
    machine.run("ip", "link", "set", "away", "up")
    send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{}', 9)); print('sent')"
    for unit in _services():
        group = machine.show(unit, "ControlGroup")
        enter = f"printf %s $$ > '/sys/fs/cgroup{group}/cgroup.procs' && exec python3 -c \"{send}\""
        near, far = (machine.attempt("sh", "-c", enter.format(to)) for to in ("127.0.0.1", "203.0.113.2"))
        assert near.stdout == "sent\n", near.stderr
        if "worker" in unit or "scheduler" in unit:
            assert far.stdout == "sent\n", far.stderr
        else:
            assert "PermissionError" in far.stderr, (unit, far.stdout, far.stderr)
    machine.run("ip", "link", "del", "away")


def test_an_uninstall_keeps_the_data_and_a_purge_does_not(machine: Booted) -> None:
    """Services go, jobs and keys stay until they are purged; it is installed for a Redis elsewhere, then as before."""
    elsewhere = ("/src/ops/install.sh", "--redis", "redis://@redis.example.org:6379/0", "--no-start")
    refused = machine.attempt(*elsewhere)
    assert refused.returncode == 3
    assert "there is a Redis of its own here, with its jobs" in refused.stderr
    assert "add --keep-redis" in refused.stderr
    machine.run("cp", "-a", "/opt/vessel", "/srv/vessel")  # there is no network to install it from
    _uninstall(machine)
    machine.run("test", "-s", KEY_FILE)
    assert machine.sh("ls /var/lib/vessel-redis/appendonlydir | wc -l") != "0"
    _uninstall(machine)  # twice is as good as once
    machine.run("cp", "-a", "/srv/vessel", "/opt/vessel")
    assert "is installed already" in machine.run(*elsewhere)
    machine.run("systemctl", "daemon-reload")
    for face in ("vessel-api", "vessel-mcp", "vessel-flower"):
        assert machine.show(face, "IPAddressDeny") == ""
        machine.run("systemd-analyze", "security", "--no-pager", "--threshold=12", f"{face}.service")
    assert machine.show("vessel-redis", "LoadState") == "not-found"
    _uninstall(machine)
    # As if that account had been somebody's before.
    machine.run("sed", "-i", "/^vessel$/d", "/etc/vessel/made-users")
    machine.run("/src/ops/uninstall.sh", "--purge")
    assert machine.run("id", "-un", "vessel") == "vessel"
    assert machine.attempt("id", "vessel-redis").returncode != 0
    assert machine.sh("ls -d /etc/vessel /var/lib/vessel /opt/vessel 2>/dev/null | wc -l") == "0"
    machine.run("mv", "/srv/vessel", "/opt/vessel")
    said = machine.run("/src/ops/install.sh", "--key-file", "/srv/key", "--no-start")
    assert "the services use the account vessel, which was there" in said
    machine.name_simulator()
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "vessel.target")
    machine.await_check()


def _uninstall(machine: Booted) -> None:
    machine.run("/src/ops/uninstall.sh")
    # systemd forgets units when it has nothing else to do.
    wait_until(lambda: machine.run("systemctl", "list-units", "--no-legend", "--all", "vessel*") == "", 30)
    assert machine.run("ls", "/etc/systemd/system").count("vessel") == 0
