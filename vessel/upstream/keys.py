"""The Groq keys: one given, or those in a file that is read again when it changes, so keys rotate without a restart."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NoReturn

from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_KEY = 4096
LONGEST_FILE = 64 * 1024
REFUSED_FOR_S = 60.0
"""How long a key that was refused is passed over while another one is good."""
_SETTLED_NS = 2_000_000_000

log = get_logger(__name__)


class KeySource:
    """Hold where the keys come from; a key itself is in no repr, no log and no error text.

    With a file given, only the file counts: a key that is taken away stops the calls instead of being remembered. A
    file may hold several keys of one organisation, one a line, `#` begins a comment: the first one is used, and the
    next ones while those before are refused.
    """

    __slots__ = ("_file", "_given", "_held", "_refused", "_stamp")

    def __init__(self, key: str | None = None, key_file: Path | None = None) -> None:
        """Take the key, the file that holds it, or both; nothing is read yet."""
        self._given = _usable(key or "")
        self._file = key_file
        self._held: tuple[str, ...] = ()
        self._refused: dict[str, float] = {}
        self._stamp: tuple[int, int, int] | None = None

    def all(self) -> tuple[str, ...]:
        """Return every usable key, in the order of the file; one that cannot be an HTTP header value is none."""
        if self._file is None:
            return (self._given,) if self._given else ()
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp != self._stamp:
                self._hold(_read(self._file))
                # A file rewritten twice within one tick of the file system's clock keeps its stamp, so a young
                # file is read every time until it has settled.
                self._stamp = stamp if time.time_ns() - found.st_mtime_ns > _SETTLED_NS else None
        except OSError:
            self._held, self._stamp = (), None
        return self._held

    def current(self) -> str | None:
        """Return the key to use now: the first that was not refused lately, else the one refused longest ago."""
        found = self.all()
        if len(found) < 2:  # noqa: PLR2004  nothing to choose from
            return found[0] if found else None
        now = time.monotonic()
        for key in found:
            if now >= self._refused.get(key, 0.0):
                return key
        return min(found, key=lambda key: self._refused[key])

    def refuse(self, key: str) -> str | None:
        """Note that Groq does not take a key; returns the one to try in its place at once, if there is any."""
        found = self.all()
        if key in found:
            now = time.monotonic()
            if len(found) > 1 and now >= self._refused.get(key, 0.0):  # of a single one the gate tells
                log.warning("key.refused", place=found.index(key) + 1, of=len(found), then="the next one is used")
            self._refused[key] = now + REFUSED_FOR_S
        other = self.current()
        return other if other is not None and other != key and not self._is_refused(other) else None

    def _is_refused(self, key: str) -> bool:
        return time.monotonic() < self._refused.get(key, 0.0)

    def _hold(self, keys: tuple[str, ...]) -> None:
        if keys != self._held:  # somebody has looked after them, so each is worth another try
            self._held, self._refused = keys, {}

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled or copied: the key would travel with whatever holds it."""
        raise TypeError("a KeySource is not picklable")

    def __repr__(self) -> str:
        """Say where the key comes from, never what it is."""
        return f"KeySource({'file' if self._file else 'given' if self._given else 'none'})"


def _read(path: Path) -> tuple[str, ...]:
    with open(path, "rb", buffering=0, opener=_open_at_once) as file:  # Path.open takes no opener
        content = file.read(LONGEST_FILE + 1) or b""
    if len(content) > LONGEST_FILE:
        return ()
    lines = content.decode("latin-1").removeprefix("\xef\xbb\xbf").splitlines()
    keys = (_usable(line) for line in lines if not line.lstrip().startswith("#"))
    return tuple(dict.fromkeys(key for key in keys if key))


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO without a writer must not hold up the event loop


def _usable(text: str) -> str | None:
    key = text.strip().strip("\ufeff").strip()
    return key if 0 < len(key) <= LONGEST_KEY and all("\x21" <= character <= "\x7e" for character in key) else None
