"""`usage_log.jsonl`: the ledger as the seed's lines, one per entry, never torn or doubled, rebuildable from Redis.

The file is its own cursor: each line names its entry, so a writer that died goes on after the last whole line.
"""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vessel.keyspace.script import Call, command, pairs, word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from vessel.keyspace.connect import AsyncRunner

PAGE = 500
TAIL_BYTES = 1 << 20
Entry = tuple[str, dict[str, bytes]]


def render(entry_id: str, fields: Mapping[str, bytes]) -> bytes:
    """Write one entry as its line: the time is that of Redis when the call ended."""
    at = datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC).isoformat()
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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            found = await runner.run(entries(self.ledger, self._cursor(file)))
            if any("amends" in fields for _, fields in found):
                await self._rebuild(runner)
                return False
            self._append(file, found)
        return len(found) == PAGE

    async def _rebuild(self, runner: AsyncRunner) -> None:
        """Write the whole ledger to a new file and put it in place of the old one."""
        partial = self.path.with_suffix(".rebuild")
        after = ""
        with partial.open("wb") as file:
            while found := await runner.run(entries(self.ledger, after)):
                self._append(file, found)
                after = found[-1][0]
        partial.chmod(0o600)
        partial.replace(self.path)

    async def rebuild(self, runner: AsyncRunner) -> None:
        """Rebuild the file from Redis; the ledger decides, the old file is replaced."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        await self._rebuild(runner)

    def _cursor(self, file: Any) -> str:
        """Return the last whole line's entry and cut a torn line behind it."""
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - TAIL_BYTES)
        file.seek(start)
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        if whole != len(tail):
            file.truncate(start + whole)
        file.seek(start + whole)
        last = tail[:whole].rstrip(b"\n").rpartition(b"\n")[2]
        return str(json.loads(last)["entry"]) if last else ""

    def _append(self, file: Any, found: Iterable[Entry]) -> None:
        lines = b"".join(render(entry_id, fields) for entry_id, fields in found)
        if lines:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
