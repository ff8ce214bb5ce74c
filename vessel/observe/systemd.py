"""Tell systemd that a process is ready, what it does, and that it is alive; silent where no systemd listens."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from sdnotify import SystemdNotifier  # type: ignore[import-untyped]  # it has no types

if TYPE_CHECKING:
    from collections.abc import Callable

BEATS = 3
"""How many signs of life go into one WatchdogSec: one or two may come late on a busy machine."""
LONGEST_STATUS = 200
PATIENCE_S = 0.2
"""How long systemd may take to make room for a message; else a full queue would stop the loop that it watches."""

_notifier: SystemdNotifier | None = None


def tell(*lines: str) -> bool:
    """Send assignments such as READY=1 to whoever started this process; False where nobody listens.

    Takes no lock and does not block for long, so that signal handlers may call it.
    """
    global _notifier  # noqa: PLW0603  one socket for the life of the process
    if not os.environ.get("NOTIFY_SOCKET"):
        return False
    if _notifier is None:
        _notifier = SystemdNotifier()
        if _notifier.socket is not None:
            _notifier.socket.settimeout(PATIENCE_S)
    _notifier.notify("\n".join(lines))
    return True


def ready(status: str) -> None:
    """Say that the process serves now; may be said again."""
    tell("READY=1", f"STATUS={_line(status)}")


def status(text: str) -> None:
    """Show one line in `systemctl status`. It never holds prompts, answers or keys."""
    tell(f"STATUS={_line(text)}")


def stopping(text: str) -> None:
    """Say that the process is about to end and what it still waits for."""
    tell("STOPPING=1", f"STATUS={_line(text)}")


def watchdog_s() -> float | None:
    """Return within how many seconds systemd wants a sign of life of this process; None where it wants none."""
    wanted, whose = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not wanted.isdecimal() or int(wanted) == 0 or (whose and whose != str(os.getpid())):
        return None
    return int(wanted) / 1_000_000


async def beat(lives: Callable[[], bool] = lambda: True) -> None:
    """Give signs of life from the running loop, for as long as `lives` says so, until cancelled.

    A loop that is stuck gives none, and systemd starts the process anew. Returns at once where no watchdog is set.
    """
    within = watchdog_s()
    if within is None:
        return
    while True:
        if lives():
            tell("WATCHDOG=1")
        await asyncio.sleep(within / BEATS)


class Pulse:
    """Whether another thread's loop turns: it touches the pulse, and the beat looks at how old that is."""

    def __init__(self) -> None:
        """Start with nothing to watch."""
        self._touched: float | None = None

    def touch(self) -> None:
        """Say that the loop turns; from now on it has to say so again."""
        self._touched = time.monotonic()

    def rest(self) -> None:
        """Stop watching, while the loop has a reason to stand still, such as a Redis that is away."""
        self._touched = None

    def __call__(self) -> bool:
        """Tell whether it has turned lately, or is not watched."""
        touched, within = self._touched, watchdog_s()
        return touched is None or within is None or time.monotonic() - touched < within


def _line(text: str) -> str:
    return " ".join(text.split())[:LONGEST_STATUS]
