"""Carrying out the verbs that clients and the REST face share, over the app's own connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from vessel.batches.file_store import Once
from vessel.client.steps import Effect, Flow, Run, Steps, drive_async, iterate_async
from vessel.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fastapi import Request

    from vessel.submit import Door

T = TypeVar("T")
LONGEST_KEY = 255


def door_of(request: Request) -> Door:
    """Return the way in of this app."""
    door: Door = request.app.state.door
    return door


async def perform(request: Request, steps: Steps[T]) -> T:
    """Carry a verb to its end."""
    return await drive_async(steps, _performer(request))


async def stream(request: Request, flow: Flow[bytes]) -> AsyncIterator[bytes]:
    """Yield what a verb emits."""
    async for piece in iterate_async(flow, _performer(request)):
        yield piece


def _performer(request: Request) -> Callable[[Effect], Awaitable[Any]]:
    runner = request.app.state.runner

    async def one(effect: Effect) -> Any:
        if not isinstance(effect, Run):
            raise TypeError("verbs of batches only run calls")
        return await runner.run_all(effect.calls)

    return one


def once_of(request: Request) -> Once:
    """Read what makes a POST the same as an earlier one. Raises InvalidRequest for a key that is none."""
    keys = request.headers.getlist("idempotency-key")
    retries = request.headers.get("x-stainless-retry-count", "0")
    key = keys[0] if keys else None
    good = key is None or (0 < len(key) <= LONGEST_KEY and key.isascii() and key.isprintable())
    if not good or len(keys) > 1:
        raise InvalidRequest(
            f"Idempotency-Key: it must be 1 to {LONGEST_KEY} printable ASCII characters.", param="Idempotency-Key"
        )
    return Once(key, repeated=retries.isascii() and retries.isdigit() and int(retries[:9]) > 0)
