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
