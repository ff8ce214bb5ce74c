"""Carry jobs whose `on_outage` is failover away from tiers that nobody serves: a dead tier is an outage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.dispatch.queues import queue_for, queues_of
from vessel.jobs.flows import fails_over
from vessel.keyspace.script import command, words
from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner
    from vessel.submit import Door

AT_ONCE = 500

log = get_logger(__name__)


def living(job: Job, alive: Mapping[str, int]) -> str | None:
    """Return the queue of a tier that somebody serves, those of the job's chain before others; None without any."""
    tiers = (*(hop.tier for hop in job.hops), *alive)
    tier = next((tier for tier in tiers if alive.get(tier)), None)
    return queue_for(tier, job.priority) if tier else None


class Carrier:
    """Looks at the tickets of dead tiers; a job that is to stay is read once."""

    def __init__(self, door: Door, runner: AsyncRunner) -> None:
        """Take the shared handles."""
        self.door, self.keys, self.store, self.runner = door, door.keys, door.store, runner
        self._staying: set[str] = set()

    async def tick(self) -> int:
        """Carry what is to go; returns how many jobs went."""
        alive = await self.runner.run(self.door.alive())
        dead = [tier for tier in self.door.registry.tiers if not alive.get(tier)]
        if not dead or not any(alive.values()):
            self._staying.clear()
            return 0
        queues = queues_of(dead)
        waiting = {job_id for queue in queues for job_id in await self._tickets(queue)}
        self._staying &= waiting
        new = sorted(waiting - self._staying)[:AT_ONCE]
        jobs = [job for job in await self.runner.run_all([self.store.peek(job_id) for job_id in new]) if job]
        self._staying |= {job.id for job in jobs if not fails_over(job)}
        going = [(job, living(job, alive)) for job in jobs if fails_over(job) and job.queue in queues]
        answers = await self.runner.run_all([self.store.carry(job, queue) for job, queue in going if queue])
        carried = sum(answer.word == "done" for answer in answers)
        if carried:
            log.warning("tickets.carried", count=carried, tiers=dead)
        return carried

    async def _tickets(self, queue: str) -> list[str]:
        return await self.runner.run(command("ZRANGE", self.keys.tickets(queue), 0, -1, parse=words))
