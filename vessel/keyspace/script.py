"""Lua scripts as typed calls: the header of a .lua file names its KEYS and ARGV, and Python must give exactly those.

A header line `-- KEYS: job events` becomes `local job, events = KEYS[1], KEYS[2]`; `-- ARGV: id *rest` means that any
number of further arguments may follow (KEYS likewise), from the index MORE_ARGS (MORE_KEYS) on. `-- include: name`
pulls in `lua/include/name.lua`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Arg = str | bytes | int | float

_HEADER = re.compile(r"^-- (KEYS|ARGV):(.*)$", re.MULTILINE)
_INCLUDE = re.compile(r"^-- include: (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One Redis command, ready to run by either runner, and how to read its answer."""

    command: tuple[Arg, ...]
    parse: Callable[[Any], T]
    script: Script | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script with its named KEYS and ARGV."""

    name: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    open_keys: bool
    open_args: bool
    text: str = field(repr=False)
    sha: str = ""

    def call(
        self,
        keys: Mapping[str, str],
        args: Mapping[str, Arg],
        parse: Callable[[Any], T],
        *,
        more_keys: Sequence[str] = (),
        more_args: Sequence[Arg] = (),
    ) -> Call[T]:
        """Bind the script's names; raise TypeError where a name is missing, unknown or not open-ended."""
        missing = [n for n in self.keys if n not in keys] + [n for n in self.args if n not in args]
        unknown = [n for n in args if n not in self.args]
        if missing or unknown or (more_keys and not self.open_keys) or (more_args and not self.open_args):
            raise TypeError(f"{self.name}.lua: missing {missing}, unknown {unknown}")
        named = [keys[n] for n in self.keys]
        command: tuple[Arg, ...] = ("EVALSHA", self.sha, len(named) + len(more_keys), *named, *more_keys)
        return Call((*command, *(args[n] for n in self.args), *more_args), parse, self)


def _read(path: str) -> str:
    return resources.files("vessel.keyspace").joinpath("lua", path).read_text("utf-8")


def _names(text: str, kind: str) -> tuple[tuple[str, ...], bool]:
    found = [line for which, line in _HEADER.findall(text) if which == kind]
    words = " ".join(found).split()
    return tuple(w for w in words if not w.startswith("*")), any(w.startswith("*") for w in words)


def _preamble(names: Sequence[str], table: str, *, is_open: bool) -> str:
    given = ""
    if names:
        given = f"local {', '.join(names)} = " + ", ".join(f"{table}[{i}]" for i in range(1, len(names) + 1)) + "\n"
    return given + (f"local MORE_{'KEYS' if table == 'KEYS' else 'ARGS'} = {len(names) + 1}\n" if is_open else "")


@cache
def load(name: str) -> Script:
    """Load `lua/<name>.lua` with its includes; the names of its header become locals."""
    source = _read(f"{name}.lua")
    keys, open_keys = _names(source, "KEYS")
    args, open_args = _names(source, "ARGV")
    includes = "".join(_read(f"include/{inc}.lua") for inc in _INCLUDE.findall(source))
    text = includes + _preamble(keys, "KEYS", is_open=open_keys) + _preamble(args, "ARGV", is_open=open_args) + source
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, keys, args, open_keys, open_args, text, sha)


def known(name: str) -> Call[str]:
    """Make the server know a script before it is called."""
    return command("SCRIPT", "LOAD", load(name).text, parse=word)


def script_names() -> list[str]:
    """List every script that is shipped."""
    folder = resources.files("vessel.keyspace").joinpath("lua")
    return sorted(f.name.removesuffix(".lua") for f in folder.iterdir() if f.name.endswith(".lua"))


def command(*parts: Arg, parse: Callable[[Any], T]) -> Call[T]:
    """Wrap a plain Redis command as a call, so that runners treat it like a script."""
    return Call(parts, parse)


def word(value: bytes | str | int | None) -> str:
    """Read one answer of Redis as text; nil is the empty text."""
    if value is None:
        return ""
    return value.decode() if isinstance(value, bytes) else str(value)


def words(raw: Iterable[bytes | str]) -> list[str]:
    """Read a list of texts."""
    return [word(part) for part in raw]


def scored(raw: Sequence[Any]) -> list[tuple[str, float]]:
    """Read an answer WITHSCORES: pairs in RESP3, flat in RESP2."""
    rows = raw if raw and isinstance(raw[0], (list, tuple)) else list(zip(raw[::2], raw[1::2], strict=True))
    return [(word(row[0]), float(row[1])) for row in rows]


def timed(raw: Sequence[Any]) -> list[tuple[str, int]]:
    """Read an answer WITHSCORES whose scores are times, in milliseconds."""
    return [(member, int(score)) for member, score in scored(raw)]


def pairs(flat: Sequence[bytes] | Mapping[bytes, bytes]) -> dict[str, bytes]:
    """Read a flat field-value answer (RESP2, or out of Lua) or a map (RESP3) as a dict."""
    if isinstance(flat, Mapping):
        return {k.decode(): v for k, v in flat.items()}
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
