"""Run a program that ends when its owner ends, however that happens: kill -9 included.

The owner holds the writing end of a pipe and nothing is ever written. A shell, the program's parent, waits for the
program; its background reader waits for the pipe's end, which the kernel brings when the owner is gone, and then
sends SIGTERM. Not PR_SET_PDEATHSIG: Linux only, bound to the thread that forked, and in need of a preexec_fn.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

STOP_TIMEOUT_S = 10.0
"""How long the program may take after SIGTERM before SIGKILL."""
LOWEST_INHERITED = 10
"""Out of the way of the descriptors that the script uses by number."""

# Background jobs of a shell lose stdin, so the pipe moves to descriptor 3. The program is waited for and so keeps
# its pid until the shell has seen its end: neither kill can hit a stranger.
_WATCH = """
exec 3<&0 </dev/null
"$@" 3<&- 1>&2 &
program=$!
echo "$program"
{ read -r _; kill "$program"; } <&3 >&2 &
watcher=$!
exec 3<&- 1>&2
wait "$program"
code=$?
kill "$watcher" 2>/dev/null
wait "$watcher"
exit "$code"
"""

_held: set[int] = set()
"""Descriptors that forked children must not keep: a child that outlives the owner would pass for it."""


def hold(descriptor: int) -> None:
    """Close the descriptor in processes forked from this one."""
    _held.add(descriptor)


def release(descriptor: int) -> None:
    """Close the descriptor here."""
    _held.discard(descriptor)
    os.close(descriptor)


def _drop_held() -> None:
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_held)


class Tether:
    """One program, running until `cut` or until this process ends."""

    def __init__(self, command: Sequence[str], *, log: IO[bytes], keep: int) -> None:
        """Start the program in a session of its own (Ctrl-C is for the owner); it inherits `keep`, an open file."""
        reading, self._lifeline = os.pipe()
        hold(self._lifeline)
        inherited = fcntl.fcntl(keep, fcntl.F_DUPFD_CLOEXEC, LOWEST_INHERITED)
        try:
            self._shell = subprocess.Popen(  # noqa: S603  a fixed script; the command are its arguments, not its text
                ["/bin/sh", "-c", _WATCH, "sh", *command],
                stdin=reading,
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=(inherited,),
                start_new_session=True,
            )
            assert self._shell.stdout is not None  # noqa: S101  asked for above
            with self._shell.stdout as told:
                self.pid = int(told.readline())
        except BaseException:
            release(self._lifeline)
            raise
        finally:
            os.close(reading)
            os.close(inherited)

    def running(self) -> bool:
        """Tell whether the program runs."""
        return self._shell.poll() is None

    def cut(self) -> None:
        """End the program: SIGTERM, and SIGKILL when that takes too long. Returns when it is gone."""
        release(self._lifeline)
        try:
            self._shell.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
            self._shell.wait()
