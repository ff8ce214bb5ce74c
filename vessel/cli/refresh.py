"""Ask Groq which models it serves to the key, and tell all producers and workers."""

from __future__ import annotations

import asyncio

from vessel.cli.launch import SIMULATOR_KEY
from vessel.cli.preflight import key_source
from vessel.cli.simulated import running_simulator
from vessel.errors import Unreachable
from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.keyspace.names import Keys
from vessel.maintain.models import store_models
from vessel.settings import Settings, load_settings
from vessel.submit import redis_url
from vessel.upstream.groq import GroqUpstream
from vessel.upstream.keys import KeySource
from vessel.upstream.outcome import Failure


def refresh_models() -> None:
    """Fetch the list and store it. Raises NoKey, NoRedis, Unreachable."""
    asyncio.run(_refresh(load_settings()))


async def _refresh(settings: Settings) -> None:
    simulator = running_simulator(settings.data_dir)
    keys = KeySource(SIMULATOR_KEY) if simulator else key_source(settings)
    upstream = GroqUpstream(keys, simulator or settings.groq_base_url)
    runner = AsyncRunner(connect_async(redis_url(settings)))
    try:
        listed = await store_models(upstream, runner, Keys(settings.namespace).models)
        if isinstance(listed, Failure):
            raise Unreachable(f"The list of models was not read; the last one stays. {listed.message}")
        if not listed:
            raise Unreachable("Groq lists no model for this key; the last list stays. Check the key's organisation.")
    finally:
        await upstream.close()
        await runner.close()
