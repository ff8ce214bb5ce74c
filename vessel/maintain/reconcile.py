"""Find tickets that were lost between Redis and a worker, and issue them anew.

Celery's BRPOP takes a message out before it is noted as unacknowledged; a worker that dies in between loses it for
good (celery-facts 1.4). A ticket is lost when its job is still queued, it is not in its list any more, and no worker
holds its message. Tickets are consumed in order, so all older than the list's next one have left it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from vessel.dispatch.queues import queues_of
from vessel.dispatch.ticket import parse
from vessel.keyspace.script import command, timed, word
from vessel.keyspace.server import clock
from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from vessel.keyspace.connect import AsyncRunner
    from vessel.submit import Door

SUSPECT_AFTER_MS = 1500
HELD_AT_MOST_MS = 30_000
"""A message a worker has held this long without claiming is taken as lost with its worker; a late one drops."""

CANDIDATES = 500

log = get_logger(__name__)


class Suspect(NamedTuple):
    """A ticket that seems lost: where it was noted, and when it was issued."""

    queue: str
    job_id: str
    issued: int


def issued_at(raw: bytes) -> int | None:
    """Read when Lua issued a ticket from its tag `job:generation:time`; None for any other message."""
    try:
        return int(json.loads(raw)["properties"]["delivery_tag"].rpartition(":")[2])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


class Reconciler:
    """Compares issued tickets with what is in the lists and in workers' hands; a suspicion must hold for two ticks."""

    def __init__(self, door: Door, runner: AsyncRunner) -> None:
        """Take the shared handles."""
        self.keys, self.store, self.runner = door.keys, door.store, runner
        self.queues = queues_of(door.registry.tiers)
        self._suspects: set[Suspect] = set()

    async def tick(self) -> None:
        """Reissue what was suspected at the last tick and still is."""
        now = await self.runner.run(clock())
        old = await self.runner.run_all([self._issued_before(q, now - SUSPECT_AFTER_MS) for q in self.queues])
        waiting = {queue: found for queue, found in zip(self.queues, old, strict=True) if found}
        if not waiting:
            self._suspects.clear()
            return
        suspects: set[Suspect] = set()
        for queue, found in waiting.items():
            oldest_in_list = await self._next_in_list(queue, now)
            suspects |= {Suspect(queue, job_id, issued) for job_id, issued in found if issued < oldest_in_list}
        # Lists first: a message that left its list before is in a worker's hands by now, or claimed.
        in_hand = await self._in_hand() if suspects else frozenset()
        suspects = {s for s in suspects if s.job_id not in in_hand or now - s.issued >= HELD_AT_MOST_MS}
        await self._reissue(sorted(suspects & self._suspects))
        self._suspects = suspects - self._suspects

    def _issued_before(self, queue: str, then: float) -> Any:
        return command(
            "ZRANGE", self.keys.tickets(queue), "-inf", int(then), "BYSCORE", "LIMIT", 0, CANDIDATES, "WITHSCORES",
            parse=timed,
        )  # fmt: skip

    async def _next_in_list(self, queue: str, now: int) -> int:
        """Return when the ticket that a worker would take next was issued; `now` where the list is empty.

        Its jobs may have been issued anew since, so what counts is the time in its tag, or else their creation.
        """
        raw = await self.runner.run(command("LINDEX", self.keys.queue(queue), -1, parse=lambda value: value))
        if raw is None:
            return now
        issued = issued_at(raw)
        if issued is not None:
            return issued
        created = await self.runner.run_all(
            [command("HGET", self.keys.job(job_id), "created", parse=word) for job_id, _ in parse(raw)]
        )
        return min((int(at) for at in created if at), default=0)

    async def _in_hand(self) -> AbstractSet[str]:
        """Name the jobs whose message some worker has taken and not acknowledged."""
        held = await self.runner.run(command("HVALS", self.keys.unacked, parse=list))
        found: set[str] = set()
        for raw in held:
            try:
                found.update(job_id for job_id, _ in parse(json.dumps(json.loads(raw)[0])))
            except (ValueError, LookupError, TypeError):
                continue
        return found

    async def _reissue(self, lost: list[Suspect]) -> None:
        jobs = await self.runner.run_all([self.store.peek(suspect.job_id) for suspect in lost])
        found = [(suspect, job) for suspect, job in zip(lost, jobs, strict=True) if job]
        gone = [suspect for suspect, job in zip(lost, jobs, strict=True) if not job]
        await self.runner.run_all([command("ZREM", self.keys.tickets(s.queue), s.job_id, parse=word) for s in gone])
        answers = await self.runner.run_all([self.store.reissue(job, s.queue, s.issued) for s, job in found])
        again = sum(answer.word == "done" for answer in answers)
        if again:
            log.warning("tickets.reissued", count=again)
