"""Ask Groq which models it serves to the key, and tell all producers and workers."""

from __future__ import annotations

import asyncio
import json

from vessel.cli.preflight import key_source
from vessel.errors import Unreachable
from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.keyspace.script import command, word
from vessel.settings import Settings, load_settings
from vessel.submit import Door, redis_url
from vessel.upstream.groq import GroqUpstream
from vessel.upstream.outcome import Failure


def refresh_models() -> None:
    """Fetch the list and store it. Raises NoKey, NoRedis, Unreachable."""
    asyncio.run(_refresh(load_settings()))


async def _refresh(settings: Settings) -> None:
    upstream = GroqUpstream(key_source(settings), settings.groq_base_url)
    runner = AsyncRunner(connect_async(redis_url(settings)))
    try:
        models = await upstream.list_models()
        if isinstance(models, Failure):
            raise Unreachable(f"The list of models was not read: {models.message}")
        now = await runner.run(command("TIME", parse=lambda raw: int(raw[0]) * 1000 + int(raw[1]) // 1000))
        listed = json.dumps(sorted(str(m["id"]) for m in models if m.get("active", True)))
        name = Door(settings).keys.models
        await runner.run(command("HSET", name, "listed", listed, "fetched_at", now, parse=word))
    finally:
        await upstream.close()
        await runner.close()
