"""`vessel backup`: the namespace as it was at one moment, copied while jobs run, in bounded memory."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vessel.cli.backup_file import Kind, Record, Writer, pack
from vessel.cli.faults import BadUse
from vessel.cli.output import counted, emit, say
from vessel.errors import RedisRefused, VesselError
from vessel.keyspace.changes import Changes
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.lives import family
from vessel.keyspace.names import Keys
from vessel.keyspace.release import release
from vessel.keyspace.script import command, word
from vessel.keyspace.server import info
from vessel.settings import load_settings
from vessel.submit import redis_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from vessel.keyspace.script import Call

PASSING = frozenset({
    "live", "slots", "release", "reply", "role", "restoring", "sweep", "kombu",  # who is there now
    "gate", "inflight", "fed", "repeat", "quota",  # what is going on this minute; limits are learned again
})  # fmt: skip
"""Families that are not copied: they speak of processes and calls that are not there after a restore."""
STREAMED = frozenset({"ledger"})
"""Families of one stream without bound, copied entry by entry."""
SCAN_AT_ONCE, ENTRIES_AT_ONCE = 1000, 1000
FEWEST_AT_ONCE, MOST_AT_ONCE, BYTES_AT_ONCE = 1, 500, 4 << 20
FEW = 2000
"""So few changed keys are copied while writes are held: some tens of milliseconds."""
PASSES = 20


class NotConsistent(VesselError):
    """The namespace never stood still, so a copy of it would not be of one moment; nothing was kept."""

    code = "backup_not_consistent"


class Copy:
    """Copies a namespace into a writer."""

    def __init__(self, runner: SyncRunner, keys: Keys, writer: Writer, told: Callable[[str, int], None]) -> None:
        """Take where from and where to; `told` hears what is done and how many keys are."""
        self.runner, self.keys, self.writer, self.told = runner, keys, writer, told
        self.prefix = f"{keys.namespace}:".encode()
        self.copied = 0
        self._at_once = 16
        self._last_entry: dict[bytes, str] = {}
        self._first_entry: dict[bytes, bytes] = {}

    def run(self, changes: Changes) -> None:
        """Copy everything, then what has changed meanwhile, until a last pass while writes are held.

        Raises NotConsistent, RedisUnreachable, RedisRefused.
        """
        for some in self._scan():
            self._copy(some)
            changes.drain()
            self.told("copied", self.copied)
        pending: set[bytes] = set()
        for _ in range(PASSES):
            pending |= self._ours(changes.taken())
            if len(pending) > FEW:
                self._copy_all(pending, changes)
                self.told("changed meanwhile", len(pending))
                pending = set()
                continue
            # Without the right to hold writes, a pass in which nothing was written is as good.
            with changes.writes_held():
                pending |= self._ours(changes.taken())
                if len(pending) <= 2 * FEW:
                    self._copy(sorted(pending))
                    pending = self._ours(changes.taken())
                    if not pending:
                        return
        raise NotConsistent(
            "The namespace changed too fast to be copied at one moment; nothing was kept. Hold the jobs meanwhile with "
            "`vessel maintenance on`, or give Redis' user +client|pause."
        )

    def _copy_all(self, names: Iterable[bytes], changes: Changes) -> None:
        some = sorted(names)
        for start in range(0, len(some), SCAN_AT_ONCE):
            self._copy(some[start : start + SCAN_AT_ONCE])
            changes.drain()

    def _scan(self) -> Iterator[list[bytes]]:
        cursor = 0
        pattern = _escaped(self.keys.namespace) + ":*"
        while True:
            call: Call[tuple[int, list[bytes]]] = command(
                "SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_AT_ONCE, parse=lambda raw: (int(raw[0]), list(raw[1]))
            )
            cursor, found = self.runner.run(call)
            yield sorted(self._ours(found))
            if cursor == 0:
                return

    def _ours(self, names: Iterable[bytes]) -> set[bytes]:
        return {name for name in names if name.startswith(self.prefix) and self._family(name) not in PASSING}

    def _family(self, name: bytes) -> str | None:
        return family(name.removeprefix(self.prefix).decode("utf-8", "replace"))

    def _copy(self, names: Sequence[bytes]) -> None:
        at = 0
        streamed = [name for name in names if self._family(name) in STREAMED]
        for name in streamed:
            self._copy_entries(name)
        whole = [name for name in names if name not in streamed]
        while at < len(whole):
            some = whole[at : at + self._at_once]
            at += len(some)
            calls: list[Call[Any]] = []
            for name in some:
                calls += [command("PTTL", name, parse=int), command("DUMP", name, parse=lambda raw: raw)]
            answers = self.runner.run_all(calls)
            size = 0
            for name, ttl, payload in zip(some, answers[::2], answers[1::2], strict=True):
                self._add(name, ttl, payload)
                size += len(payload or b"")
            self._at_once = _fitting(self._at_once, size)
            self.copied += len(some)

    def _add(self, name: bytes, ttl: int, payload: bytes | None) -> None:
        key = name.removeprefix(self.prefix)
        if payload is None:
            self.writer.add(Record(Kind.GONE, key))
        else:
            self.writer.add(Record(Kind.DUMP, key, max(0, ttl), payload))

    def _copy_entries(self, name: bytes) -> None:
        """Copy the entries of a stream behind those that were copied; a later one names those it takes back."""
        while True:
            after = self._last_entry.get(name)
            found = self.runner.run(_entries(name, f"({after}" if after else "-"))
            if found:
                parts = [part for entry_id, fields in found for part in (entry_id, pack(fields))]
                self.writer.add(Record(Kind.ENTRIES, name.removeprefix(self.prefix), 0, pack(parts)))
                self._last_entry[name] = word(found[-1][0])
                self.copied += len(found)
            if len(found) < ENTRIES_AT_ONCE:
                break
        first = self.runner.run(
            command("XRANGE", name, "-", "+", "COUNT", 1, parse=lambda raw: raw[0][0] if raw else b"")
        )
        if first and self._first_entry.get(name, first) != first:
            self.writer.add(Record(Kind.TRIM, name.removeprefix(self.prefix), 0, first))
        self._first_entry[name] = first


def backup(path: Path, *, force: bool, as_json: bool) -> int:
    """Copy the namespace of the settings into a file. Raises BadUse, NoRedis, Unreachable, NotConsistent, OSError."""
    settings = load_settings()
    if path.exists() and not force:
        raise BadUse(f"{path} is there already; it is unchanged. Choose another name, or replace it with --force.")
    if path.is_dir() or not path.parent.is_dir():
        raise BadUse(f"{path} cannot be a file: its folder is missing, or it is a folder itself.")
    url, keys = redis_url(settings), Keys(settings.namespace)
    with contextlib.ExitStack() as held:
        client = held.enter_context(contextlib.closing(connect(url)))
        runner = SyncRunner(client)
        if runner.run(command("EXISTS", keys.restoring, parse=int)):
            raise NotConsistent("A restore of this namespace has not ended, so it holds half of one. Nothing was kept.")
        header = {"namespace": settings.namespace, "release": release(), "redis": _product(runner),
                  "began": datetime.now(UTC).isoformat(timespec="seconds")}  # fmt: skip
        changes = held.enter_context(Changes(url, f"{settings.namespace}:"))
        told = held.enter_context(progress("Backing up"))
        writer = held.enter_context(Writer(path, header))
        copy = Copy(runner, keys, writer, told)
        copy.run(changes)
        jobs = runner.run(command("ZCARD", keys.index, parse=int))
    size = path.stat().st_size
    if as_json:
        emit({"file": str(path), "namespace": settings.namespace, "jobs": jobs, "keys": copy.copied, "bytes": size})
    else:
        counts = f"{counted(jobs, 'job')}, {counted(copy.copied, 'key or entry', 'keys and entries')}"
        say(f"{path}: namespace {settings.namespace}, {counts}, {size:,} bytes")
        say("It holds prompts and answers, and hashes of API keys: keep it as they are kept.")
    return 0


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[str, int], None]]:
    """Show on a terminal how many keys are done; nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _event, _count: None
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} ...") as shown:
        yield lambda event, count: shown.update(f"{what}: {count:,} keys {event}")


def _product(runner: SyncRunner) -> str:
    try:
        return runner.run(info()).product
    except RedisRefused:
        return ""


def _entries(name: bytes, start: str) -> Call[list[tuple[bytes, list[bytes]]]]:
    def parse(raw: Any) -> list[tuple[bytes, list[bytes]]]:
        found = []
        for entry_id, fields in raw:
            flat = [part for pair in fields.items() for part in pair] if isinstance(fields, dict) else list(fields)
            found.append((entry_id, flat))
        return found

    return command("XRANGE", name, start, "+", "COUNT", ENTRIES_AT_ONCE, parse=parse)


def _fitting(at_once: int, size: int) -> int:
    """Choose how many keys to ask for at once, so that their values stay within a bound."""
    if size > BYTES_AT_ONCE:
        return max(FEWEST_AT_ONCE, at_once // 2)
    return min(MOST_AT_ONCE, at_once * 2) if size < BYTES_AT_ONCE // 4 else at_once


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in "*?[]\\^-" else character for character in text)
