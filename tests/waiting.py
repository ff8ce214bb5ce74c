"""Wait for a condition instead of sleeping."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
POLL_S = 0.01


class NeverTrue(AssertionError):
    """The condition did not become true in time."""


def wait_until(condition: Callable[[], T], timeout: float = 20.0) -> T:
    """Call the condition until it gives something true, and give that. Raises NeverTrue after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise _never(condition, timeout, found)
        time.sleep(POLL_S)
    return found


async def wait_until_async(condition: Callable[[], Awaitable[T]], timeout: float = 20.0) -> T:  # noqa: ASYNC109  one clock
    """Await the condition until it gives something true, and give that. Raises NeverTrue after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (found := await condition()):
        if time.monotonic() > deadline:
            raise _never(condition, timeout, found)
        await asyncio.sleep(POLL_S)
    return found


def _never(condition: object, timeout: float, found: object) -> NeverTrue:
    name = getattr(condition, "__qualname__", repr(condition))
    return NeverTrue(f"{name} was not true within {timeout:g} s; last it gave {found!r}")
