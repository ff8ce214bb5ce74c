"""`vessel restore`: a backup into an empty namespace, checked before anything changes, repeatable after a crash."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from vessel.cli.backup import PASSING, SCAN_AT_ONCE, progress
from vessel.cli.backup_file import BadBackup, Kind, read_header, records, unpack
from vessel.cli.faults import BadUse
from vessel.cli.output import counted, emit, say
from vessel.errors import RedisRefused, RedisUnreachable, VesselError
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.lives import family
from vessel.keyspace.script import Call, command, word
from vessel.settings import load_settings
from vessel.submit import Door, redis_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vessel.cli.backup_file import Record

BYTES_AT_ONCE, CALLS_AT_ONCE = 4 << 20, 500
RESTORER = "restore"
SWEEPS_HELD_MS = 60_000
"""Nobody sweeps what is half there: the restore holds the sweepers' lease, and renews it as it goes."""


class NotEmpty(VesselError):
    """The namespace holds jobs; nothing was changed. Restore into an empty one, or replace it with --replace."""

    code = "namespace_not_empty"


class InUse(VesselError):
    """Workers or a scheduler are running in the namespace; nothing was changed. Stop them first."""

    code = "namespace_in_use"


class Restore:
    """Puts records into a namespace."""

    def __init__(self, runner: SyncRunner, door: Door, told: Callable[[str, int], None]) -> None:
        """Take where to; `told` hears how many keys are done."""
        self.runner, self.door, self.keys, self.told = runner, door, door.keys, told
        self.prefix = f"{door.keys.namespace}:".encode()
        self.done = 0
        self._calls: list[Call[Any]] = []
        self._bytes = 0

    def check(self, *, replace: bool) -> None:
        """Make sure that nobody works here and nothing is lost. Raises InUse, NotEmpty.

        What an unfinished restore left is its own, and replaced.
        """
        if any(self.runner.run(self.door.alive()).values()) or self._sweeper() not in {"", RESTORER}:
            raise InUse(
                "Workers or a scheduler are running in this namespace; nothing was changed. Stop them first, and the "
                "API as well: systemctl stop vessel.target, or end `vessel up`."
            )
        begun = self.runner.run(command("EXISTS", self.keys.restoring, parse=int))
        if not (begun or replace) and any(self._there()):
            raise NotEmpty

    def run(self, found: Iterator[Record]) -> None:
        """Empty the namespace and fill it. Until the end the namespace says that a restore is under way."""
        self.runner.run(command("SET", self.keys.restoring, "1", parse=word))
        self._hold_sweeps()
        kept = {self.keys.restoring.encode(), self.keys.role("sweeper").encode()}
        for some in self._there(passing=True):
            gone = [name for name in some if name not in kept]
            if gone:
                self.runner.run(command("DEL", *gone, parse=int))
        for record in found:
            self._add(record)
        self._send()
        if any(self.runner.run(self.door.alive()).values()):
            raise InUse("A worker was started while the restore ran. Stop it and run the same command again.")
        done = [command("DEL", self.keys.restoring, parse=int), command("DEL", self.keys.role("sweeper"), parse=int)]
        self.runner.run_all(done)

    def _sweeper(self) -> str:
        return self.runner.run(command("GET", self.keys.role("sweeper"), parse=word))

    def _hold_sweeps(self) -> None:
        self.runner.run(command("SET", self.keys.role("sweeper"), RESTORER, "PX", SWEEPS_HELD_MS, parse=word))

    def _there(self, *, passing: bool = False) -> Iterator[list[bytes]]:
        """Give the names that are there in groups, leaving those out that speak of processes only."""
        cursor = 0
        while True:
            call: Call[tuple[int, list[bytes]]] = command(
                "SCAN", cursor, "MATCH", f"{self.keys.namespace}:*", "COUNT", SCAN_AT_ONCE,
                parse=lambda raw: (int(raw[0]), list(raw[1])),
            )  # fmt: skip
            cursor, names = self.runner.run(call)
            found = [name for name in names if passing or self._family(name) not in PASSING]
            if found:
                yield found
            if cursor == 0:
                return

    def _family(self, name: bytes) -> str | None:
        return family(name.removeprefix(self.prefix).decode("utf-8", "replace"))

    def _add(self, record: Record) -> None:
        name = self.prefix + record.key
        if record.kind is Kind.DUMP:
            restore = command("RESTORE", name, record.ttl_ms, record.payload, "REPLACE", parse=word)
            self._queue(restore, len(record.payload))
        elif record.kind is Kind.GONE:
            self._queue(command("DEL", name, parse=int), 0)
        elif record.kind is Kind.TRIM:
            self._queue(command("XTRIM", name, "MINID", record.payload, parse=int), 0)
        else:
            parts = unpack(record.payload)
            for entry_id, packed in zip(parts[::2], parts[1::2], strict=True):
                fields = unpack(packed)
                self._queue(command("XADD", name, entry_id, *fields, parse=word), len(packed))
                taken_back = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"amends")
                if taken_back:  # it may have been copied before it was
                    self._queue(command("XDEL", name, taken_back, parse=int), 0)

    def _queue(self, call: Call[Any], size: int) -> None:
        self._calls.append(call)
        self._bytes += size
        if self._bytes >= BYTES_AT_ONCE or len(self._calls) >= CALLS_AT_ONCE:
            self._send()

    def _send(self) -> None:
        if not self._calls:
            return
        self._hold_sweeps()
        try:
            self.runner.run_all(self._calls)
        except (RedisUnreachable, RedisRefused) as error:
            raise type(error)(
                f"{error.message} The restore stopped half-way, and workers wait for its end: run the command again."
            ) from None
        except Exception as error:
            if "DUMP payload" not in str(error):
                raise
            raise BadBackup(
                "This Redis cannot read what a newer one wrote. Restore into the version that the backup was made of, "
                "or a newer one; the namespace is not usable until a restore has ended."
            ) from None
        self.done += len(self._calls)
        self.told("restored", self.done)
        self._calls, self._bytes = [], 0


def restore(path: Path, *, replace: bool, as_json: bool) -> int:
    """Restore a backup. Raises BadUse, BadBackup, InUse, NotEmpty, NoRedis, Unreachable, OSError."""
    settings = load_settings()
    header = read_header(path)
    if header.get("namespace") != settings.namespace:
        raise BadUse(
            f"{path} is a backup of namespace {header.get('namespace')}, and this one is {settings.namespace}. Nothing "
            f"was changed. Set VESSEL_NAMESPACE={header.get('namespace')}."
        )
    for _ in records(path):  # the whole of it, before anything is changed
        pass
    door = Door(settings)
    with contextlib.ExitStack() as held:
        runner = SyncRunner(held.enter_context(contextlib.closing(connect(redis_url(settings)))))
        told = held.enter_context(progress("Restoring"))
        work = Restore(runner, door, told)
        work.check(replace=replace)
        work.run(records(path))
        jobs, running = runner.run_all([
            command("ZCARD", door.keys.index, parse=int), command("ZCARD", door.keys.leases, parse=int),
        ])  # fmt: skip
    if as_json:
        emit({"file": str(path), "namespace": settings.namespace, "jobs": jobs, "running": running,
              "records": work.done, "made": header.get("began")})  # fmt: skip
        return 0
    say(f"Namespace {settings.namespace} holds {counted(jobs, 'job')} of {header.get('began')} again.")
    if running:
        say(
            f"{running:,} of them were running: a sweep takes them back {settings.lease:g} s after workers are started."
        )
    say("Start the services; `vessel doctor` tells what is not as it should be.")
    return 0
