"""An executor without upstream for the worker tests: what a ticket's job does stands in its id.

`noop-*` ends at once, `sleep-SECONDS-*` runs so long, `boom-*` raises an error that quotes the id, `exit-*` ends
the loop, `late-*` waits until the worker drains and is then released unstarted. Starts and ends go to Redis lists.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import redis.asyncio as aredis

from vessel.errors import RedisUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence

OPENED, STARTED, ENDED, CLOSED = "test:opened", "test:started", "test:ended", "test:closed"


class FakeExecutor:
    """Run jobs by their names."""

    def __init__(self, url: str, worker: str, tiers: Sequence[str]) -> None:
        """Connect lazily."""
        self.redis: Any = aredis.Redis.from_url(url)
        self.worker = worker
        self.tiers = tuple(tiers)
        self.drained = asyncio.Event()

    @classmethod
    async def open(
        cls, _settings: object, *, redis_url: str, tiers: Sequence[str], worker: str, slots: int
    ) -> FakeExecutor:
        """Note who opened, for which tiers and how wide."""
        executor = cls(redis_url, worker, tiers)
        try:
            await executor.redis.rpush(OPENED, f"{worker} {','.join(tiers)} {slots}")
        except (aredis.ConnectionError, OSError):
            raise RedisUnreachable from None
        return executor

    async def run(self, tickets: Sequence[tuple[str, int]], queue: str) -> list[dict[str, object]]:
        """Run one message's jobs side by side."""
        return list(await asyncio.gather(*(self._one(job, generation, queue) for job, generation in tickets)))

    async def _one(self, job: str, generation: int, queue: str) -> dict[str, object]:
        await self._note(STARTED, f"{job}:{generation} {queue}")
        kind, *rest = job.split("-")
        state = "succeeded"
        if kind == "sleep":
            await asyncio.sleep(float(rest[0]))
        elif kind == "boom":
            raise RuntimeError(f"the upstream said: {job}")
        elif kind == "exit":
            raise SystemExit(1)
        elif kind == "late":
            await self.drained.wait()
            state = "queued"
        await self._note(ENDED, f"{job}:{generation}")
        return {"job": job, "state": state, "model": "llama-3.1-8b-instant"}

    async def _note(self, name: str, value: str) -> None:
        for _ in range(100):
            try:
                await self.redis.rpush(name, value)
            except (aredis.ConnectionError, OSError):
                await asyncio.sleep(0.1)
            else:
                return

    def drain(self) -> None:
        """Let `late` jobs go."""
        self.drained.set()

    async def close(self) -> None:
        """Note that the worker closed in order."""
        await self._note(CLOSED, self.worker)
        await self.redis.aclose()
