"""One message in the pool: what Celery gave, how its work ended, and what may be shown of a failure."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


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
    settle: Callable[[tuple[int, object, float]], None]
    accept: Callable[[int, float], None]
    cancel: Callable[[Run], None]
    task: Any = None
    work: Cancellable | None = None
    result: object = field(default=None, repr=False)
    error: BaseException | None = field(default=None, repr=False)
    started_at: float = 0.0
    ended_at: float = 0.0
    terminated: bool = False

    @property
    def task_id(self) -> str:
        """Give Celery's id of the message."""
        return str(self.parcel[1])

    @property
    def args(self) -> list[Any]:
        """Give the arguments, which Celery's request has decoded already."""
        return list(self.parcel[2]["args"])

    @property
    def kwargs(self) -> dict[str, Any]:
        """Give the keyword arguments, decoded likewise."""
        return dict(self.parcel[2]["kwargs"])

    def terminate(self, _signal: object = None) -> None:
        """Cancel the work. Celery has announced or will announce the message's fate, so it is not settled here."""
        self.terminated = True
        self.cancel(self)


class TaskFailed(Exception):  # noqa: N818  operators read it in Flower as the state's explanation
    """A coroutine task raised. The text is the error's class and place, never its message."""


class Failure:
    """Stand in for billiard's ExceptionInfo, whose traceback text holds the error's message."""

    __slots__ = ("exc_info", "exception", "traceback")

    def __init__(self, exception: BaseException) -> None:
        """Hold an exception whose text may be shown."""
        self.exception = exception
        self.traceback = ""
        self.exc_info = (type(exception), exception, None)


def _place(trace: TracebackType | None) -> str:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" at {PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""


def text_free(error: BaseException) -> TaskFailed:
    """Describe an error without its message, which may hold a prompt, an answer or a key."""
    return TaskFailed(type(error).__qualname__ + _place(error.__traceback__))
