"""The pool by itself, without a broker: order of things at start, end and stop."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, signals
from celery.exceptions import ImproperlyConfigured, Reject

from workers.pool import AsyncioPool
from workers.runs import REQUEST, TaskFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = "the secret prompt"


class Desk:
    """A pool with tasks, and what Celery would be told of each message."""

    def __init__(self) -> None:
        """Start the pool with two slots."""
        self.app = Celery("t", set_as_current=False)
        self.seen: list[str] = []
        self.settled: dict[str, tuple[int, Any, float]] = {}
        self.go = threading.Event()
        self.hangs = threading.Event()
        self._tasks()
        self.pool = AsyncioPool(2, app=self.app)
        self.pool.start()

    def _tasks(self) -> None:
        desk = self

        @self.app.task(name="echo", shared=False)
        async def echo(text: str) -> str:
            desk.seen.append(REQUEST.get()["delivery_info"]["routing_key"])
            return text

        @self.app.task(name="fail", shared=False)
        async def fail() -> None:
            raise ValueError(PROMPT)

        @self.app.task(name="hang", shared=False)
        async def hang() -> None:
            desk.hangs.set()
            try:
                while not desk.go.is_set():  # noqa: ASYNC110  the event is the test's, in another thread
                    await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                desk.seen.append("cancelled")
                raise

        @self.app.task(name="plain", shared=False)
        def plain() -> None:
            """Stand for a task of Celery's tracer."""

    def apply(self, name: str, task_id: str, *args: object) -> Any:
        """Hand a message to the pool as Celery's request does."""
        request = {"args": list(args), "kwargs": {}, "delivery_info": {"routing_key": "power"}}

        def settle(outcome: tuple[int, Any, float]) -> None:
            self.settled[task_id] = outcome

        return self.pool.apply_async(
            lambda *_parcel: (0, "traced", 0.0),
            args=(name, task_id, request, b"", "application/json", "utf-8"),
            callback=settle,
            accept_callback=lambda _pid, _at: self.seen.append(f"accepted {task_id}"),
        )

    def close_and_stop(self) -> None:
        """Stop warm, as Celery's blueprint does."""
        self.pool.close()
        self.pool.stop()


@pytest.fixture
def desk() -> Iterator[Desk]:
    """Give a running pool and stop it."""
    found = Desk()
    yield found
    found.go.set()
    found.pool.terminate()


def test_a_coroutine_reads_its_message_and_its_result_is_shown(desk: Desk) -> None:
    """The message is in REQUEST; Celery gets success, the result's repr and a runtime."""
    desk.apply("echo", "1", "hello")
    desk.close_and_stop()
    assert desk.seen == ["accepted 1", "power"]
    failed, shown, runtime = desk.settled["1"]
    assert (failed, shown) == (0, "'hello'")
    assert runtime >= 0


def test_an_error_is_told_by_class_and_place_only(desk: Desk) -> None:
    """The exception handed on holds no text of the original, neither do the signals."""
    told: list[BaseException] = []

    def on_failure(exception: BaseException, **_: object) -> None:
        told.append(exception)

    signals.task_failure.connect(on_failure)
    desk.apply("fail", "1")
    desk.apply("echo", "2")
    desk.close_and_stop()
    for task_id, kind in (("1", "ValueError at test_asyncio_pool.py"), ("2", "TypeError")):
        failed, failure, _ = desk.settled[task_id]
        assert failed == 1
        assert isinstance(failure.exception, TaskFailed)
        assert str(failure.exception).startswith(kind)
        assert PROMPT not in repr(failure.exception) + failure.traceback
    assert PROMPT not in repr(told)
    assert len(told) == 2


def test_celerys_signals_surround_a_coroutine_task(desk: Desk) -> None:
    """Instrumentation hears of a coroutine task what it hears of any other."""
    heard: list[str] = []

    def listen(name: str, signal: Any) -> Any:
        def hear(**_: object) -> None:
            heard.append(name)

        signal.connect(hear)
        return hear

    kept = [listen(name, getattr(signals, f"task_{name}")) for name in ("prerun", "success", "postrun")]
    desk.apply("echo", "1", "x")
    desk.close_and_stop()
    assert heard == ["prerun", "success", "postrun"]
    assert kept


def test_a_task_that_is_no_coroutine_goes_through_the_tracer(desk: Desk) -> None:
    """Celery's tracer decides its outcome."""
    desk.apply("plain", "1")
    desk.close_and_stop()
    assert desk.settled["1"] == (0, "traced", 0.0)


def test_what_arrives_in_a_drain_is_handed_back_unstarted(desk: Desk) -> None:
    """A message taken while the worker leaves is requeued, not run and not lost."""
    desk.apply("hang", "running")
    drained = threading.Event()
    desk.pool.drain(drained.set)
    desk.apply("echo", "late", "x")
    assert drained.wait(5)
    desk.go.set()
    desk.close_and_stop()
    assert desk.settled["running"][0] == 0
    failed, failure, _ = desk.settled["late"]
    assert failed == 1
    assert isinstance(failure.exception, Reject)
    assert repr(failure.exception) == repr(Reject(requeue=True))
    assert "accepted late" not in desk.seen


def test_a_full_pool_keeps_a_message_waiting(desk: Desk) -> None:
    """Only as many run as there are slots; a new slot starts the next at once."""
    for n in "123":
        desk.apply("hang", n)
    assert desk.seen == ["accepted 1", "accepted 2"]
    desk.pool.grow(1)
    assert desk.seen[-1] == "accepted 3"
    desk.pool.shrink(9)
    assert desk.pool.info["max-concurrency"] == 1


def test_a_message_revoked_while_it_waits_is_announced_and_not_run(desk: Desk) -> None:
    """Celery announces it when it is accepted; the coroutine never starts and nothing is settled."""
    desk.apply("hang", "1")
    desk.apply("hang", "2")
    waiting = desk.apply("echo", "3", "x")
    waiting.terminate()
    desk.go.set()
    desk.close_and_stop()
    assert "3" not in desk.settled
    assert "power" not in desk.seen


def test_a_terminated_run_is_cancelled_and_not_settled(desk: Desk) -> None:
    """Its message is Celery's to acknowledge or to leave; the slot is free again."""
    run = desk.apply("hang", "1")
    run.terminate()
    desk.close_and_stop()
    assert desk.settled == {}
    assert desk.pool.info["running"] == 0


def test_closers_are_awaited_after_the_last_run_and_before_the_loop_ends(desk: Desk) -> None:
    """The executor closes on its own loop, when nothing needs it any more; one that fails stops nobody."""
    order: list[str] = []

    async def broken() -> None:
        raise RuntimeError(PROMPT)

    async def closer() -> None:
        await asyncio.sleep(0)
        order.append(f"closed after {len(desk.settled)}")

    desk.pool.at_stop(broken)
    desk.pool.at_stop(closer)
    desk.apply("echo", "1", "x")
    desk.close_and_stop()
    assert order == ["closed after 1"]


def test_a_stop_from_a_signal_handler_waits_for_nothing(desk: Desk) -> None:
    """Celery's cold shutdown calls stop while the pool still runs; terminate then ends it."""
    desk.apply("hang", "1")
    assert desk.hangs.wait(5)
    desk.pool.stop()
    assert desk.seen == ["accepted 1"]
    desk.pool.terminate()
    assert desk.seen == ["accepted 1", "cancelled"]
    assert desk.settled == {}


def test_a_worker_without_event_loop_is_refused() -> None:
    """Without Celery's hub nothing would acknowledge."""
    with pytest.raises(ImproperlyConfigured, match="event loop"):
        AsyncioPool(1, threads=True)
