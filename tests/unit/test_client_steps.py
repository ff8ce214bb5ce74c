"""The drivers: what an effect raises reaches the verb, which may clean up, in threads and in coroutines alike."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from vessel.client.steps import Effect, Emit, Flow, Run, Steps, drive, drive_async, iterate, iterate_async

FIRST, SECOND = Run(()), Run(())


class Stage:
    """Performs effects as told, and remembers them."""

    def __init__(self, *answers: Any) -> None:
        """Take what each effect answers; an exception is raised."""
        self.answers = list(answers)
        self.seen: list[Effect] = []

    def perform(self, effect: Effect) -> Any:
        """Answer one effect."""
        self.seen.append(effect)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    async def perform_async(self, effect: Effect) -> Any:
        """Answer one effect, in a coroutine."""
        return self.perform(effect)


def adding() -> Steps[int]:
    """Add two answers."""
    one = yield FIRST
    two = yield SECOND
    return int(one + two)


def cleaning() -> Steps[str]:
    """Undo the first effect when interrupted."""
    try:
        yield FIRST
    except BaseException:
        yield SECOND
        raise
    return "not interrupted"


def counting(closed: list[bool]) -> Flow[int]:
    """Emit every answer."""
    try:
        while True:
            yield Emit((yield FIRST))
    finally:
        closed.append(True)


def test_a_verb_gets_the_answers_and_gives_its_value() -> None:
    """Both drivers carry the same verb to the same end."""
    assert drive(adding(), Stage(1, 2).perform) == 3
    assert asyncio.run(drive_async(adding(), Stage(1, 2).perform_async)) == 3


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), asyncio.CancelledError()])
def test_what_an_effect_raises_is_raised_in_the_verb(error: BaseException) -> None:
    """A verb cleans up after an interrupt with further effects, and the interrupt goes on."""
    stage = Stage(error, "undone")
    with pytest.raises(type(error)):
        drive(cleaning(), stage.perform)
    assert stage.seen == [FIRST, SECOND]


def test_a_cancelled_task_cleans_up_before_it_ends() -> None:
    """The same in a coroutine."""
    stage = Stage(asyncio.CancelledError(), "undone")

    async def cancelled() -> bool:
        task = asyncio.ensure_future(drive_async(cleaning(), stage.perform_async))
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(cancelled())
    assert stage.seen == [FIRST, SECOND]


def test_a_loop_that_is_left_early_ends_the_verb() -> None:
    """An iteration closes its verb, whoever stops it."""
    closed: list[bool] = []
    values = iterate(counting(closed), Stage(*range(9)).perform)
    assert [next(values), next(values)] == [0, 1]
    values.close()  # type: ignore[attr-defined]  # a generator
    assert closed == [True]


def test_a_loop_of_a_coroutine_gets_the_same_values() -> None:
    """The same in a coroutine, which ends with what the effect raised."""
    closed: list[bool] = []

    found: list[int] = []

    async def collect() -> None:
        async for value in iterate_async(counting(closed), Stage(1, 2, LookupError()).perform_async):
            found.append(value)  # noqa: PERF401  what came before the error counts

    with pytest.raises(LookupError):
        asyncio.run(collect())
    assert found == [1, 2]
    assert closed == [True]
