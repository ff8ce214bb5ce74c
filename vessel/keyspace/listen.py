"""Hearing what is published on a channel, through every loss of the connection; what was said meanwhile is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from vessel.keyspace.connect import connect_async

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AGAIN_S = 1.0
LISTEN_S = 20.0
CANCEL_AGAIN_S = 0.2


async def listen(url: str, channel: str) -> AsyncIterator[str]:
    """Yield the messages of a channel until cancelled; nobody may depend on one, as none is kept."""
    while True:
        client = connect_async(url, blocking_s=LISTEN_S)
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as heard:
                await heard.subscribe(channel)
                while True:
                    message = await heard.get_message(timeout=LISTEN_S)
                    if message is not None:
                        yield message["data"].decode()
        except (RedisError, OSError):
            await asyncio.sleep(AGAIN_S)
        finally:
            await client.aclose()


async def ended(listening: asyncio.Task[None]) -> None:
    """Cancel a task that listens, and wait for its end; what it raises is dropped.

    Once is not enough: redis-py sends through `asyncio.wait_for`, which before Python 3.12 loses a cancellation that
    comes as its bytes leave (https://github.com/python/cpython/issues/86296), and then the task would listen for ever.
    """
    while not listening.done():
        listening.cancel()
        await asyncio.wait({listening}, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(listening, return_exceptions=True)
