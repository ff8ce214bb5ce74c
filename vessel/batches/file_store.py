"""The only writer of files: bytes are put there first, and one step makes them a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.batches.model import CHUNK, FILE_DAYS, FileNotFound, StoredFile, read_file
from vessel.errors import IdempotencyConflict
from vessel.keyspace.script import Arg, Call, command, load, pairs, timed, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.keyspace.names import Keys

DAY_MS = 86_400_000
UPLOAD_MS = 3_600_000
"""How long bytes wait for their file: those of an upload that was cut go by themselves."""

AGAIN_MS = 15 * 60_000
"""For how long a request that an SDK repeats by itself finds what the first one made (contract 5)."""

LIST_MS = (FILE_DAYS + 15) * DAY_MS


@dataclass(frozen=True, slots=True)
class Once:
    """What makes a request the same as an earlier one: its key, or that an SDK repeats it by itself."""

    key: str | None = None
    repeated: bool = False


NO_REPEAT = Once()


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file about to be made of chunks that lie in Redis already."""

    id: str
    tenant: str
    filename: str
    purpose: str
    size: int
    lines: int
    digest: str
    keep_ms: int = FILE_DAYS * DAY_MS


@dataclass(frozen=True, slots=True)
class FileStore:
    """Build the calls that change and read files, and the lists of a tenant's files and batches."""

    keys: Keys

    def put(self, file_id: str, number: int, chunk: bytes) -> Call[str]:
        """Keep one chunk for an hour, for a file that is made of it."""
        return command("SET", self.keys.chunk(file_id, number), chunk, "PX", UPLOAD_MS, parse=word)

    def discard(self, file_id: str, chunks: int) -> Call[int]:
        """Forget the chunks of a file that is not made."""
        return command("DEL", *(self.keys.chunk(file_id, n) for n in range(max(1, chunks))), parse=int)

    def commit_file(self, new: NewFile, once: Once) -> Call[str]:
        """Make the file: answers its id, or that of the first one of a repeated request.

        Raises IdempotencyConflict, and FileNotFound where its bytes waited too long.
        """
        file_hash = hashlib.sha256(f"{new.digest} {new.filename} {new.purpose}".encode()).hexdigest()
        names = {
            "file": self.keys.file(new.id),
            "files": self.keys.files(new.tenant),
            "key": self.keys.once(new.tenant, f"file key {once.key}"),
            "again": self.keys.once(new.tenant, f"file {file_hash}"),
        }
        args: dict[str, Arg] = once_args(once, file_hash) | {
            "id": new.id,
            "keep_ms": new.keep_ms,
            "list_ms": LIST_MS,
            "filename": new.filename,
            "purpose": new.purpose,
            "bytes": new.size,
            "lines": new.lines,
            "tenant": new.tenant,
        }
        chunks = [self.keys.chunk(new.id, n) for n in range(-(-new.size // CHUNK))]

        def parse(raw: Sequence[Any]) -> str:
            answer, file_id = word(raw[0]), word(raw[1])
            if answer == "conflict":
                raise IdempotencyConflict
            if answer == "lost":
                raise FileNotFound("The upload took longer than an hour and was given up. Send it again.")
            return file_id

        return load("commit_file").call(names, args, parse, more_keys=chunks)

    def file(self, file_id: str) -> Call[StoredFile | None]:
        """Read a file's record."""
        return command("HGETALL", self.keys.file(file_id), parse=lambda raw: read_file(pairs(raw)))

    def chunk(self, file_id: str, number: int) -> Call[bytes]:
        """Read one chunk; empty where it is gone."""
        return command("GET", self.keys.chunk(file_id, number), parse=lambda raw: raw or b"")

    def range(self, file_id: str, offset: int, length: int) -> list[Call[bytes]]:
        """Read some bytes of a file, in parts to be joined."""
        calls = []
        while length > 0:
            number, at = divmod(offset, CHUNK)
            part = min(length, CHUNK - at)
            calls.append(command("GETRANGE", self.keys.chunk(file_id, number), at, at + part - 1, parse=bytes))
            offset, length = offset + part, length - part
        return calls

    def readers(self, file_id: str) -> Call[list[str]]:
        """Name the batches that were made of a file."""
        return command("SMEMBERS", self.keys.chunk_readers(file_id), parse=lambda raw: sorted(map(word, raw)))

    def drop_file(self, file: StoredFile, readers_seen: int) -> Call[str]:
        """Delete a file none of whose readers, as they were seen, is open: deleted, missing or in_use."""
        names = {
            "file": self.keys.file(file.id),
            "files": self.keys.files(file.tenant),
            "gone": self.keys.gone_files(self.keys.files(file.tenant)),
            "readers": self.keys.chunk_readers(file.id),
        }
        chunks = [self.keys.chunk(file.id, n) for n in range(file.chunks)]
        args: dict[str, Arg] = {"id": file.id, "readers_seen": readers_seen}
        return load("drop_file").call(names, args, word, more_keys=chunks)

    def page(self, key: str, start: int, count: int) -> Call[list[tuple[str, int]]]:
        """Read ids of a tenant's files or batches, newest first, with their creation time."""
        return command("ZREVRANGE", key, start, start + count - 1, "WITHSCORES", parse=timed)

    def rank(self, key: str, member: str) -> Call[int | None]:
        """Tell the place of an id in a tenant's list, newest first."""
        return command("ZREVRANK", key, member, parse=lambda raw: None if raw is None else int(raw))

    def gone_at(self, key: str, member: str) -> Call[float | None]:
        """Tell when an id was created that was deleted from a tenant's list lately."""
        return command(
            "ZSCORE", self.keys.gone_files(key), member, parse=lambda raw: None if raw is None else float(raw)
        )

    def newer(self, key: str, created: float) -> Call[int]:
        """Count what was created after a moment."""
        return command("ZCOUNT", key, f"({created:.0f}", "+inf", parse=int)


def once_args(once: Once, given_hash: str) -> dict[str, Arg]:
    """Give the arguments of scripts that find what an earlier request made."""
    return {
        "hash": given_hash,
        "use_key": "1" if once.key else "0",
        "attach": "1" if once.repeated else "0",
        "again_ms": AGAIN_MS,
    }
