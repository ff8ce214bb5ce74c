"""Where the simulator of a running `vessel up --sim` is, so that commands beside it look at what its workers call."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

from vessel.embedded import write_private
from vessel.settings import process_alive

if TYPE_CHECKING:
    from pathlib import Path

SIMULATOR_FILE = "simulator.json"


def write_simulator(data_dir: Path, url: str, pid: int) -> None:
    """Tell other commands of this data directory which simulator is used, for as long as process `pid` lives."""
    data_dir.mkdir(parents=True, exist_ok=True)
    write_private(data_dir / SIMULATOR_FILE, json.dumps({"groq_url": url, "pid": pid}) + "\n")


def forget_simulator(data_dir: Path, pid: int) -> None:
    """Take back what was written for `pid`."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads((data_dir / SIMULATOR_FILE).read_bytes())["pid"] == pid:
            (data_dir / SIMULATOR_FILE).unlink()


def running_simulator(data_dir: Path) -> str | None:
    """Return the address of the simulator that a running `vessel up --sim` of this data directory uses, else None."""
    try:
        found = json.loads((data_dir / SIMULATOR_FILE).read_bytes())
        url, pid = found["groq_url"], found["pid"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return url if isinstance(url, str) and isinstance(pid, int) and process_alive(pid) else None
