"""`vessel doctor`: silent on what is well, and for each trouble a finding with its severity, reason and cure."""

from __future__ import annotations

import json
import os
import re
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from tests.simulated import KEY, Process
from vessel.cli import doctor_findings, doctor_redis
from vessel.cli.check_cures import Cures, UnitCures
from vessel.cli.doctor_redis import of_server
from vessel.cli.installed import Installation, Unit
from vessel.cli.main import app, run
from vessel.client import GroqClient
from vessel.keyspace.names import Keys
from vessel.keyspace.release import release
from vessel.keyspace.server import Server
from vessel.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import redis

    from vessel.cli.doctor_findings import Finding

pytestmark = pytest.mark.redis("redis", "valkey")
KEYS = Keys("doc")
OPS = Path(__file__).parents[2] / "ops"
KNOWN = frozenset({"chmod", "chown", "df", "du", "ls", "pip", "ps", "redis-cli", "replace_worker.sh", "sudo",
                   "timedatectl"})  # fmt: skip


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Give what stands in for Groq."""
    with Process(tmp_path_factory.mktemp("doctor")) as started:
        yield started


class Patient:
    """A namespace that looks well, and what the doctor says about it."""

    def __init__(self, client: redis.Redis, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Take what a test may spoil."""
        self.client, self.folder, self.capsys = client, folder, capsys
        self.installed = False

    def look(self, exit_code: int | None = None) -> dict[str, dict[str, Any]]:
        """Run the doctor and give its findings by code."""
        code = run(["doctor", "--json"])
        document = json.loads(self.capsys.readouterr().out)
        found = {one["code"]: one for one in document["findings"]}
        for one in found.values():
            assert one["what"]
            assert one["why"]
            assert one["cure"]
            check_cure(one["cure"], installed=self.installed)
        assert document["errors"] == sum(one["severity"] == "error" for one in document["findings"])
        assert code == (exit_code if exit_code is not None else 1 if document["errors"] else 0)
        return found

    def now(self) -> int:
        """Read Redis' clock."""
        seconds, micros = self.client.time()
        return int(seconds) * 1000 + int(micros) // 1000


@pytest.fixture
def patient(
    redis_url: str, redis_client: redis.Redis, simulator: Process, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> Iterator[Patient]:  # fmt: skip
    """Give a namespace with a live worker for every tier and a sweeper."""
    env = {"VESSEL_REDIS_URL": redis_url, "VESSEL_NAMESPACE": "doc", "VESSEL_DATA_DIR": str(tmp_path),
           "GROQ_API_KEY": KEY, "GROQ_BASE_URL": simulator.url}  # fmt: skip
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("vessel.cli.check_steps.PATIENCE_S", 0.0)
    monkeypatch.setattr(doctor_findings, "DISK_LOW", 0)
    monkeypatch.setattr(doctor_findings, "DISK_EMPTY", 0)
    monkeypatch.setattr(doctor_redis, "_memory_available_kib", lambda: None)
    found = Patient(redis_client, tmp_path, capsys)
    redis_client.config_set("maxmemory", "1gb")
    redis_client.set(KEYS.role("sweeper"), "w1@h:1")
    redis_client.hset(KEYS.sweep, "last", found.now())
    _live(found, *load_registry().tiers)
    yield found
    for name, value in (("maxmemory", "0"), ("maxmemory-policy", "noeviction"), ("appendonly", "yes")):
        redis_client.config_set(name, value)


def _live(patient: Patient, *tiers: str, worker: str = "w1@h:1", of: str | None = None) -> None:
    for tier in tiers:
        patient.client.zadd(KEYS.live(tier), {worker: patient.now() + 60_000})
    patient.client.hset(KEYS.slots, worker, 10)
    patient.client.set(KEYS.release(worker), of or release())


def test_what_is_well_has_no_finding(patient: Patient) -> None:
    """Neither error, warning nor note."""
    assert patient.look(0) == {}


def _stuck_lease(patient: Patient) -> None:
    patient.client.zadd(KEYS.leases, {"job_lost": patient.now() - 3_600_000})


def _no_sweeper(patient: Patient) -> None:
    patient.client.delete(KEYS.role("sweeper"))
    patient.client.hset(KEYS.sweep, "last", patient.now() - 60_000)


def _dead_tier(patient: Patient) -> None:
    patient.client.delete(KEYS.live("power"))
    with GroqClient() as client:
        client.submit("Who answers?", tier="power")


def _sleeping_tier(patient: Patient) -> None:
    patient.client.delete(KEYS.live("power"))


def _old_ticket(patient: Patient) -> None:
    patient.client.zadd(KEYS.tickets("power"), {"job_waits": patient.now() - 600_000})


def _refused_key(patient: Patient) -> None:
    patient.client.hset(KEYS.provider("default"), mapping={"br": "open", "br_at": patient.now(), "br_why":
                        "unauthorized", "br_next": patient.now() + 5000})  # fmt: skip


def _unfed(patient: Patient) -> None:
    with GroqClient() as client:
        handle = client.submit("Feed me", tier="power", priority="batch")
    patient.client.hset(KEYS.job(handle.id), "created", patient.now() - 600_000)


def _forgotten(patient: Patient) -> None:
    day = patient.now() - 2 * 86_400_000
    patient.client.hset(KEYS.maintenance, "all", f"0 {day} disks")


def _skew(patient: Patient) -> None:
    _live(patient, "power", worker="w2@h:2", of="0.0.9+00000000")


def _silent_release(patient: Patient) -> None:
    patient.client.delete(KEYS.release("w1@h:1"))


def _unwritten(patient: Patient) -> None:
    patient.client.xadd(KEYS.ledger, {"row": "{}", "outcome": "ok"}, id=f"{patient.now() - 600_000}-0")


def _unwritable(patient: Patient) -> None:
    _unwritten(patient)
    patient.client.set(KEYS.role("usage_log"), "w1@h:1", px=60_000)
    patient.client.xadd(KEYS.ledger, {"row": "{}", "outcome": "ok"})


def _left_behind(patient: Patient) -> None:
    patient.client.hset(KEYS.ledger_log, "written", f"{patient.now()}-0")
    (patient.folder / "usage_log.jsonl").write_text('{"entry":"1-0"}\n')


def _evicts(patient: Patient) -> None:
    patient.client.config_set("maxmemory-policy", "volatile-lru")


def _forgets(patient: Patient) -> None:
    patient.client.config_set("appendonly", "no")


def _full(patient: Patient) -> None:
    patient.client.config_set("maxmemory", int(patient.client.info("memory")["used_memory"] / 0.9))


def _unbounded(patient: Patient) -> None:
    patient.client.config_set("maxmemory", "0")


def _spool(patient: Patient) -> None:
    (patient.folder / "spool").mkdir()
    (patient.folder / "spool" / "job_1.json").write_text("{}")
    os.utime(patient.folder / "spool" / "job_1.json", (time.time() - 3600,) * 2)


def _broken_spool(patient: Patient) -> None:
    (patient.folder / "spool").mkdir()
    (patient.folder / "spool" / "job_1.broken").write_text("{}")


TROUBLES: list[tuple[Callable[[Patient], None], str, str]] = [
    (_stuck_lease, "leases_stuck", "error"),
    (_no_sweeper, "sweeper_missing", "error"),
    (_dead_tier, "tier_dead", "error"),
    (_sleeping_tier, "tier_dead", "warning"),
    (_old_ticket, "tickets_wait", "warning"),
    (_refused_key, "breaker_open", "error"),
    (_unfed, "backlog_unfed", "error"),
    (_forgotten, "maintenance_forgotten", "warning"),
    (_skew, "release_skew", "warning"),
    (_silent_release, "release_differs", "note"),
    (_unwritten, "usage_log_unwritten", "warning"),
    (_unwritable, "usage_log_behind", "warning"),
    (_left_behind, "usage_log_old", "note"),
    (_evicts, "redis_evicts", "error"),
    (_forgets, "redis_not_persistent", "error"),
    (_full, "redis_memory_low", "warning"),
    (_unbounded, "redis_unbounded", "note"),
    (_spool, "spool_waits", "error"),
    (_broken_spool, "spool_broken", "error"),
]


@pytest.mark.parametrize(("spoil", "code", "severity"), TROUBLES, ids=[trouble[0].__name__ for trouble in TROUBLES])
@pytest.mark.redis("redis")
def test_each_trouble_is_found(patient: Patient, spoil: Callable[[Patient], None], code: str, severity: str) -> None:
    """It alone is told, with its severity."""
    spoil(patient)
    assert {name: one["severity"] for name, one in patient.look().items()} == {code: severity}


@pytest.mark.parametrize(("spoil", "code", "severity"), TROUBLES, ids=[trouble[0].__name__ for trouble in TROUBLES])
@pytest.mark.redis("redis")
def test_on_an_installed_machine_the_cures_are_about_its_units(
    patient: Patient, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Patient], None], code: str, severity: str
) -> None:
    """Each can be followed there: units that exist, files of the installation, commands that the operator may use."""
    monkeypatch.setattr("vessel.cli.doctor.installed_at", lambda _folder: _installation())
    patient.installed = True
    spoil(patient)
    assert {name: one["severity"] for name, one in patient.look().items()} == {code: severity}


@pytest.mark.redis("redis")
def test_a_data_directory_is_judged_by_who_has_to_write_there(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write everywhere, and is who asks on an installed machine; the services' user is another one."""
    monkeypatch.setattr("vessel.cli.doctor.installed_at", lambda _folder: _installation("nobody"))
    patient.installed = True
    folder = patient.folder
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    folder.chmod(0o755)
    told = patient.look(1)["data_dir_read_only"]
    assert f"{folder} cannot be written by nobody" in told["what"]
    assert told["cure"] == f"`chown -R nobody: {folder}`"
    folder.chmod(0o777)
    assert patient.look(0) == {}
    (folder / "spool").mkdir(mode=0o700)
    assert f"{folder / 'spool'} cannot be written by nobody" in patient.look(1)["data_dir_read_only"]["what"]
    (folder / "spool").chmod(0o777)
    assert patient.look(0) == {}
    folder.chmod(0o755)
    monkeypatch.setattr("vessel.cli.doctor.installed_at", lambda _folder: _installation("root"))
    assert patient.look(0) == {}


@pytest.mark.redis("redis")
def test_a_data_directory_that_one_cannot_write_is_told(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an installation it is about who asks; the system's answer is replaced, as root may write everywhere."""
    asked = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and asked(path, mode))
    assert "$(id -un)" in patient.look(1)["data_dir_read_only"]["cure"]


@pytest.mark.redis("redis")
def test_keys_are_looked_at(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file open to others, one of two keys refused, all refused, the file gone: no key is shown."""
    file = patient.folder / "key"
    monkeypatch.setenv("GROQ_API_KEY_FILE", str(file))
    assert patient.look()["key_missing"]["severity"] == "error"
    file.write_text(f"wrong\n{KEY}\n")
    file.chmod(0o644)
    some = patient.look(0)
    assert set(some) == {"key_file_open", "key_of_several_refused"}
    assert f"`chmod 600 {file}`" == some["key_file_open"]["cure"]
    file.write_text("wrong\n")
    file.chmod(0o600)
    refused = patient.look(1)
    assert set(refused) == {"key_refused"}
    assert "wrong" not in json.dumps(refused)


@pytest.mark.redis("redis")
def test_faults_of_the_settings_are_findings(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is told, nothing else is looked at, and the command exits 2."""
    monkeypatch.setenv("VESSEL_API_PROT", "1")
    assert "did you mean VESSEL_API_PORT" in patient.look(2)["settings_invalid"]["what"]


@pytest.mark.redis("redis")
def test_redis_away_is_a_finding(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs no Redis is looked at nevertheless."""
    monkeypatch.setenv("VESSEL_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("GROQ_API_KEY", "wrong")
    assert set(patient.look(1)) == {"redis_unreachable", "key_refused"}


@pytest.mark.redis("redis")
def test_a_clock_that_is_off_is_told(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds are a warning, minutes an error, and it says which way."""
    clock = time.time
    monkeypatch.setattr("vessel.cli.doctor_redis.time.time", lambda: clock() - 10)
    behind = patient.look(0)["clock_drift"]
    assert (behind["severity"], "behind" in behind["what"]) == ("warning", True)
    monkeypatch.setattr("vessel.cli.doctor_redis.time.time", lambda: clock() + 3600)
    assert patient.look(1)["clock_drift"]["severity"] == "error"


def test_what_a_server_may_say_of_itself() -> None:
    """Old versions, replicas, failed writes and evictions are read from INFO; a healthy server has no finding."""
    well = {"redis_version": "7.2.4", "aof_enabled": "1", "maxmemory_policy": "noeviction", "maxmemory": "1000",
            "used_memory": "10", "role": "master", "aof_last_write_status": "ok"}  # fmt: skip
    ill = {"redis_version": "6.0.16", "role": "slave", "aof_last_write_status": "err", "evicted_keys": "3",
           "maxclients": "10", "connected_clients": "9", "loading": "1",
           "number_of_cached_scripts": "5000"}  # fmt: skip
    assert _told(well) == {}
    found = _told(well | ill, "no")
    assert found == {
        "redis_too_old": "error", "redis_loading": "warning", "redis_write_failed": "error",
        "redis_fsync_off": "warning",
        "redis_has_evicted": "error", "redis_is_replica": "error", "redis_clients": "warning",
        "scripts_unknown": "warning",
    }  # fmt: skip
    newer = {"redis_version": "6.2.9", "connected_slaves": "1", "used_memory": "990"}
    assert set(_told(well | newer, "always")) == {"redis_not_tested", "redis_replicas_unbound", "redis_memory_low"}


def _told(said: dict[str, str], fsync: str = "everysec") -> dict[str, str]:
    """Give the findings about a server, whose cures can be followed both with and without units."""
    found: list[Finding] = []
    for cures in (Cures(), UnitCures(_installation())):
        found = list(of_server(Server(said), fsync, "0", local=False, cures=cures))
        for one in found:
            check_cure(one.cure, installed=isinstance(cures, UnitCures))
    return {one.code: str(one.severity) for one in found}


def _installation(user: str = "vessel", tiers: Sequence[str] = ()) -> Installation:
    names = ("vessel-redis", "vessel-api", "vessel-mcp", "vessel-flower", "vessel-scheduler", "vessel-worker@all")
    units = tuple(Unit(name, "loaded", "active", "running", "success", 0, 0, user) for name in names)
    return Installation(units, groups={"vessel-worker@all": frozenset(tiers or load_registry().tiers)})


def check_cure(cure: str, *, installed: bool) -> None:
    """See that each command and unit that a cure names is there, and may be used by who is told to."""
    program = "vessel-service" if installed else "vessel"
    lines = re.findall(r"`([^`]+)`", cure)
    assert "celery" not in cure
    group: Any = get_command(app)
    for line in lines:
        first, *words = shlex.split(line.partition("|")[0])
        if first == program:
            assert words[0] in group.commands, cure
        elif first == "systemctl" and not installed:
            assert words == ["start", "redis-server"], f"only the distribution's: {cure}"
        elif first == "systemctl":
            assert words[0] in {"start", "restart"}, cure
            for unit in words[1:]:
                name = re.sub(r"@\w+", "@", unit)
                assert any((OPS / "systemd" / f"{name}{end}").exists() for end in ("", ".service")), cure
        elif first == "redis-cli" and installed:
            assert words[:5] == ["-s", "/run/vessel-redis/redis.sock", "--user", "operator", "--askpass"], cure
            assert words[5].lower() in _operators(), cure
        elif first == "journalctl":
            assert installed, cure
        else:
            assert Path(first).name in KNOWN or re.match(r"[a-z-]+ \S+$", line), cure
            assert not first.startswith("/opt/vessel/ops") or (OPS / Path(first).name).exists(), cure
    if installed:
        assert not re.search(r"\bvessel (?!--)[a-z]+\b", " ".join(lines)), cure
        assert "CONFIG SET" not in cure, f"the operator may not: {cure}"
        for place in re.findall(r"let (\S+) say", cure):
            assert place == "/etc/vessel/redis/redis.conf"


def _operators() -> set[str]:
    lines = (OPS / "users.acl").read_text("utf-8").splitlines()
    line = next(line for line in lines if line.startswith("user operator "))
    return {word.removeprefix("+") for word in line.split() if word.startswith("+")}
