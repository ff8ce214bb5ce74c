"""Keeping an event stream alive while nothing happens, and ending it with the process."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BEAT_S = 10.0
BEAT = b": keep-alive\n\n"
"""A comment, which every reader of events skips and which resets its read timeout (groq-facts 1.4)."""


async def beating(events: AsyncIterator[bytes], closing: asyncio.Event) -> AsyncIterator[bytes]:
    """Yield events as they come, and a comment whenever none came for ten seconds."""
    following = asyncio.ensure_future(_next(events))
    ending = asyncio.ensure_future(closing.wait())
    try:
        while True:
            await asyncio.wait({following, ending}, timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                event = following.result()
                if event is None:
                    return
                yield event
                following = asyncio.ensure_future(_next(events))
            elif ending.done():
                return
            else:
                yield BEAT
    finally:
        for task in (following, ending):
            task.cancel()
        await asyncio.gather(following, ending, return_exceptions=True)
        close = getattr(events, "aclose", None)
        if close is not None:
            with suppress(RuntimeError):
                await close()


async def _next(events: AsyncIterator[bytes]) -> bytes | None:
    return await anext(events, None)
