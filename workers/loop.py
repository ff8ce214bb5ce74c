"""One asyncio loop in its own thread, fed from the worker's main thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

T = TypeVar("T")
log = get_logger(__name__)
JOIN_S = 5.0


class LoopThread:
    """Run a uvloop in a daemon thread; calls posted in a burst share one wake-up."""

    def __init__(self, on_crash: Callable[[], None]) -> None:
        """Call `on_crash` from the thread should the loop end without `stop`."""
        self._loop = uvloop.new_event_loop()
        self._loop.set_exception_handler(_report)
        self._on_crash = on_crash
        self._posted: deque[Callable[[asyncio.AbstractEventLoop], None]] = deque()
        self._woken = False
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="vessel-asyncio", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether coroutines still run."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def post(self, call: Callable[[asyncio.AbstractEventLoop], None]) -> None:
        """Run a short call in the loop's thread soon, in order; it must not raise."""
        self._posted.append(call)
        if not self._woken:
            self._woken = True
            with suppress(RuntimeError):  # closed: the worker is leaving
                self._loop.call_soon_threadsafe(self._run_posted)

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop and give its future to this thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        """End the loop and its thread; what still runs on it is cancelled."""
        if self._stopping or not self.alive:
            return
        self._stopping = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(JOIN_S)

    def _run_posted(self) -> None:
        # Cleared first: what is posted from now on either is seen below or wakes the loop again.
        self._woken = False
        while self._posted:
            self._posted.popleft()(self._loop)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._cancel_all()
        finally:
            if not self._stopping:
                self._on_crash()

    def _cancel_all(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def _report(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # asyncio's own handler prints the exception's text, which may hold a prompt.
    error = context.get("exception")
    log.error("loop.error", error=type(error).__name__ if error else context.get("message"))
