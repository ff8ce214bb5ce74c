"""The key is read where it lies now and shown nowhere."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING

import pytest

from vessel.upstream.keys import LONGEST_FILE, LONGEST_KEY, REFUSED_FOR_S, KeySource

if TYPE_CHECKING:
    from pathlib import Path


def test_a_given_key_is_stripped() -> None:
    """A newline from an env file does not end up in a header."""
    assert KeySource(" gsk_a\n").current() == "gsk_a"


@pytest.mark.parametrize("key", [None, "", "  ", "gsk a", "gsk\x00a", "gsk_\u00e9", "gsk\r\nx: y"])
def test_what_cannot_be_a_header_is_no_key(key: str | None) -> None:
    """An unusable key is told as a missing one, not as an exception that quotes it."""
    assert KeySource(key).current() is None


def test_a_key_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A rotation needs no restart, whether the file is rewritten or replaced."""
    file = tmp_path / "key"
    file.write_text("gsk_one\n")
    keys = KeySource(key_file=file)
    assert keys.current() == "gsk_one"
    file.write_text("gsk_two\n")
    assert keys.current() == "gsk_two"
    (tmp_path / "new").write_text("gsk_six\n")
    (tmp_path / "new").replace(file)
    assert keys.current() == "gsk_six"


def test_an_unchanged_settled_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call asks for the key, so an old file costs a stat and nothing else."""
    file = tmp_path / "key"
    file.write_text("gsk_one")
    os.utime(file, (1_000_000_000, 1_000_000_000))
    keys = KeySource(key_file=file)
    assert keys.current() == "gsk_one"
    monkeypatch.setattr("vessel.upstream.keys._read", lambda _path: ("read again",))
    assert keys.current() == "gsk_one"


def test_a_file_taken_away_leaves_no_key_and_may_come_back(tmp_path: Path) -> None:
    """A key that the operator removed is not remembered, and the given one does not stand in for it."""
    file = tmp_path / "key"
    keys = KeySource("gsk_given", file)
    assert keys.current() is None
    file.write_text("gsk_one")
    assert keys.current() == "gsk_one"
    file.unlink()
    assert keys.current() is None


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\xff\xfe", b"a" * (LONGEST_KEY + 1), b"a\n" * LONGEST_FILE, b"two words"]
)
def test_a_file_that_holds_no_key_is_no_key(tmp_path: Path, content: bytes) -> None:
    """Half-written and wrong files pause the work instead of breaking it."""
    file = tmp_path / "key"
    file.write_bytes(content)
    assert KeySource(key_file=file).current() is None


def test_odd_files_neither_block_nor_raise(tmp_path: Path) -> None:
    """A FIFO without a writer and a directory are no keys."""
    os.mkfifo(tmp_path / "fifo")
    assert KeySource(key_file=tmp_path / "fifo").current() is None
    assert KeySource(key_file=tmp_path).current() is None


def test_the_key_is_never_shown(tmp_path: Path) -> None:
    """Neither the repr nor the str of a source holds a part of the key, and it has no attribute dict to dump."""
    (tmp_path / "key").write_text("gsk_secret")
    for keys in (KeySource("gsk_secret"), KeySource(key_file=tmp_path / "key")):
        keys.current()
        assert "secret" not in f"{keys!r} {keys}"
        assert not hasattr(keys, "__dict__")


def test_a_source_cannot_be_pickled_by_accident() -> None:
    """A key in a pickle would travel with whatever holds it."""
    with pytest.raises(TypeError):
        pickle.dumps(KeySource("gsk_secret"))


def test_the_next_key_stands_in_for_a_refused_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first good line counts; once refused it is passed over for a while, then tried again."""
    now = 1000.0
    monkeypatch.setattr("vessel.upstream.keys.time.monotonic", lambda: now)
    (tmp_path / "key").write_text("# of October\n gsk_one\n\ngsk two\ngsk_two\ngsk_one\n")
    keys = KeySource(key_file=tmp_path / "key")
    assert keys.all() == ("gsk_one", "gsk_two")
    assert keys.current() == "gsk_one"
    assert keys.refuse("gsk_one") == "gsk_two"
    assert keys.current() == "gsk_two"
    now += REFUSED_FOR_S
    assert keys.current() == "gsk_one"


def test_when_all_keys_are_refused_each_is_asked_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is offered twice for one call, and later ones ask with the key that was refused longest ago."""
    now = 1000.0
    monkeypatch.setattr("vessel.upstream.keys.time.monotonic", lambda: now)
    (tmp_path / "key").write_text("gsk_one\ngsk_two\n")
    keys = KeySource(key_file=tmp_path / "key")
    assert keys.refuse("gsk_one") == "gsk_two"
    now += 1
    assert keys.refuse("gsk_two") is None
    assert keys.current() == "gsk_one"
    now += 1
    assert keys.refuse("gsk_one") is None
    assert keys.current() == "gsk_two"


def test_a_changed_file_clears_what_was_refused(tmp_path: Path) -> None:
    """Whoever edits the file expects that it is tried at once."""
    file = tmp_path / "key"
    file.write_text("gsk_one\ngsk_two\n")
    keys = KeySource(key_file=file)
    assert keys.refuse("gsk_one") == "gsk_two"
    file.write_text("gsk_one\ngsk_three\n")
    assert keys.current() == "gsk_one"


def test_a_refused_single_key_is_used_on(tmp_path: Path) -> None:
    """There is no other; the gate holds calls back, and the looks it lets pass need a key."""
    (tmp_path / "key").write_text("gsk_one\n")
    for keys in (KeySource("gsk_one"), KeySource(key_file=tmp_path / "key")):
        assert keys.refuse("gsk_one") is None
        assert keys.current() == "gsk_one"
