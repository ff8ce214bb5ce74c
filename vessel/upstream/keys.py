"""The Groq key: given, or in a file that is read again when it changes, so a key rotates without a restart."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_KEY = 4096
_SETTLED_NS = 2_000_000_000


class KeySource:
    """Hold where the key comes from; the key itself is in no repr, no log and no error text.

    With a file given, only the file counts: a key that is taken away stops the calls instead of being remembered.
    """

    __slots__ = ("_file", "_given", "_held", "_stamp")

    def __init__(self, key: str | None = None, key_file: Path | None = None) -> None:
        """Take the key, the file that holds it, or both; nothing is read yet."""
        self._given = _usable(key or "")
        self._file = key_file
        self._held: str | None = None
        self._stamp: tuple[int, int, int] | None = None

    def current(self) -> str | None:
        """Return the key to use now; None when there is none, or when what is there cannot be an HTTP header value."""
        if self._file is None:
            return self._given
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                self._held = _read(self._file)
                # A file rewritten twice within one tick of the file system's clock keeps its stamp, so a young
                # file is read every time until it has settled.
                self._stamp = stamp if time.time_ns() - found.st_mtime_ns > _SETTLED_NS else None
        except OSError:
            self._held, self._stamp = None, None
        return self._held

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled or copied: the key would travel with whatever holds it."""
        raise TypeError("a KeySource is not picklable")

    def __repr__(self) -> str:
        """Say where the key comes from, never what it is."""
        return f"KeySource({'file' if self._file else 'given' if self._given else 'none'})"


def _read(path: Path) -> str | None:
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:  # Path.open takes no opener
        content = file.read(LONGEST_KEY + 1) or b""
    return _usable(content.decode("latin-1")) if len(content) <= LONGEST_KEY else None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO without a writer must not hold up the event loop


def _usable(text: str) -> str | None:
    key = text.strip().strip("\ufeff").strip()
    return key if key and all("\x21" <= character <= "\x7e" for character in key) else None
