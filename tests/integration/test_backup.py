"""`vessel backup` and `vessel restore`: one moment of a namespace that lives, put back whole."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.fake_worker import beat
from tests.waiting import wait_until
from vessel.cli import backup as backing
from vessel.cli.backup import PASSING
from vessel.cli.backup_file import Kind, records
from vessel.cli.main import run
from vessel.client import GroqClient
from vessel.control import set_budget
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.lives import family
from vessel.keyspace.names import Keys

if TYPE_CHECKING:
    from pathlib import Path

    import redis

pytestmark = pytest.mark.redis("redis", "valkey")
KEYS = Keys("bak")


class Space:
    """A namespace, and the two commands on it."""

    def __init__(self, client: redis.Redis, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Take where it is."""
        self.client, self.folder, self.capsys = client, folder, capsys
        self.file = folder / "backup"

    def run(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        """Run a command with --json and give its document, or its error."""
        ended = run([*arguments, "--json"])
        out, err = self.capsys.readouterr()
        assert ended == code, err
        document: dict[str, Any] = json.loads(out)
        found: dict[str, Any] = document.get("error", document)
        return found

    def values(self) -> dict[bytes, Any]:
        """Read everything that a backup holds."""
        found = {}
        for name in self.client.scan_iter(match="bak:*", count=1000):
            if family(name.removeprefix(b"bak:").decode()) not in PASSING:
                found[name] = (_value(self.client, name), self.client.ttl(name) > 0)
        return found

    def filled(self, jobs: int) -> None:
        """Make jobs, a batch with its file, a cap, a key and ledger entries."""
        with GroqClient() as client:
            client.submit_many({"prompt": f"Say {n}", "tier": "power", "deadline": "2h"} for n in range(jobs))
            client.submit_batch([{"prompt": f"Line {n}"} for n in range(20)])
            client.runner.run(set_budget(client.door, None, day=Decimal(1)))
        for n in range(30):
            self.client.xadd(KEYS.ledger, {"call": f"job/{n}", "outcome": "ok", "row": "{}"}, id=f"{n + 1}-0")
        self.client.psetex(KEYS.file("file-x"), 60_000, "bytes \x00")


def _value(client: redis.Redis, name: bytes) -> Any:
    kind = client.type(name)
    if kind == b"hash":
        return client.hgetall(name)
    if kind == b"zset":
        return client.zrange(name, 0, -1, withscores=True)
    if kind == b"stream":
        return client.xrange(name)
    if kind == b"list":
        return client.lrange(name, 0, -1)
    return client.smembers(name) if kind == b"set" else client.get(name)


@pytest.fixture
def space(
    redis_url: str, redis_client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Space:  # fmt: skip
    """Give an empty namespace."""
    for name, value in {
        "VESSEL_REDIS_URL": redis_url,
        "VESSEL_NAMESPACE": "bak",
        "VESSEL_DATA_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    return Space(redis_client, tmp_path, capsys)


def test_all_comes_back(space: Space) -> None:
    """Every kind of value, with a time to live where there was one; what speaks of processes does not."""
    space.filled(50)
    space.client.set(KEYS.role("sweeper"), "w@h")
    before = space.values()
    made = space.run("backup", str(space.file))
    assert made["jobs"] == 50
    space.client.flushall()
    assert space.run("restore", str(space.file))["jobs"] == 50
    assert space.values() == before
    assert not space.client.exists(KEYS.role("sweeper"), KEYS.restoring)
    assert space.run("backup", str(space.file), code=2)["code"] == "bad_use", "an older backup is not overwritten"
    space.run("backup", str(space.file), "--force")


def test_a_copy_is_of_one_moment(space: Space, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a script keeps raising many keys together, with entries in the ledger, a backup holds all at one height."""
    monkeypatch.setattr(backing, "FEW", 100)
    raise_all = space.client.register_script(
        "for i, k in ipairs(KEYS) do if i > 1 then redis.call('SET', k, ARGV[1]) end end\n"
        "redis.call('XADD', KEYS[1], '*', 'row', ARGV[1], 'outcome', 'ok')"
    )
    names = [KEYS.ledger, *(KEYS.job(f"j{n}") for n in range(60))]
    over, height = threading.Event(), 0

    def write() -> None:
        nonlocal height
        while not over.is_set():
            height += 1
            raise_all(keys=names, args=[height])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until(lambda: height > 5)
        space.run("backup", str(space.file))
    finally:
        over.set()
        writer.join()
    space.client.flushall()
    space.run("restore", str(space.file))
    heights = {space.client.get(name) for name in names[1:]}
    assert len(heights) == 1
    entries: Any = space.client.xrange(KEYS.ledger)
    rows = [fields[b"row"] for _, fields in entries]
    assert rows == [str(n).encode() for n in range(1, int(heights.pop() or 0) + 1)]


@pytest.mark.redis("redis")
def test_without_the_right_to_hold_writes_a_quiet_namespace_is_copied(space: Space, redis_url: str) -> None:
    """A busy one is refused with both ways out, and no file is left."""
    space.filled(5)
    space.client.acl_setuser("plain", enabled=True, nopass=True, keys=["*"], channels=["*"],
                             commands=["+@all", "-client|pause"])  # fmt: skip
    url = redis_url.replace("unix://", "unix://plain@") + "?password=x"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VESSEL_REDIS_URL", url)
        assert space.run("backup", str(space.file))["jobs"] == 5
        copy = backing.Copy._copy

        def restless(self: backing.Copy, names: Any) -> None:
            copy(self, names)
            space.client.incr(KEYS.job("restless"))

        patch.setattr(backing.Copy, "_copy", restless)
        refused = space.run("backup", str(space.folder / "other"), code=1)
    space.client.acl_deluser("plain")
    assert refused["code"] == "backup_not_consistent"
    assert not [path for path in space.folder.iterdir() if "other" in path.name]


@pytest.mark.redis("redis")
def test_nothing_is_overwritten_by_mistake(space: Space) -> None:
    """A namespace with jobs, one in use, another namespace, a damaged file: told, and nothing is changed."""
    space.filled(5)
    space.run("backup", str(space.file))
    before = space.values()
    assert space.run("restore", str(space.file), code=1)["code"] == "namespace_not_empty"
    with GroqClient() as client:
        beat(SyncRunner(space.client), client.door, ["power"])
    assert space.run("restore", str(space.file), "--replace", code=1)["code"] == "namespace_in_use"
    space.client.delete(KEYS.live("power"), KEYS.slots)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VESSEL_NAMESPACE", "other")
        assert "VESSEL_NAMESPACE=bak" in space.run("restore", str(space.file), code=2)["message"]
    whole = space.file.read_bytes()
    space.file.write_bytes(whole[:-10])
    assert space.run("restore", str(space.file), "--replace", code=2)["code"] == "bad_backup"
    assert space.values() == before
    space.file.write_bytes(whole)
    space.client.set(KEYS.job("late"), "made after the backup")
    space.run("restore", str(space.file), "--replace")
    assert space.values() == before


@pytest.mark.redis("redis")
def test_a_killed_restore_can_be_repeated(space: Space) -> None:
    """Half of it is there and says so: workers wait, no backup is made of it, and a second run needs no --replace."""
    space.filled(600)
    before = space.values()
    space.run("backup", str(space.file))
    space.client.flushall()
    command = [sys.executable, "-m", "vessel.cli.main", "restore", str(space.file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as restoring:
        wait_until(lambda: space.client.dbsize() > 2 or restoring.poll() is not None)
        restoring.send_signal(signal.SIGKILL)
    space.client.set(KEYS.restoring, "1")  # as it is wherever the kill came before the end
    assert space.run("backup", str(space.folder / "half"), code=1)["code"] == "backup_not_consistent"
    space.client.delete(KEYS.role("sweeper"))
    assert space.run("restore", str(space.file))["jobs"] == 600
    assert space.values() == before


@pytest.mark.redis("redis")
def test_an_amended_entry_is_there_once(space: Space) -> None:
    """Entries that were taken back while the backup ran are taken back by the restore as well."""
    space.client.xadd(KEYS.ledger, {"row": "unknown", "outcome": "unknown"}, id="1-0")
    add = backing.Copy._copy_entries

    def amended(self: backing.Copy, name: bytes) -> None:
        add(self, name)
        if space.client.xdel(KEYS.ledger, "1-0"):
            space.client.xadd(KEYS.ledger, {"row": "known", "outcome": "ok", "amends": "1-0"}, id="2-0")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backing.Copy, "_copy_entries", amended)
        space.run("backup", str(space.file))
    assert sum(record.kind is Kind.ENTRIES for record in records(space.file)) == 2
    space.client.flushall()
    space.run("restore", str(space.file))
    entries: Any = space.client.xrange(KEYS.ledger)
    assert [entry for entry, _ in entries] == [b"2-0"]


@pytest.mark.redis("redis")
def test_a_trimmed_entry_stays_away(space: Space) -> None:
    """Entries that passed their retention while the backup ran are not there after the restore."""
    for n in (1, 2):
        space.client.xadd(KEYS.ledger, {"row": "{}", "outcome": "ok"}, id=f"{n}-0")
    add = backing.Copy._copy_entries

    def trimmed(self: backing.Copy, name: bytes) -> None:
        add(self, name)
        if space.client.xtrim(KEYS.ledger, minid="2-0", approximate=False):
            space.client.xadd(KEYS.ledger, {"row": "{}", "outcome": "ok"}, id="3-0")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backing.Copy, "_copy_entries", trimmed)
        space.run("backup", str(space.file))
    space.client.flushall()
    space.run("restore", str(space.file))
    entries: Any = space.client.xrange(KEYS.ledger)
    assert [entry for entry, _ in entries] == [b"2-0", b"3-0"]
