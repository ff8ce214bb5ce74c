"""`usage_log.jsonl`: the ledger as the seed's lines, one per entry, never torn or doubled, rebuildable from Redis.

The file is its own cursor: each line names its entry, so a writer that died goes on after the last whole line. A full
file is renamed to `usage_log.<time of its last line>.jsonl` in the same step that begins the next one.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import escape
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

from vessel.durable import sync_folder
from vessel.keyspace.script import Call, command, pairs, word
from vessel.observe.moments import moment

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from vessel.keyspace.connect import AsyncRunner

PAGE = 500
TAIL_BYTES = 1 << 16
DAY_MS = 86_400_000
Entry = tuple[str, dict[str, bytes]]
T = TypeVar("T")
P = ParamSpec("P")


def at_ms(entry_id: str) -> int:
    """Return when an entry was written, by Redis' clock."""
    return int(entry_id.partition("-")[0])


def render(entry_id: str, fields: Mapping[str, bytes]) -> bytes:
    """Write one entry as its line: the time is that of Redis when the call ended."""
    head = json.dumps({"timestamp": moment(at_ms(entry_id))}, separators=(",", ":"))[:-1]
    tail = json.dumps({"outcome": fields["outcome"].decode(), "entry": entry_id}, separators=(",", ":"))[1:]
    return f"{head},{fields['row'].decode()[1:-1]},{tail}\n".encode()


def entries(ledger: str, after: str, count: int = PAGE) -> Call[list[Entry]]:
    """Read ledger entries after an id, oldest first."""

    def parse(raw: Any) -> list[Entry]:
        return [(word(entry_id), pairs(fields)) for entry_id, fields in raw]

    return command("XRANGE", ledger, f"({after}" if after else "-", "+", "COUNT", count, parse=parse)


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a log begins a new file: above so many bytes (0: never for its size), and where `daily` at midnight UTC."""

    max_bytes: int = 0
    daily: bool = False


class UsageLog:
    """Follows the ledger into one file. At most one writer at a time: a role lease between hosts, flock on one.

    Files are read and written in a thread: a disk that is slow, or full files that are searched for a guess, must not
    hold up the calls and leases of the process.
    """

    def __init__(self, path: Path, ledger: str, rotation: Rotation | None = None) -> None:
        """Name the file and the ledger's stream."""
        self.path, self.ledger, self.rotation = path, ledger, rotation or Rotation()
        self.written = ""
        """The last entry that is safely in the file, as of the last look; nothing up to it is written again."""
        self.level = False
        """Whether the last look left the whole ledger in the file; not so where another writer has it."""
        self._looked_back_from = ""

    async def follow(self, runner: AsyncRunner) -> bool:
        """Append what is new; an amended entry replaces its line. Returns whether there may be more at once."""
        self.written, self.level = "", False
        with self._locked() as file:
            if file is None:
                return False
            last = await _in_thread(_cut_torn, file)
            after = last or await _in_thread(self._archived)
            found = await runner.run(entries(self.ledger, after))
            if after and not found and (before := await self._before_its_time(runner, file, after)):
                last = after = before
                found = await runner.run(entries(self.ledger, after))
            gone = {fields["amends"] for _, fields in found if "amends" in fields}
            if bool(gone) and await _in_thread(self._drop, gone):
                return True  # the log is another file now
            done = await _in_thread(self._append, file, last, found) if found else 0
            self.written = found[done - 1][0] if done else after
        self.level = done == len(found) < PAGE
        return not self.level

    async def _before_its_time(self, runner: AsyncRunner, file: IO[bytes], last: str) -> str:
        """Name the last entry that the ledger can have written, where the file's last one is later than all of them.

        A line of another ledger, or of a clock that was wrong, would else hold up all others until its time comes.
        """
        newest = await runner.run(_newest(self.ledger))
        if newest == self._looked_back_from or not _is_later(last, newest):
            return ""
        self._looked_back_from = newest
        return await _in_thread(_last_up_to, file, newest)

    def archives(self) -> list[Path]:
        """List the full files that are still beside the log, oldest first."""
        return sorted(self.path.parent.glob(f"{escape(self.path.stem)}.[0-9]*T*-*{escape(self.path.suffix)}"))

    def _archived(self) -> str:
        """Return the last entry of the newest full file: the cursor where the log itself has no line yet."""
        for path in reversed(self.archives()):
            with path.open("rb") as file:
                if found := _last_of(file)[0]:
                    return found
        return ""

    def _append(self, file: IO[bytes], last: str, found: Sequence[Entry]) -> int:
        """Write lines up to where the file is full, and put it aside then; returns how many were written."""
        size, lines = file.tell(), list[bytes]()
        for entry_id, fields in found:
            line = render(entry_id, fields)
            if last and self._is_full(last, entry_id, size + len(line)):
                break
            lines.append(line)
            last, size = entry_id, size + len(line)
        if lines:
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        if len(lines) < len(found):
            self._put_aside(last)
        return len(lines)

    def _is_full(self, last: str, entry_id: str, size: int) -> bool:
        over_day = self.rotation.daily and at_ms(last) // DAY_MS != at_ms(entry_id) // DAY_MS
        return over_day or 0 < self.rotation.max_bytes < size

    def _put_aside(self, last: str) -> None:
        """Rename the full log by its last entry; whoever follows next begins a new one behind that entry."""
        at = datetime.fromtimestamp(at_ms(last) / 1000, UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
        stamp = "".join(c for c in at if c.isalnum())
        number = int(last.partition("-")[2])
        while (aside := self.path.with_name(f"{self.path.stem}.{stamp}-{number:04}{self.path.suffix}")).exists():
            number += 1
        self.path.rename(aside)
        sync_folder(self.path.parent)

    def _drop(self, gone: Collection[bytes]) -> bool:
        """Take the lines of entries that are no more out of the files; tells whether the log itself was replaced."""
        first = min(at_ms(entry.decode()) for entry in gone)
        for path in self.archives():
            with path.open("rb") as file:
                last = _last_of(file)[0]
            if not last or at_ms(last) >= first:  # else it was full before any of them was booked
                _without(path, gone)
        return _without(self.path, gone)

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes] | None]:
        """Open the file and lock it; None when another writer has it, or has just put another one in its place."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = os.path.samestat(os.fstat(file.fileno()), self.path.stat())
            except (BlockingIOError, FileNotFoundError):
                current = False
            yield file if current else None


async def _in_thread(work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """Do work in a thread. Who is cancelled waits for it, as the file is locked only until then."""
    working = asyncio.ensure_future(asyncio.to_thread(work, *given, **named))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        raise


def _last_of(file: IO[bytes]) -> tuple[str, int, int]:
    """Return the entry of the last line that names one, where the last whole line ends, and the file's size."""
    size = start = file.seek(0, os.SEEK_END)
    step, whole, found = TAIL_BYTES, 0, ""
    while start > 0 and not found:
        start, step = max(0, start - step), step * 2
        file.seek(start)
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        found = _last_entry(tail[:whole])
    return found, start + whole, size


def _cut_torn(file: IO[bytes]) -> str:
    """Return the last entry, and cut a torn line behind the last whole one; the file stands at its end then."""
    found, end, size = _last_of(file)
    if end != size:
        file.truncate(end)
    file.seek(end)
    return found


def _last_entry(lines: bytes) -> str:
    """Name the entry of the last of our lines; a line of another program, as the seed's, has none."""
    for line in reversed(lines.splitlines()):
        if found := _entry_of(line):
            return found
    return ""


def _last_up_to(file: IO[bytes], newest: str) -> str:
    """Name the last entry in the file that is not later than this one; the file stands at its end then."""
    file.seek(0)
    found = ""
    for line in file:
        entry = _entry_of(line)
        if entry and not _is_later(entry, newest):
            found = entry
    return found


def _is_later(one: str, other: str) -> bool:
    """Compare two entries; that of an empty ledger is later than none."""
    (at, number), (other_at, other_number) = (entry.split("-") for entry in (one, other or "0-0"))
    return bool(other) and (int(at), int(number)) > (int(other_at), int(other_number))


def _newest(ledger: str) -> Call[str]:
    return command("XREVRANGE", ledger, "+", "-", "COUNT", 1, parse=lambda raw: word(raw[0][0]) if raw else "")


def _entry_of(line: bytes) -> str:
    if b'"entry"' not in line:
        return ""
    try:
        found = json.loads(line)["entry"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) and re.fullmatch(r"\d+-\d+", found) else ""


def _without(path: Path, gone: Collection[bytes]) -> bool:
    """Replace a file by one without the lines of these entries, whole or not at all; tells whether it had any."""
    names = {name.decode() for name in gone}

    def is_gone(line: bytes) -> bool:
        return any(name in line for name in gone) and _entry_of(line) in names

    with path.open("rb") as file:
        if not any(is_gone(line) for line in file):
            return False
        file.seek(0)
        partial = path.with_name(f"{path.name}.partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as kept:
            kept.writelines(line for line in file if not is_gone(line))
            kept.flush()
            os.fsync(kept.fileno())
    partial.replace(path)
    sync_folder(path.parent)
    return True
