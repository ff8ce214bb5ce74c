"""`vessel doctor`: silent on what is well, and for each trouble a finding with its severity, reason and cure."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.simulated import KEY, Process
from vessel.cli import doctor_findings, doctor_redis
from vessel.cli.doctor_redis import of_server
from vessel.cli.main import run
from vessel.client import GroqClient
from vessel.keyspace.names import Keys
from vessel.keyspace.release import release
from vessel.keyspace.server import Server
from vessel.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

pytestmark = pytest.mark.redis("redis", "valkey")
KEYS = Keys("doc")


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

    def look(self, exit_code: int | None = None) -> dict[str, dict[str, Any]]:
        """Run the doctor and give its findings by code."""
        code = run(["doctor", "--json"])
        document = json.loads(self.capsys.readouterr().out)
        found = {one["code"]: one for one in document["findings"]}
        assert all(one["what"] and one["why"] and one["cure"] for one in found.values())
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
    assert f"chmod 600 {file}" == some["key_file_open"]["cure"]
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
    assert list(of_server(Server(well), "everysec", "0", local=False)) == []
    found = {one.code: str(one.severity) for one in of_server(Server(well | ill), "no", "0", local=False)}
    assert found == {
        "redis_too_old": "error", "redis_loading": "warning", "redis_write_failed": "error",
        "redis_fsync_off": "warning",
        "redis_has_evicted": "error", "redis_is_replica": "error", "redis_clients": "warning",
        "scripts_unknown": "warning",
    }  # fmt: skip
    newer = {"redis_version": "6.2.9", "connected_slaves": "1", "used_memory": "990"}
    assert {one.code for one in of_server(Server(well | newer), "always", "0", local=False)} == {
        "redis_not_tested", "redis_replicas_unbound", "redis_memory_low",
    }  # fmt: skip
