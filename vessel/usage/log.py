"""`usage_log.jsonl`: the ledger as the seed's lines, one per entry, never torn or doubled, rebuildable from Redis.

The file is its own cursor: each line names its entry, so a writer that died goes on after the last whole line.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any

from vessel.keyspace.script import Call, command, pairs, word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from vessel.keyspace.connect import AsyncRunner

PAGE = 500
TAIL_BYTES = 1 << 16
Entry = tuple[str, dict[str, bytes]]


def render(entry_id: str, fields: Mapping[str, bytes]) -> bytes:
    """Write one entry as its line: the time is that of Redis when the call ended."""
    at = datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC).isoformat(timespec="milliseconds")
    head = json.dumps({"timestamp": at}, separators=(",", ":"))[:-1]
    tail = json.dumps({"outcome": fields["outcome"].decode(), "entry": entry_id}, separators=(",", ":"))[1:]
    return f"{head},{fields['row'].decode()[1:-1]},{tail}\n".encode()


def entries(ledger: str, after: str, count: int = PAGE) -> Call[list[Entry]]:
    """Read ledger entries after an id, oldest first."""

    def parse(raw: Any) -> list[Entry]:
        return [(word(entry_id), pairs(fields)) for entry_id, fields in raw]

    return command("XRANGE", ledger, f"({after}" if after else "-", "+", "COUNT", count, parse=parse)


class UsageLog:
    """Follows the ledger into one file. At most one writer at a time: a role lease between hosts, flock on one."""

    def __init__(self, path: Path, ledger: str) -> None:
        """Name the file and the ledger's stream."""
        self.path, self.ledger = path, ledger

    async def follow(self, runner: AsyncRunner) -> bool:
        """Append what is new; an amended entry rebuilds the file. Returns whether there may be more at once."""
        with self._locked() as file:
            if file is None:
                return False
            found = await runner.run(entries(self.ledger, _cursor(file)))
            if any("amends" in fields for _, fields in found):
                await self._rebuild(runner)
                return False
            _append(file, found)
        return len(found) == PAGE

    async def rebuild(self, runner: AsyncRunner) -> bool:
        """Rebuild our lines from Redis, which decides. False: another writer is at it, nothing was changed."""
        with self._locked() as file:
            if file is None:
                return False
            await self._rebuild(runner)
        return True

    async def _rebuild(self, runner: AsyncRunner) -> None:
        """Write what is not ours and the whole ledger to a new file, and put it in place of the old one.

        The old file's lock is held.
        """
        partial = self.path.with_name(f"{self.path.name}.rebuild")
        after = ""
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "r+b") as file:
            file.writelines(_foreign(self.path))
            while found := await runner.run(entries(self.ledger, after)):
                _append(file, found)
                after = found[-1][0]
        partial.replace(self.path)

    @contextmanager
    def _locked(self) -> Iterator[IO[bytes] | None]:
        """Open the file and lock it; None when another writer has it, or has just put a rebuilt one in its place."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = os.path.samestat(os.fstat(file.fileno()), self.path.stat())
            except (BlockingIOError, FileNotFoundError):
                current = False
            yield file if current else None


def _cursor(file: IO[bytes]) -> str:
    """Return the entry of the last line that names one, and cut a torn line behind the last whole one."""
    size = start = file.seek(0, os.SEEK_END)
    step, whole, found = TAIL_BYTES, 0, ""
    while start > 0 and not found:
        start, step = max(0, start - step), step * 2
        file.seek(start)
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        found = _last_entry(tail[:whole])
    if start + whole != size:
        file.truncate(start + whole)
    file.seek(start + whole)
    return found


def _last_entry(lines: bytes) -> str:
    """Name the entry of the last of our lines; a line of another program, as the seed's, has none."""
    for line in reversed(lines.splitlines()):
        if b'"entry"' in line:
            try:
                return str(json.loads(line)["entry"])
            except (ValueError, KeyError, TypeError):
                continue
    return ""


def _foreign(path: Path) -> Iterator[bytes]:
    """Read the whole lines that another program wrote, as the seed's own: Redis could not give them again."""
    with path.open("rb") as file:
        yield from (line for line in file if b'"entry"' not in line and line.endswith(b"\n"))


def _append(file: IO[bytes], found: Iterable[Entry]) -> None:
    lines = b"".join(render(entry_id, fields) for entry_id, fields in found)
    if lines:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
