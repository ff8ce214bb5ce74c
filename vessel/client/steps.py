"""Verbs written once for both worlds: a generator asks for effects, and a sync or an async driver performs them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vessel.watch import BLOCK_MS, read_streams

if TYPE_CHECKING:
    from vessel.keyspace.script import Call
    from vessel.watch import Event

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Run:
    """Run calls in one round trip; answered by a list."""

    calls: Sequence[Call[Any]]


@dataclass(frozen=True, slots=True)
class Listen:
    """Wait for entries of streams, each after an id; answered by those that came, by stream."""

    after: Mapping[str, str]
    block_ms: int = BLOCK_MS

    @property
    def call(self) -> Call[dict[str, list[Event]]]:
        """Give the call that blocks at the server, for a connection of one's own."""
        return read_streams(self.after, block_ms=self.block_ms)


@dataclass(frozen=True, slots=True)
class Await:
    """Wait for a job's end; answered by the whole job."""

    job_id: str
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Emit(Generic[T]):
    """Hand one value to whoever iterates."""

    value: T


Effect = Run | Listen | Await
Steps = Generator[Effect, Any, T]
"""A verb that ends with one value."""
Flow = Generator[Effect | Emit[T], Any, None]
"""A verb that hands out values one by one."""


def run(call: Call[T]) -> Steps[T]:
    """Run one call."""
    (answer,) = yield Run((call,))
    value: T = answer
    return value


def drive(steps: Steps[T], perform: Callable[[Effect], Any]) -> T:
    """Carry a verb to its end; what an effect raises is raised inside the verb, which may still clean up."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as end:
            value: T = end.value
            return value
        try:
            answer, error = perform(effect), None
        except BaseException as caught:  # noqa: BLE001  the verb decides; an interrupt cancels its job
            error = caught


async def drive_async(steps: Steps[T], perform: Callable[[Effect], Awaitable[Any]]) -> T:
    """Carry a verb to its end; what an effect raises is raised inside the verb, which may still clean up."""
    answer: Any = None
    error: BaseException | None = None
    while True:
        try:
            effect = steps.send(answer) if error is None else steps.throw(error)
        except StopIteration as end:
            value: T = end.value
            return value
        try:
            answer, error = await perform(effect), None
        except BaseException as caught:  # noqa: BLE001  the verb decides; a cancelled task cancels its job
            error = caught


def iterate(flow: Flow[T], perform: Callable[[Effect], Any]) -> Iterator[T]:
    """Yield what a verb emits; leaving the loop early ends the verb."""
    answer: Any = None
    try:
        while True:
            effect = flow.send(answer)
            if isinstance(effect, Emit):
                yield effect.value
                answer = None
            else:
                answer = perform(effect)
    except StopIteration:
        return
    finally:
        flow.close()


async def iterate_async(flow: Flow[T], perform: Callable[[Effect], Awaitable[Any]]) -> AsyncIterator[T]:
    """Yield what a verb emits; leaving the loop early ends the verb."""
    answer: Any = None
    try:
        while True:
            effect = flow.send(answer)
            if isinstance(effect, Emit):
                yield effect.value
                answer = None
            else:
                answer = await perform(effect)
    except StopIteration:
        return
    finally:
        flow.close()
