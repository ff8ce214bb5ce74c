"""One message in the pool: what Celery gave, what is announced of it, and what may be shown of a failure."""

from __future__ import annotations

from asyncio import CancelledError
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from celery import signals, states

from vessel.errors import place_of
from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger(__name__)

SHOWN_RESULT = 1024

REQUEST: ContextVar[dict[str, Any]] = ContextVar("request")
"""The message a coroutine task serves: Celery's own `task.request` is kept per thread, so coroutines share none."""


class Cancellable(Protocol):
    """What an asyncio task and a thread pool's future have in common."""

    def cancel(self) -> bool:
        """Ask the work to end."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Run:
    """One message. Celery keeps a weak reference to it and may call `terminate`."""

    trace: Callable[..., Any]
    parcel: tuple[Any, ...] = field(repr=False)
    settle: Callable[[Any], None]
    accept: Callable[[int, float], None]
    cancel: Callable[[Run], None]
    task: Any = None
    work: Cancellable | None = None
    result: Any = field(default=None, repr=False)
    error: BaseException | None = field(default=None, repr=False)
    started_at: float = 0.0
    ended_at: float = 0.0
    terminated: bool = False

    @property
    def name(self) -> str:
        """Give the task's name."""
        return str(self.parcel[0])

    @property
    def task_id(self) -> str:
        """Give Celery's id of the message."""
        return str(self.parcel[1])

    @property
    def request(self) -> dict[str, Any]:
        """Give the message's headers with the arguments, which Celery has decoded already."""
        return self.parcel[2]  # type: ignore[no-any-return]  # a list out of Celery

    def terminate(self, _signal: object = None) -> None:
        """Cancel the work. Celery has announced or will announce the message's fate, so it is not settled here."""
        self.terminated = True
        self.cancel(self)


class TaskFailed(Exception):
    """A coroutine task raised. The text is the error's class and place, never its message."""


class Failure:
    """Stand in for billiard's ExceptionInfo, whose traceback text holds the error's message."""

    __slots__ = ("exc_info", "exception", "traceback")

    def __init__(self, exception: BaseException) -> None:
        """Hold an exception whose text may be shown."""
        self.exception = exception
        self.traceback = ""
        self.exc_info = (type(exception), exception, None)


def text_free(error: BaseException) -> TaskFailed:
    """Describe an error without its message, which may hold a prompt, an answer or a key."""
    place = place_of(error)
    return TaskFailed(f"{type(error).__qualname__} at {place}" if place else type(error).__qualname__)


def announce_start(run: Run) -> None:
    """Send Celery's signal before a coroutine task, as the tracer does for others."""
    if signals.task_prerun.receivers:
        signals.task_prerun.send(
            sender=run.task, task_id=run.task_id, task=run.task, args=run.request["args"], kwargs=run.request["kwargs"]
        )


def settle(run: Run) -> None:
    """Tell Celery how a run ended: signals, event and acknowledgement. The main thread only."""
    runtime = run.ended_at - run.started_at
    if run.task is None:
        run.settle((1, Failure(text_free(run.error)), runtime) if run.error else run.result)
        return
    if run.error is None:
        if signals.task_success.receivers:
            signals.task_success.send(sender=run.task, result=run.result, runtime=runtime)
        run.settle((0, repr(run.result)[:SHOWN_RESULT], runtime))
    else:
        _settle_failure(run, runtime)
    if signals.task_postrun.receivers:
        signals.task_postrun.send(
            sender=run.task,
            task_id=run.task_id,
            task=run.task,
            args=run.request["args"],
            kwargs=run.request["kwargs"],
            retval=run.result,
            state=states.FAILURE if run.error else states.SUCCESS,
        )


def _settle_failure(run: Run, runtime: float) -> None:
    failure = Failure(text_free(run.error or CancelledError()))
    log.error(
        "task.failed",
        task=run.name,
        id=run.task_id,
        error=str(failure.exception),
        then="its message is acknowledged; the sweep issues again what it left undone",
    )
    if signals.task_failure.receivers:
        signals.task_failure.send(
            sender=run.task,
            task_id=run.task_id,
            exception=failure.exception,
            args=run.request["args"],
            kwargs=run.request["kwargs"],
            traceback=None,
            einfo=failure,
        )
    run.settle((1, failure, runtime))
