"""The form of a backup: frames of compressed records, each with its checksum, and an end that vouches for the whole.

A file begins with MAGIC and one line of JSON. A frame is its length and CRC-32, then zlib of records; a record is its
kind, the milliseconds that its key has to live, its key and its payload. The last frame has the length of its JSON and
the kind END; a file without it is not whole. Later records of a key stand for earlier ones.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import struct
import zlib
from dataclasses import dataclass
from enum import Enum
from typing import IO, TYPE_CHECKING, Any, Self

from vessel.durable import sync_folder
from vessel.errors import VesselError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

MAGIC = b"VESSEL-BACKUP 1\n"
FRAME_BYTES = 1 << 20
LARGEST_FRAME = 1 << 30
_FRAME = struct.Struct(">cII")
_RECORD = struct.Struct(">cqI")
_LENGTH = struct.Struct(">I")


class BadBackup(VesselError):
    """The file is no whole backup; nothing was changed."""

    code = "bad_backup"
    exit_code = 2


class Kind(Enum):
    """What a record tells of its key."""

    DUMP = b"D"
    """Its value as DUMP gives it."""
    GONE = b"T"
    """It is not there any more."""
    ENTRIES = b"S"
    """Entries of a stream, to follow those before."""
    TRIM = b"M"
    """The first entry that a stream still has."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record; `ttl_ms` 0: for ever."""

    kind: Kind
    key: bytes
    ttl_ms: int = 0
    payload: bytes = b""


def pack(parts: Iterable[bytes]) -> bytes:
    """Put byte strings one behind the other, each with its length."""
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def unpack(payload: bytes) -> list[bytes]:
    """Take them apart again."""
    found, at = [], 0
    while at < len(payload):
        (length,) = _LENGTH.unpack_from(payload, at)
        found.append(payload[at + 4 : at + 4 + length])
        at += 4 + length
    return found


class Writer:
    """Writes a backup beside its place and puts it there once it is whole and on disk; two at once are refused."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        """Take where it is to be; what a killed one left beside it is overwritten."""
        self.path, self.partial = path, path.with_name(f".{path.name}.partial")
        self.records = 0
        self.written = 0
        self._header = header
        self._frame = bytearray()
        self._digest = hashlib.sha256()
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        """Open it. Raises VesselError where another backup writes it, OSError."""
        file = os.fdopen(os.open(self.partial, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise VesselError(f"Another backup to {self.path} is running. Nothing was written.") from None
        file.truncate(0)
        self._file = file
        self._write(MAGIC + json.dumps(self._header, separators=(",", ":")).encode() + b"\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Put it in its place, or remove it where something was raised."""
        assert self._file is not None  # noqa: S101  entered
        try:
            if kind is None:
                self._finish()
                self.partial.replace(self.path)
                sync_folder(self.path.parent)
            else:
                self.partial.unlink(missing_ok=True)
        finally:
            self._file.close()

    def add(self, record: Record) -> None:
        """Write a record."""
        self._frame += _RECORD.pack(record.kind.value, record.ttl_ms, len(record.key))
        self._frame += record.key + _LENGTH.pack(len(record.payload)) + record.payload
        self.records += 1
        if len(self._frame) >= FRAME_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._frame:
            packed = zlib.compress(bytes(self._frame), 1)
            self._write(_FRAME.pack(b"F", len(packed), zlib.crc32(packed)) + packed)
            self._frame.clear()

    def _finish(self) -> None:
        self._flush()
        end = json.dumps({"records": self.records, "sha256": self._digest.hexdigest()}).encode()
        self._write(_FRAME.pack(b"E", len(end), zlib.crc32(end)) + end)
        assert self._file is not None  # noqa: S101  entered
        self._file.flush()
        os.fsync(self._file.fileno())

    def _write(self, data: bytes) -> None:
        assert self._file is not None  # noqa: S101  entered
        self._file.write(data)
        self._digest.update(data)
        self.written += len(data)


def read_header(path: Path) -> dict[str, Any]:
    """Read what a backup says of itself. Raises BadBackup, OSError."""
    with path.open("rb") as file:
        return _header(file, path)


def records(path: Path) -> Iterator[Record]:
    """Read every record, a frame at a time. Raises BadBackup at the first byte that is not as it was written."""
    digest = hashlib.sha256()
    count = 0
    with path.open("rb") as file:
        _header(file, path)
        end = file.tell()
        file.seek(0)
        digest.update(file.read(end))
        while True:
            head = file.read(_FRAME.size)
            if len(head) < _FRAME.size:
                raise BadBackup(f"{path} ends in the middle: it is not whole. Nothing was changed.")
            kind, length, crc = _FRAME.unpack(head)
            packed = file.read(length) if length <= LARGEST_FRAME else b""
            if kind not in {b"F", b"E"} or len(packed) != length or zlib.crc32(packed) != crc:
                raise BadBackup(f"{path} is damaged at byte {file.tell()}. Nothing was changed.")
            if kind == b"E":
                told = json.loads(packed)
                if told != {"records": count, "sha256": digest.hexdigest()} or file.read(1):
                    raise BadBackup(f"{path} is not as it was written. Nothing was changed.")
                return
            digest.update(head + packed)
            for record in _records(zlib.decompress(packed)):
                count += 1
                yield record


def _records(frame: bytes) -> Iterator[Record]:
    at = 0
    while at < len(frame):
        kind, ttl, length = _RECORD.unpack_from(frame, at)
        at += _RECORD.size
        key, at = frame[at : at + length], at + length
        (size,) = _LENGTH.unpack_from(frame, at)
        at += 4
        yield Record(Kind(kind), key, ttl, frame[at : at + size])
        at += size


def _header(file: IO[bytes], path: Path) -> dict[str, Any]:
    if file.read(len(MAGIC)) != MAGIC:
        raise BadBackup(f"{path} is no backup that this version of Vessel can read. Nothing was changed.")
    try:
        found = json.loads(file.readline(1 << 16))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadBackup(f"{path} has no readable head. Nothing was changed.")
    return found
