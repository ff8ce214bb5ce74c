"""Child processes that never outlive their owner."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

GRACE_S = 15.0
"""How long children may take to drain before SIGKILL."""
REAPER = Path(__file__).with_name("reaper.py")
POLL_S = 0.02


class Pack:
    """A process group of its own, so that Ctrl-C reaches only the owner, with a reaper that outlives it.

    Start it from the main thread. Children started here are ended by `stop` in good order, and by the reaper when the
    owner dies without a word.
    """

    def __init__(self, grace_s: float = GRACE_S) -> None:
        """Choose the patience; nothing is started yet."""
        self.grace_s = grace_s
        self._children: list[subprocess.Popen[bytes]] = []
        self._reaper: subprocess.Popen[bytes] | None = None
        self._lifeline = self._membership = -1

    def __enter__(self) -> Self:
        """Start the reaper."""
        watched, self._membership = os.pipe()
        try:
            command = [sys.executable, "-I", "-S", str(REAPER), str(watched), str(self.grace_s)]
            self._reaper = subprocess.Popen(  # noqa: S603  our own script
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(watched,), process_group=0
            )
        finally:
            os.close(watched)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the children, then the reaper."""
        self.stop(self._children)
        os.close(self._membership)
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            self._reaper.wait()

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, log: IO[bytes] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a child; it writes to `log`, or to our standard error."""
        assert self._reaper is not None  # noqa: S101  started on entry
        output = log if log is not None else _stderr()
        child = subprocess.Popen(  # noqa: S603  our own commands
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(self._membership,),
            process_group=self._reaper.pid,
        )
        self._children.append(child)
        return child

    def stop(self, children: Iterable[subprocess.Popen[bytes]]) -> list[int]:
        """Send SIGTERM, wait, send SIGKILL to those that stay; return the pids that had to be killed."""
        going = [child for child in children if child.poll() is None]
        for child in going:
            child.send_signal(signal.SIGTERM)
        until = time.monotonic() + self.grace_s
        while any(child.poll() is None for child in going) and time.monotonic() < until:
            time.sleep(POLL_S)
        stubborn = [child for child in going if child.poll() is None]
        for child in stubborn:
            child.kill()
            child.wait()
        return [child.pid for child in stubborn]


def _stderr() -> int:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return sys.stderr.fileno()
    return subprocess.DEVNULL
