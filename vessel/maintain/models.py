"""What the key may call, asked from the upstream and stored for every producer and worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vessel.keyspace.script import command, pairs, word
from vessel.keyspace.server import clock
from vessel.upstream.outcome import Failure

if TYPE_CHECKING:
    from vessel.keyspace.connect import AsyncRunner
    from vessel.upstream.groq import GroqUpstream


async def store_models(upstream: GroqUpstream, runner: AsyncRunner, key: str) -> tuple[str, ...] | Failure:
    """Fetch the list and store it in the hash `key`; returns the ids.

    After a failure, and where no model is listed, the last list stays: an empty one would fail every job. Raises
    RedisUnreachable or RedisRefused.
    """
    # Read before the list is asked for: a model that is seen gone while it comes counts as gone.
    now = await runner.run(clock())
    models = await upstream.list_models()
    if isinstance(models, Failure):
        return models
    listed = sorted(str(m["id"]) for m in models if m.get("active", True))
    if listed:
        await runner.run(command("HSET", key, "listed", json.dumps(listed), "fetched_at", now, parse=word))
        await _forget_gone(runner, key, now)
    return tuple(listed)


async def _forget_gone(runner: AsyncRunner, key: str, now: int) -> None:
    """Take out what was seen gone before the list: the list knows better, and the next time is news again."""
    found = await runner.run(command("HGETALL", key, parse=pairs))
    old = [name for name, at in found.items() if name.startswith("gone:") and int(at) <= now]
    if old:
        await runner.run(command("HDEL", key, *old, parse=word))
