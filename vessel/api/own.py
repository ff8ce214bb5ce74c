"""What a tenant sees of its own on the console: batches with their progress, the last failures, the newest jobs."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from vessel.api.cures import way_out
from vessel.batches.model import BatchStatus
from vessel.client import documents
from vessel.client.steps import Run, Steps
from vessel.control import budget
from vessel.keyspace.script import Call, command, word, words
from vessel.observe.moments import moment
from vessel.usage.budgets import WHOLE, read_budget
from vessel.watch.calls import jobs_page
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.batches.model import Batch
    from vessel.jobs.model import Job
    from vessel.submit import Door

NEWEST_BATCHES, BATCHES_SHOWN, BATCHES_READ = 20, 50, 8
"""Batches named in a look, described in all, and newly read in one look."""

OPEN_NAMED, OPEN_TOLD, OPEN_EVERY = 1000, 40, 5
"""Open batches of all tenants that are named, how many new ones are told apart, and every how many looks."""

ENDED_SHOWN = 30
"""For how many looks one that was seen to end is told, however old it is."""

FAILURES, JOBS, JOBS_READ = 20, 12, 8
"""Failures and jobs told, and how many records of either a look reads."""

WINDOW_MS, LEAST_MS = 60_000, 3_000
"""Over how long a batch's pace is measured, and from how short a time on a finish is estimated from it."""

KEPT = 2000


class OpenBatches:
    """The batches that have not ended, by tenant: whose one is never changes, so that it is read once."""

    def __init__(self, door: Door) -> None:
        """Look through this door; nothing is read yet."""
        self.door = door
        self._owners: dict[str, str] = {}
        self._looks = 0

    def look(self) -> Steps[None]:
        """Look, every few times; a new batch is also among its tenant's newest ones."""
        self._looks += 1
        if self._looks % OPEN_EVERY != 1:
            return
        ids = yield Run([command("ZRANGE", self.door.keys.open_batches, 0, OPEN_NAMED - 1, parse=words)])
        known = {i: self._owners[i] for i in ids[0] if i in self._owners}
        new = [i for i in ids[0] if i not in known][:OPEN_TOLD]
        if new:
            told = yield Run([command("HGET", self.door.keys.batch(i), "tenant", parse=word) for i in new])
            known |= dict(zip(new, told, strict=True))
        self._owners = known

    def of(self, tenant: str) -> list[str]:
        """Name a tenant's, the one whose window ends first before the others."""
        return [i for i, owner in self._owners.items() if owner == tenant]


class Own:
    """Looks at one tenant's work again and again; what has ended is read once."""

    def __init__(self, door: Door, tenant: str, open_batches: OpenBatches) -> None:
        """Look through this door; nothing is read yet."""
        self.door, self.tenant, self._open = door, tenant, open_batches
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._batches: OrderedDict[str, Batch] = OrderedDict()
        self._looked: dict[str, int] = {}
        self._read_at: dict[str, int] = {}
        self._ended: dict[str, int] = {}
        self._paces: dict[str, deque[tuple[int, int]]] = {}
        self._looks = 0

    def look(self, now: int) -> Steps[dict[str, Any]]:
        """Look once: sections for the page. Needs Redis."""
        door, keys = self.door, self.door.keys
        first: list[Call[Any]] = [
            command("ZRANGE", keys.batches(self.tenant), 0, NEWEST_BATCHES - 1, "REV", parse=words),
            command("ZCARD", keys.batches(self.tenant), parse=int),
            command("ZRANGE", keys.failures(self.tenant), 0, FAILURES + 4, "REV", parse=words),
            jobs_page(keys, 0, JOBS, self.tenant),
            budget(door, WHOLE), budget(door, self.tenant),
        ]  # fmt: skip
        newest, count, failed, jobs, *caps = yield Run(first)
        self._looks += 1
        yield from self._read_batches(now, newest)
        names = [job_id for job_id, _ in jobs]
        yield from self._read_jobs([*names, *failed])
        budgets = (read_budget(of, raw, now) for of, raw in zip((WHOLE, self.tenant), caps, strict=True))
        return {
            "batches": self._told_batches(now, newest, count),
            "failures": self._told_failures(failed),
            "jobs": [documents.job(self._jobs[i]) for i in names if i in self._jobs],
            "budgets": [documents.budget(cap) for cap in budgets if cap is not None],
        }

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def _read_jobs(self, ids: Sequence[str]) -> Steps[None]:
        wanted = [i for i in dict.fromkeys(ids) if i not in self._jobs or not self._jobs[i].terminal]
        looked = {i: self._looked.get(i, 0) for i in wanted}
        wanted = sorted(wanted, key=looked.__getitem__)[:JOBS_READ]
        self._looked = looked | dict.fromkeys(wanted, self._looks)
        found: list[Job | None] = (yield Run([self.door.store.peek(i) for i in wanted])) if wanted else []
        for job_id, job in zip(wanted, found, strict=True):
            if job is not None and job.tenant == self.tenant:
                self._jobs[job_id] = job
            else:
                self._jobs.pop(job_id, None)
        while len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)

    def _told_failures(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        found = [self._jobs[i] for i in ids if i in self._jobs]
        return [failure(job) for job in found if _failed(job)][:FAILURES]

    # --- batches ------------------------------------------------------------------------------------------------------

    def _read_batches(self, now: int, newest: Sequence[str]) -> Steps[None]:
        mine = self._open.of(self.tenant)[:BATCHES_SHOWN]
        # One that is not named any more has ended, or is hidden by many others: it is read to its end.
        left = [i for i, batch in self._batches.items() if not batch.ended]
        due = [
            i for i in dict.fromkeys([*mine, *newest, *left]) if i not in self._batches or not self._batches[i].ended
        ]
        due.sort(key=lambda i: self._read_at.get(i, 0))
        due = due[:BATCHES_READ]
        found: list[Batch | None] = (yield Run([self.door.batches.batch(i) for i in due])) if due else []
        for batch_id, batch in zip(due, found, strict=True):
            self._read_at[batch_id] = self._looks
            if batch is None or batch.tenant != self.tenant:
                self._batches.pop(batch_id, None)
                continue
            if batch.ended and batch_id in self._batches:
                self._ended[batch_id] = self._looks
            self._batches[batch_id] = batch
            self._note_pace(now, batch)
        self._ended = {i: look for i, look in self._ended.items() if look > self._looks - ENDED_SHOWN}
        while len(self._batches) > KEPT:
            gone, _ = self._batches.popitem(last=False)
            self._read_at.pop(gone, None)
            self._paces.pop(gone, None)

    def _note_pace(self, now: int, batch: Batch) -> None:
        if batch.ended:
            self._paces.pop(batch.id, None)
            return
        seen = self._paces.setdefault(batch.id, deque())
        seen.append((now, batch.completed + batch.failed))
        while len(seen) > 1 and seen[1][0] <= now - WINDOW_MS:
            seen.popleft()

    def _told_batches(self, now: int, newest: Sequence[str], count: int) -> dict[str, Any]:
        mine = self._open.of(self.tenant)
        shown = [self._batches[i] for i in dict.fromkeys([*mine, *newest, *self._ended]) if i in self._batches]
        shown.sort(key=lambda batch: (batch.ended, -batch.created_at, batch.id))
        rows = [batch_row(batch, now, self._per_ms(batch)) for batch in shown[:BATCHES_SHOWN]]
        return {
            "total": count,
            "open": sum(i not in self._batches or not self._batches[i].ended for i in {*mine, *newest}),
            "data": rows,
        }

    def _per_ms(self, batch: Batch) -> float:
        """Say how many lines end per millisecond: in the last minute, else since the batch began."""
        seen = self._paces.get(batch.id)
        if seen and seen[-1][0] - seen[0][0] >= LEAST_MS and seen[-1][1] > seen[0][1]:
            return (seen[-1][1] - seen[0][1]) / (seen[-1][0] - seen[0][0])
        began = dict(batch.times).get(BatchStatus.IN_PROGRESS)
        done = batch.completed + batch.failed
        if seen and began and done and seen[-1][0] - began >= LEAST_MS:
            return done / (seen[-1][0] - began)
        return 0.0


def batch_row(batch: Batch, now: int, per_ms: float) -> dict[str, Any]:
    """Describe a batch without its lines; `finish_at` follows from its pace, None where nothing has ended lately."""
    done = batch.completed + batch.failed
    left = max(0, batch.total - done)
    finish = now + int(left / per_ms) if per_ms and left and not batch.ended else None
    ends = [at for name, at in batch.times if name in {"completed", "failed", "expired", "cancelled"}]
    return {
        "id": batch.id,
        "status": str(batch.status),
        "ended": batch.ended,
        "model": batch.model or None,
        "metadata": batch.metadata,
        "total": batch.total,
        "completed": batch.completed,
        "failed": batch.failed,
        "per_minute": round(per_ms * 60_000, 1) if not batch.ended else None,
        "finish_at": moment(finish - finish % 1000) if finish else None,
        "created_at": moment(batch.created_at),
        "expires_at": moment(batch.expires_at),
        "ended_at": moment(max(ends)) if ends else None,
        "cost_usd": float(batch.cost_usd),
        "faults": [
            f"line {fault.line}: {fault.message}" if fault.line else fault.message for fault in batch.errors[:3]
        ],
    }


def failure(job: Job) -> dict[str, Any]:
    """Describe a job that ended without a result, and what to do about it."""
    return documents.job(job) | {"message": job.message or None, "batch": job.batch or None,
                                 "way_out": way_out(job.reason or str(job.state))}  # fmt: skip


def _failed(job: Job) -> bool:
    return job.state in {JobState.FAILED, JobState.EXPIRED} or (
        job.state is JobState.CANCELLED and job.reason not in {"", str(JobState.CANCELLED)}
    )
