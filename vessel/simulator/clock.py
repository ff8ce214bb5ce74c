"""The simulator's own time: one clock for buckets, fault windows and latency, so that tests need not sleep."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Give the time and let time pass."""

    def now(self) -> float:
        """Return seconds since the epoch; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Let this many seconds pass."""


class SystemClock:
    """The machine's clock, made monotonic: it starts at the wall clock and then follows the steady one."""

    def __init__(self) -> None:
        """Start at the wall clock."""
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Return seconds since the epoch; never goes back."""
        return self._offset + time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let this many seconds pass."""
        await asyncio.sleep(seconds)
