"""`vessel check`: green on a vessel that runs, and for each cause red with its code, its exit code and a cure."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.stack import KEY, free_port
from tests.api.serving import Served
from vessel.cli.backup_restore import RESTORER
from vessel.cli.check_steps import TEST_CAP_USD
from vessel.cli.main import run
from vessel.control import clear_maintenance, set_maintenance
from vessel.keyspace.names import Keys
from vessel.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "ops" / "verify_boot.sh"


@pytest.fixture(scope="module")
def vessel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a vessel with a worker for all tiers, and a REST face."""
    with Served(tmp_path_factory.mktemp("check")) as stack:
        stack.start_worker()
        stack.start_api()
        yield stack


class Checked:
    """How a check ended: its exit code and its document."""

    def __init__(self, code: int, document: dict[str, Any]) -> None:
        """Take both."""
        self.code, self.document = code, document

    @property
    def failed(self) -> list[str]:
        """The codes of the steps that failed."""
        assert "failed" in self.document, self.document
        found: list[str] = self.document["failed"]
        return found

    def step(self, name: str) -> dict[str, Any]:
        """One step."""
        found: dict[str, Any] = next(step for step in self.document["steps"] if step["name"] == name)
        return found


class Checking:
    """Runs checks in this process, in the environment of a vessel."""

    def __init__(self, vessel: Served, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """Take what a test gives."""
        self.vessel, self.patch, self.capsys = vessel, patch, capsys

    def __call__(self, *arguments: str, **env: str | None) -> Checked:
        """Check, with variables put over those of the vessel; None takes one away."""
        self.within_vessel(**env)
        code = run(["check", "--json", *arguments])
        return Checked(code, json.loads(self.capsys.readouterr().out))

    def within_vessel(self, **env: str | None) -> None:
        """Take over the environment of the vessel."""
        variables = self.vessel.variables() | {"VESSEL_API_PORT": self.vessel.url.rpartition(":")[2]}
        for name, value in (variables | env).items():
            if value is None:
                self.patch.delenv(name, raising=False)
            else:
                self.patch.setenv(name, value)


@pytest.fixture
def check(vessel: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Checking:
    """Give the check."""
    return Checking(vessel, monkeypatch, capsys)


def test_a_running_vessel_is_ready(check: Checking, vessel: Served) -> None:
    """All steps pass, the test call went through the queue at a cost within its cap, and the figures are counted."""
    found = check()
    assert (found.code, found.failed, found.document["ready"]) == (0, [], True)
    counts = found.document["models"]
    assert counts["total"] == sum(count for shelf, count in counts.items() if shelf != "total") > 0
    call = found.document["test_call"]
    assert 0 < call["cost_usd"] <= TEST_CAP_USD
    job = vessel.job(call["job_id"])
    assert (job["state"], job["model"]) == ("succeeded", call["model"])
    assert found.document["integration"] == ["api", "mcp"]
    assert found.document["health"] == f"{vessel.url}/health"


def test_people_read_the_seeds_message(check: Checking, vessel: Served) -> None:
    """Its lines stand in the seed's order, with the numbers of the document."""
    check.within_vessel()
    assert run(["check"]) == 0
    shown = check.capsys.readouterr().out
    message = shown[shown.index("🔥 GROQ HOT VESSEL ONLINE") :].splitlines()
    assert [line.strip().partition(":")[0] for line in message[1:]] == [
        "Status", "Models", "Max Speed", "Integration", "Health", "Trinity Access",
    ]  # fmt: skip
    assert message[1] == "   Status: Ready"
    total, *shelves = map(int, re.findall(r"\d+", message[2]))
    assert total == sum(shelves)
    assert message[4:] == [
        "   Integration: MCP + REST API",
        f"   Health: {vessel.url}/health",
        "   Trinity Access: Enabled",
    ]


def _closed() -> str:
    return str(free_port())


@pytest.mark.parametrize(
    ("env", "code", "exit_code"),
    [
        ({"GROQ_API_KEY": None}, "key_missing", 3),
        ({"GROQ_API_KEY": "gsk bad"}, "key_missing", 3),
        ({"GROQ_API_KEY": "wrong"}, "key_refused", 1),
        ({"GROQ_BASE_URL": "http://127.0.0.1:{closed}"}, "groq_unreachable", 3),
        ({"VESSEL_REDIS_URL": "redis://127.0.0.1:{closed}/0"}, "redis_unreachable", 3),
        ({"VESSEL_REDIS_URL": None, "VESSEL_DATA_DIR": "/nonexistent"}, "redis_not_set", 3),
        ({"VESSEL_NAMESPACE": "empty"}, "worker_missing", 1),
        ({"VESSEL_API_PORT": "{closed}"}, "api_down", 1),
    ],
)  # fmt: skip
def test_each_cause_has_its_code(
    check: Checking, env: dict[str, str | None], code: str, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first code names the cause, with a cure, and no key is shown."""
    monkeypatch.setattr("vessel.cli.check_steps.PATIENCE_S", 0.0)
    filled = {name: value.format(closed=_closed()) if value else value for name, value in env.items()}
    found = check("--no-inference", **filled)
    assert found.failed[0] == code
    assert found.code == exit_code
    step = next(step for step in found.document["steps"] if step["code"] == code)
    assert step["cure"]
    assert KEY not in json.dumps(found.document)


def test_a_boot_ends_with_its_deadline(check: Checking, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again by itself, so no step of a look waits; with that patience this test would not end."""
    monkeypatch.setattr("vessel.cli.check_steps.PATIENCE_S", 1e6)
    found = check("--boot", "--deadline", "0", "--no-inference", "--expect", "none", VESSEL_NAMESPACE="empty")
    assert (found.code, found.failed) == (1, ["worker_missing", "sweeper_missing"])


def test_a_silent_upstream_is_not_a_refused_key(check: Checking) -> None:
    """Where something listens that is no Groq, the answer says so; the key is not blamed."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        check.patch.setattr("vessel.cli.check_steps.LIST_S", 0.3)
        found = check("--no-inference", GROQ_BASE_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert found.failed == ["groq_unreachable"]
    assert found.step("key_accepted")["ok"] is None


def test_one_good_key_of_several_is_enough(check: Checking, tmp_path: Path) -> None:
    """It tells which line of the file is refused, by its number."""
    (tmp_path / "key").write_text(f"wrong-key\n{KEY}\n")
    found = check("--no-inference", GROQ_API_KEY_FILE=str(tmp_path / "key"))
    assert found.code == 0
    assert "1 of 2 keys are accepted, number 1 of the file is not" in found.step("key_accepted")["message"]


def test_redis_that_forgets_is_told(check: Checking, vessel: Served) -> None:
    """Without the append-only file, and where memory evicts, a vessel is not ready."""
    with vessel.inside() as (_, runner):
        runner.client.config_set("appendonly", "no")
        try:
            off = check("--no-inference")
            runner.client.config_set("appendonly", "yes")
            runner.client.config_set("maxmemory", "4gb")
            runner.client.config_set("maxmemory-policy", "allkeys-lru")
            evicts = check("--no-inference")
            runner.client.config_set("maxmemory-policy", "noeviction")
            runner.client.config_set("maxmemory", "100kb")
            full = check("--no-inference")
        finally:
            runner.client.config_set("appendonly", "yes")
            runner.client.config_set("maxmemory-policy", "noeviction")
            runner.client.config_set("maxmemory", "0")
    assert off.failed == ["redis_not_persistent"]
    assert evicts.failed == ["redis_evicts"]
    assert full.failed[0] == "redis_full"
    assert "CONFIG SET maxmemory-policy noeviction" in evicts.step("redis_persistent")["cure"]


def test_an_acl_that_hides_info_is_told(check: Checking, vessel: Served) -> None:
    """What cannot be looked at is not called well."""
    with vessel.inside() as (_, runner):
        runner.client.acl_setuser("blind", enabled=True, nopass=True, keys=["*"], channels=["*"],
                                   commands=["+@all", "-info"])  # fmt: skip
        blind = vessel.redis.url.replace("unix://", "unix://blind@") + "?password=x"
        found = check("--no-inference", VESSEL_REDIS_URL=blind)
        runner.client.acl_deluser("blind")
    assert found.failed == ["redis_not_persistent"]
    assert "+info" in found.step("redis_persistent")["cure"]


def test_maintenance_is_not_ready_and_costs_no_call(check: Checking, vessel: Served) -> None:
    """The test call is left out, as it would only be held."""
    with vessel.inside() as (door, runner):
        runner.run(set_maintenance(door, None, None, "disks"))
        found = check()
        runner.run(clear_maintenance(door, None))
    assert found.failed == ["maintenance_on"]
    assert found.step("inference")["ok"] is None


def test_a_failing_test_call_is_told(check: Checking, vessel: Served) -> None:
    """All else is well, and the call through the queue gives no answer: the reason is told and nothing is left over."""
    vessel.ask("/_sim/faults", {"kind": "status", "status": 400})
    found = check("--timeout", "10")
    vessel.ask("/_sim/faults", method="DELETE")
    assert found.failed == ["inference_failed"]
    with vessel.inside() as (door, runner):
        assert runner.client.zcard(door.keys.leases) == 0


def test_bad_use_names_what_there_is(check: Checking) -> None:
    """A service or tier that does not exist is told at once."""
    found = check("--expect", "api,mpc")
    assert found.code == 2
    assert "mcp" in found.document["error"]["message"]
    assert check("--tiers", "powr").code == 2


def _script(vessel: Served, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    variables = {"VESSEL": _wrapper(vessel.folder), "VESSEL_API_PORT": vessel.url.rpartition(":")[2]}
    return subprocess.run(
        ["/bin/sh", str(SCRIPT), *arguments], env=vessel.environment() | variables | env,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_script_is_green_tells_systemd_and_the_log(vessel: Served, tmp_path: Path) -> None:
    """It exits 0 with the message; the unit's status line and the log hold the counted readiness."""
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        done = _script(vessel, NOTIFY_SOCKET=address)
        told = listening.recv(65536).decode()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "GROQ HOT VESSEL ONLINE" in done.stdout
    assert told.startswith("STATUS=Status: Ready; Models: ")
    (line,) = [json.loads(line) for line in done.stderr.splitlines() if '"vessel.ready"' in line]
    assert line["readiness"] == told.removeprefix("STATUS=")


def test_the_script_has_an_exit_code_for_each_cause(vessel: Served, tmp_path: Path) -> None:
    """Its environment file counts where nothing is set, what is set wins, and a refused key is not waited for."""
    (tmp_path / "env").write_text(f"# ours\nVESSEL_API_PORT=\"{_closed()}\"\nGROQ_API_KEY='wrong'\nnot a line\n")
    environment = {"VESSEL_ENV_FILE": str(tmp_path / "env")}
    refused = _script(vessel, "--no-inference", GROQ_API_KEY="wrong", **environment)
    assert refused.returncode == 11, refused.stdout
    assert _script(vessel, VESSEL="no-such-vessel").returncode == 3


def test_the_script_is_plain_sh() -> None:
    """No shell of any kind finds a fault in it, nor does shellcheck where it is installed."""
    shells = [shell for name in ("sh", "dash", "bash") if (shell := shutil.which(name))]
    for command in ([shell, "-n"] for shell in shells):
        subprocess.run([*command, str(SCRIPT)], check=True)
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin")
    if shellcheck:
        subprocess.run([shellcheck, str(SCRIPT)], check=True)


@pytest.fixture
def unswept(vessel: Served) -> Iterator[tuple[dict[str, str], redis.Redis, Keys]]:
    """Give a namespace in which a worker for every tier is alive and nobody sweeps, and what names it."""
    keys = Keys("unswept")
    with vessel.inside() as (_, runner):
        for tier in load_registry().tiers:
            runner.client.zadd(keys.live(tier), {"w1@h:1": 1 << 52})
        runner.client.hset(keys.slots, "w1@h:1", 10)
        yield {"VESSEL_NAMESPACE": keys.namespace}, runner.client, keys
        runner.client.delete(keys.slots, keys.role("sweeper"), *map(keys.live, load_registry().tiers))


def test_sweeps_that_nobody_runs_are_a_cause_of_their_own(
    vessel: Served, unswept: tuple[dict[str, str], redis.Redis, Keys]
) -> None:
    """Workers live, so nothing before it fails: the script exits 16 and says what to start; the role heals it."""
    env, client, keys = unswept
    alone = ("--no-inference", "--deadline", "0", "--expect", "none")
    missing = _script(vessel, *alone, **env)
    assert missing.returncode == 16, missing.stdout
    assert "✗ Sweeps        nobody runs them: batches are not fed, lost jobs stay" in missing.stdout
    assert "→ start the scheduler: `vessel scheduler`" in missing.stdout
    assert "❌ GROQ HOT VESSEL NOT READY: sweeper_missing\n" in missing.stdout
    client.set(keys.role("sweeper"), "scheduler@h:1")
    assert _script(vessel, *alone, **env).returncode == 0


def test_a_restore_is_no_sweeper(check: Checking, unswept: tuple[dict[str, str], redis.Redis, Keys]) -> None:
    """It holds the role so that nobody sweeps what is half there."""
    env, client, keys = unswept
    client.set(keys.role("sweeper"), RESTORER)
    check.patch.setattr("vessel.cli.check_steps.PATIENCE_S", 0.0)
    found = check("--no-inference", "--expect", "none", **env)
    assert (found.code, found.failed) == (1, ["sweeper_missing"])
    assert "a restore" in found.step("sweeper")["message"]
    assert "`vessel restore FILE`" in found.step("sweeper")["cure"]


@pytest.mark.system
def test_the_script_reads_its_environment_file(vessel: Served, tmp_path: Path) -> None:
    """What the file names counts where nothing is set; a face that stays away is waited for, then named."""
    (tmp_path / "env").write_text(f'VESSEL_MCP_PORT="{_closed()}"\n')
    environment = {"VESSEL_ENV_FILE": str(tmp_path / "env")}
    down = _script(vessel, "--no-inference", "--deadline", "2", VESSEL_API_PORT=_closed())
    assert down.returncode == 17, down.stdout
    away = _script(vessel, "--no-inference", "--deadline", "0", "--expect", "api,mcp", **environment)
    assert away.returncode == 18, away.stdout
    assert _script(vessel, "--expect", "nothing").returncode == 2


@pytest.mark.system
def test_a_boot_waits_for_what_comes_up(tmp_path: Path) -> None:
    """Redis, worker and API come after the check has begun: it waits, says for what, and ends green."""
    with Served(tmp_path / "late") as stack:
        stack.start_worker()
        port = free_port()
        with (tmp_path / "out").open("w") as out:
            checking = subprocess.Popen(
                ["/bin/sh", str(SCRIPT), "--no-inference"], stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                env=stack.environment() | {"VESSEL": _wrapper(tmp_path), "VESSEL_API_PORT": str(port)},
            )  # fmt: skip
        stack.start_api(port=port)
        assert checking.wait(60) == 0, (tmp_path / "out").read_text()


def _wrapper(folder: Path) -> str:
    command = folder / "vessel"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vessel.cli.main "$@"\n')
    command.chmod(0o755)
    return str(command)
