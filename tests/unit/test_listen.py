"""Ending a task that listens: as often as it takes."""

from __future__ import annotations

import asyncio

import pytest

from vessel.keyspace import listen
from vessel.keyspace.listen import ended


@pytest.fixture(autouse=True)
def again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancel again after a moment."""
    monkeypatch.setattr(listen, "CANCEL_AGAIN_S", 0.01)


@pytest.mark.parametrize("lost", [0, 1, 3])
async def test_a_task_that_loses_cancellations_is_ended(lost: int) -> None:
    """As redis-py's do on Python 3.11 when the bytes that it sends leave at the same time."""
    heard = 0

    async def listening() -> None:
        nonlocal heard
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard += 1
                if heard > lost:
                    raise

    task = asyncio.ensure_future(listening())
    await asyncio.sleep(0)
    await ended(task)
    assert task.cancelled()
    assert heard == lost + 1


async def test_a_task_that_has_failed_is_ended() -> None:
    """Its error is nobody's any more, and is not reported as never retrieved."""

    async def failing() -> None:
        raise RuntimeError("broken")

    task = asyncio.ensure_future(failing())
    await asyncio.sleep(0)
    await ended(task)
    assert task.done()
