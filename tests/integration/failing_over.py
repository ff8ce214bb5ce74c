"""A worker between two simulators: one stands for Groq, the other for the endpoint that serves in an outage."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulated import MODEL, Process
from tests.waiting import wait_until_async
from vessel.dispatch.queues import queue_for
from vessel.execute import Executor
from vessel.keyspace.script import command
from vessel.settings import Settings, load_settings
from vessel.usage.log import entries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from vessel.jobs.model import Job

TIERS = ["speed_demon"]
PRICES = {"failover_price_input": "0.15", "failover_price_output": "0.60"}


@dataclass(frozen=True)
class Bench:
    """An open executor and the two simulators behind it."""

    executor: Executor
    groq: Process
    other: Process

    async def submit(self, prompt: Any = "hello", **policy: Any) -> str:
        """Create a job of the tier; `on_outage` is failover unless said."""
        door = self.executor.door
        prepared = door.prepare(
            {"messages": [{"role": "user", "content": prompt}], "max_completion_tokens": 32},
            {"tier": "speed_demon", "fallback": "none", "on_outage": "failover"} | policy,
            availability=self.executor.availability,
        )
        return (await self.executor.runner.run(door.create(prepared))).id

    async def read(self, job_id: str) -> Job:
        """Read a job."""
        found = await self.executor.runner.run(self.executor.store.read(job_id))
        assert found is not None
        return found

    async def step(self, job_id: str, queues: tuple[str, ...] = ()) -> Job:
        """Serve the job's ticket if one is out in a queue that this worker serves, as a consumer would."""
        job = await self.read(job_id)
        mine = queues or tuple(queue_for(tier, job.priority) for tier in self.executor.tiers)
        score = command("ZSCORE", self.executor.keys.tickets(job.queue), job_id, parse=lambda raw: raw)
        if job.queue in mine and await self.executor.runner.run(score) is not None:
            await self.executor.run([(job_id, job.generation)], job.queue)
        return await self.read(job_id)

    async def until(self, job_id: str, *states: str) -> Job:
        """Serve until the job is in one of the states."""

        async def there() -> Job | None:
            job = await self.step(job_id)
            return job if job.state in states else None

        found = await wait_until_async(there, 40)
        assert found is not None
        return found

    async def said(self, job_id: str, text: str) -> Job:
        """Serve until the job waits and its message holds the text."""

        async def there() -> Job | None:
            job = await self.step(job_id)
            return job if text in job.message and not job.terminal else None

        found = await wait_until_async(there, 40)
        assert found is not None
        return found

    async def ledger(self) -> list[bytes]:
        """Read the rows of the ledger."""
        found = await self.executor.runner.run(entries(self.executor.keys.ledger, ""))
        return [fields["row"] for _, fields in found]


@asynccontextmanager
async def bench(
    settings: Settings, url: str, groq: Process, other: Process, *, tiers: Sequence[str] = TIERS, **more: Any
) -> AsyncIterator[Bench]:
    """Open a worker of one tier; simulators start afresh."""
    groq.fresh()
    other.fresh()
    given = settings.model_dump(exclude_unset=True, by_alias=False)
    armed: dict[str, Any] = {
        "groq_api_key": "gsk_test",
        "groq_base_url": groq.url,
        "openai_api_key": "sim-other",
        "openai_base_url": f"{other.url}/openai/v1",
        "failover_model": MODEL,
        **PRICES,
    }
    made = load_settings({}, **(given | armed | more))
    executor = await Executor.open(made, redis_url=url, tiers=tiers, worker="w", slots=10)
    try:
        yield Bench(executor, groq, other)
    finally:
        await executor.close()
