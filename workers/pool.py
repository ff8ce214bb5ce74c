"""The asyncio pool: Celery's requests run as coroutines on one loop, hundreds at a time.

Celery's hub in the main thread receives messages, keeps the books and acknowledges; the loop in a second thread only
runs coroutines, and a burst costs one wake-up in each direction. A task that is no coroutine goes through Celery's own
tracer in a few threads. Celery's time limits do nothing here: every call carries its own deadline.
"""

from __future__ import annotations

import os
import socket
import threading
from asyncio import CancelledError
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from inspect import iscoroutinefunction
from time import monotonic
from typing import TYPE_CHECKING, Any

from celery.concurrency.base import BasePool
from celery.exceptions import ImproperlyConfigured, Reject
from celery.platforms import EX_FAILURE
from celery.worker import state as worker_state

from vessel.observe.logs import get_logger
from workers.loop import LoopThread
from workers.runs import REQUEST, Failure, Run, announce_start, settle, text_free

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Iterator
    from concurrent.futures import Future

log = get_logger(__name__)

SYNC_THREADS = 4
COLD_GRACE_S = 5.0
CLOSE_GRACE_S = 30.0


class AsyncioPool(BasePool):
    """Run coroutine tasks on one uvloop. Everything but the coroutines themselves happens in the main thread."""

    body_can_be_buffer = True
    signal_safe = False
    task_join_will_block = False
    limit: int
    _state: int | None

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take Celery's options; `threads` means that the worker has no event loop, which this pool needs."""
        super().__init__(*args, **options)
        if options.get("threads"):
            raise ImproperlyConfigured("The asyncio pool needs Celery's event loop: a Redis broker on a POSIX system.")
        self._loop = LoopThread(self._crashed)
        self._threads = ThreadPoolExecutor(SYNC_THREADS, "vessel-sync")
        self._hub: Any = None
        self._waiting: deque[Run] = deque()
        self._running: set[Run] = set()
        self._ended: deque[Run] = deque()
        self._woken = False
        self._bell, self._ringer = socket.socketpair()
        self._bell.settimeout(0)
        self._ringer.settimeout(0)
        self._some_ended = threading.Event()
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._coroutines: dict[str, Any] = {}
        self._draining = self._pumping = False

    # -- what Celery calls

    def on_start(self) -> None:
        """Start the loop."""
        self._loop.start()

    def register_with_event_loop(self, loop: Any) -> None:
        """Have the hub listen for ended runs; Celery calls this at every connect.

        A reader of our own instead of the hub's `call_soon`: acks queued by a callback that `call_soon` ran would wait
        for the next poll to end, up to a second.
        """
        self._hub = loop
        loop.add_reader(self._bell, self._on_bell)

    def apply_async(self, target: Callable[..., Any], args: Any = None, kwargs: Any = None, **options: Any) -> Run:
        """Start a request's work, or keep it waiting while all slots are taken or the worker drains.

        Overridden whole, because Celery's own writes the message's body to the debug log.
        """
        del kwargs
        run = Run(target, tuple(args), options["callback"], options["accept_callback"], self._cancel)
        self._waiting.append(run)
        self._fill()
        return run

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """Do nothing: the pid is the whole process; Celery calls `Run.terminate` as well, which cancels."""

    def grow(self, n: int) -> None:
        """Add slots; Celery raises the prefetch with them."""
        self.limit += n
        self._fill()

    def shrink(self, n: int) -> None:
        """Take slots away; what runs goes on."""
        self.limit = max(1, self.limit - n)

    def on_stop(self) -> None:
        """Wait for everything in flight, with the hub turning, so that each ack leaves when its work ends.

        Celery's cold shutdown also calls this from within a signal handler, where nothing may be waited for:
        `on_terminate` follows, or the drain that was interrupted goes on.
        """
        if self._pumping or self._state == self.RUN:
            return
        self._draining = self._pumping = True
        self._hand_back()
        turns = self._turns()
        while self._running:
            next(turns)
        self._shut()

    def on_terminate(self) -> None:
        """Cancel everything in flight; its messages stay unacknowledged and return to the queue with the channel."""
        self._draining = True
        self._waiting.clear()
        for run in tuple(self._running):
            run.terminate()
        patience = monotonic() + COLD_GRACE_S
        while self._running and self._loop.alive and monotonic() < patience:
            self._wait()
        self._shut()

    def _get_info(self) -> dict[str, Any]:
        return {
            "implementation": f"{type(self).__module__}:{type(self).__name__}",
            "max-concurrency": self.limit,
            "processes": [os.getpid()],
            "loop": "uvloop",
            "running": len(self._running),
            "waiting": len(self._waiting),
            "draining": self._draining,
        }

    # -- what the boot step calls

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run a coroutine on the pool's loop."""
        return self._loop.submit(work)

    def drain(self, then: Callable[[], None]) -> None:
        """Start nothing more, run `then` on the loop and let the hub notice a shutdown at once.

        Safe in a signal handler: it takes no lock that the interrupted main thread may hold.
        """

        def begin(_loop: asyncio.AbstractEventLoop) -> None:
            then()
            self._wake()

        self._draining = True
        self._loop.post(begin)

    def at_stop(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Await `closer` on the loop after the last run has ended and before the loop does."""
        self._closers.append(closer)

    # -- starting, in the main thread

    def _coroutine_task(self, name: str) -> Any:
        try:
            return self._coroutines[name]
        except KeyError:
            task = self.app.tasks[name]
            return self._coroutines.setdefault(name, task if iscoroutinefunction(task.run) else None)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.limit and not self._draining:
            self._start(self._waiting.popleft())

    def _start(self, run: Run) -> None:
        run.started_at = monotonic()
        run.accept(os.getpid(), run.started_at)
        if run.terminated:  # revoked while it waited; accepting it has announced that
            return
        self._running.add(run)
        run.task = self._coroutine_task(run.name)
        if run.task is None:
            future = self._threads.submit(run.trace, *run.parcel)
            run.work = future
            future.add_done_callback(partial(self._work_ended, run))
            return
        announce_start(run)
        self._loop.post(partial(self._spawn, run))

    def _cancel(self, run: Run) -> None:
        def cancel(_loop: object = None) -> None:
            if run.work is not None:
                run.work.cancel()

        if run.task is None:
            cancel()
        else:
            self._loop.post(cancel)

    # -- running, in the loop's thread

    def _spawn(self, run: Run, loop: asyncio.AbstractEventLoop) -> None:
        if run.terminated:
            self._end(run, CancelledError())
            return
        REQUEST.set(run.request)
        try:
            work = loop.create_task(run.task.run(*run.request["args"], **run.request["kwargs"]))
        except Exception as error:  # noqa: BLE001  wrong arguments, above all
            self._end(run, error)
            return
        run.work = work
        work.add_done_callback(partial(self._work_ended, run))

    def _work_ended(self, run: Run, work: asyncio.Task[Any] | Future[Any]) -> None:
        error = CancelledError() if work.cancelled() else work.exception()
        run.result = None if error else work.result()
        self._end(run, error)

    def _end(self, run: Run, error: BaseException | None) -> None:
        run.error = error
        run.ended_at = monotonic()
        self._ended.append(run)
        self._some_ended.set()
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with suppress(OSError):  # closed: the worker is leaving
                self._ringer.send(b"!")

    def _crashed(self) -> None:
        log.critical("loop.ended", then="this worker stops; its supervisor starts it anew")
        worker_state.should_terminate = EX_FAILURE  # type: ignore[assignment]  # Celery takes a number
        self._wake()

    # -- ending, in the main thread

    def _on_bell(self) -> None:
        with suppress(BlockingIOError):
            self._bell.recv(64)
        self._woken = False
        self._reap()

    def _reap(self) -> None:
        while self._ended:
            run = self._ended.popleft()
            self._running.discard(run)
            if run.terminated:
                continue
            try:
                settle(run)
            except Exception as error:  # noqa: BLE001  one run must not keep the others from being settled
                log.error("task.unsettled", task=run.name, id=run.task_id, error=str(text_free(error)))  # noqa: TRY400  the error's text may quote its input
        self._fill()

    # -- stopping

    def _hand_back(self) -> None:
        while self._waiting:
            run = self._waiting.popleft()
            if not run.terminated:
                run.settle((1, Failure(Reject(requeue=True)), 0.0))

    def _turns(self) -> Iterator[None]:
        hub = self._hub
        try:
            while hub is not None:
                for _ in hub.create_loop():
                    yield
        except Exception as error:  # noqa: BLE001  whatever the broker's connection raised
            log.warning("broker.lost_in_drain", error=type(error).__name__, running=len(self._running))
        while True:
            self._wait()
            yield

    def _wait(self) -> None:
        self._some_ended.wait(0.2)
        self._some_ended.clear()
        self._reap()

    def _shut(self) -> None:
        for closer in self._closers if self._loop.alive else ():
            future = self._loop.submit(_awaited(closer))
            try:
                future.result(CLOSE_GRACE_S)
            except Exception as error:  # noqa: BLE001  a failed close must not keep the process alive
                log.error("close.failed", error=str(text_free(error)))  # noqa: TRY400  the error's text may quote its input
        self._closers.clear()
        self._loop.stop()
        if self._hub is not None:
            self._hub.remove_reader(self._bell)
            self._hub = None
        self._bell.close()
        self._ringer.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


async def _awaited(closer: Callable[[], Awaitable[None]]) -> None:
    await closer()
