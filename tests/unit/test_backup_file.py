"""A backup's file: what was written is read, and not one byte may be other or missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vessel.cli import backup_file
from vessel.cli.backup_file import BadBackup, Kind, Record, Writer, pack, read_header, records, unpack
from vessel.errors import VesselError

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = [
    Record(Kind.DUMP, b"job:1", 60_000, b"\x00\xff" * 100),
    Record(Kind.GONE, b"job:2"),
    Record(Kind.ENTRIES, b"ledger", 0, pack([b"1-0", pack([b"row", b"{}"])])),
    Record(Kind.DUMP, b"", 0, b""),
]


def _written(path: Path) -> bytes:
    with Writer(path, {"namespace": "n"}) as writer:
        for record in RECORDS:
            writer.add(record)
    return path.read_bytes()


def test_what_was_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one frame or in many, readable by its user only, and nothing is left beside it."""
    for size in (1, 1 << 20):
        monkeypatch.setattr(backup_file, "FRAME_BYTES", size)
        _written(tmp_path / "b")
        assert list(records(tmp_path / "b")) == RECORDS
    assert read_header(tmp_path / "b") == {"namespace": "n"}
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_shorter_file_is_not_whole(tmp_path: Path) -> None:
    """Wherever it was cut."""
    whole = _written(tmp_path / "b")
    for length in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:length])
        with pytest.raises(BadBackup):
            list(records(tmp_path / "b"))


def test_a_changed_byte_is_seen(tmp_path: Path) -> None:
    """In head, frames and end; so is something behind the end."""
    whole = _written(tmp_path / "b")
    for at in range(len(whole)):
        (tmp_path / "b").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BadBackup):
            list(records(tmp_path / "b"))
    (tmp_path / "b").write_bytes(whole + b"\n")
    with pytest.raises(BadBackup):
        list(records(tmp_path / "b"))


def test_a_failed_backup_leaves_the_old_one(tmp_path: Path) -> None:
    """What was there stays as it was, and no half file beside it."""
    whole = _written(tmp_path / "b")
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "b", {}):
        raise ZeroDivisionError
    assert (tmp_path / "b").read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_a_killed_one_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """It is overwritten; two that run at once do not mix."""
    (tmp_path / ".b.partial").write_bytes(b"half a file " * 1000)
    _written(tmp_path / "b")
    assert list(records(tmp_path / "b")) == RECORDS
    with Writer(tmp_path / "b", {}), pytest.raises(VesselError, match="Another backup"):
        Writer(tmp_path / "b", {}).__enter__()


def test_byte_strings_are_packed_apart() -> None:
    """Empty ones as well."""
    assert unpack(pack([b"", b"a", b"\x00" * 10])) == [b"", b"a", b"\x00" * 10]
