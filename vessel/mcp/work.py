"""Our jobs and batches as tasks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vessel.batches.model import BatchStatus
from vessel.client import BatchNotFound
from vessel.errors import JobNotFound, WrongState
from vessel.jobs.record import JOB_ID
from vessel.mcp.asks import DEFAULT_CHARS, GetBatch
from vessel.mcp.attending import attended, batch_told, described
from vessel.mcp.catalog import Answer, Task, text
from vessel.mcp.working import LOOK_S, ended, get_batch, job_answer
from vessel.observe.moments import moment
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.client import Batch
    from vessel.jobs.model import Job
    from vessel.mcp.catalog import Call

_BATCH_ID = re.compile(r"batch_[0-9a-f]{32}")
LISTED = 50


class Work:
    """Finds jobs and batches by their ids, each caller only their own."""

    async def get(self, call: Call, task_id: str) -> Task:
        """Read one, with its result where it has ended. Raises JobNotFound."""
        if _BATCH_ID.fullmatch(task_id):
            return await self._batch(call, task_id)
        if not JOB_ID.fullmatch(task_id):
            raise JobNotFound
        job = await call.client.job(task_id)
        message = "" if job.terminal else await described(call.client, task_id)
        answer = await _ended_job(call, job) if job.terminal else None
        return _job_task(call, job, message, answer)

    async def wait(self, call: Call, task_id: str) -> Task:
        """Wait for its end; the work goes on if the caller leaves."""
        if _BATCH_ID.fullmatch(task_id):
            client = call.client
            await attended(call, batch_told(call, lambda: client.batch_progress(task_id), LOOK_S, None))
        else:
            await attended(call, ended(call, task_id, None))
        return await self.get(call, task_id)

    async def cancel(self, call: Call, task_id: str) -> bool:
        """Cancel it."""
        if _BATCH_ID.fullmatch(task_id):
            try:
                await call.client.cancel_batch(task_id)
            except WrongState:
                return False
            return True
        return await call.client.cancel(task_id) in {"cancelled", "cancelling"}

    async def page(self, call: Call) -> Sequence[Task]:
        """List the newest batches and jobs."""
        batches = [_batch_task(call, batch, None) for batch in await call.client.batches(LISTED)]
        jobs = [_job_task(call, job, "", None) for job in await call.client.jobs(limit=LISTED) if not job.batch]
        return sorted([*batches, *jobs], key=lambda task: task.created_at, reverse=True)[:LISTED]

    async def _batch(self, call: Call, batch_id: str) -> Task:
        try:
            batch = await call.client.batch_progress(batch_id)
        except BatchNotFound:
            raise JobNotFound from None
        answer = None
        if batch.ended:
            told = await get_batch(call, GetBatch(batch_id=batch_id, part="results", limit=100))
            # Clients check the end of a task against the schema of the tool that began it.
            document = {**(told.document or {}), "batch_id": batch_id, "total": batch.total, "estimate": None}
            answer = Answer(document, is_error=batch.status is BatchStatus.FAILED)
        return _batch_task(call, batch, answer)


async def _ended_job(call: Call, job: Job) -> Answer:
    if job.state is JobState.SUCCEEDED:
        answer = await job_answer(call, job.id, DEFAULT_CHARS)
        return Answer({**(answer.document or {}), "job_id": job.id, "existing": True}, answer.content)
    words = f"Job {job.id} {job.state} ({job.reason}): {job.message or 'no attempt gave an answer'}"
    return Answer(None, [text(f"{words}. get_job tells every attempt.")], is_error=True)


def _job_task(call: Call, job: Job, message: str, answer: Answer | None) -> Task:
    state = "working"
    if job.terminal:
        state = "cancelled" if job.state is JobState.CANCELLED else "completed"
        answer = None if state == "cancelled" else answer
    return Task(job.id, state, message or str(job.state), moment(job.created_at) or "", moment(job.updated_at) or "",
                _ttl_ms(call, job.created_at, job.finished_at), answer)  # fmt: skip


def _batch_task(call: Call, batch: Batch, answer: Answer | None) -> Task:
    state = "working"
    if batch.ended:
        state = "cancelled" if batch.status is BatchStatus.CANCELLED else "completed"
        answer = None if state == "cancelled" else answer
    done = batch.completed + batch.failed
    message = f"{batch.status}: {done:,} of {batch.total:,} lines ended, {batch.failed:,} of them without a result"
    times = [at for _, at in batch.times]
    finished = max(times, default=None) if batch.ended else None
    updated = max([batch.created_at, *times])
    return Task(batch.id, state, message, moment(batch.created_at) or "", moment(updated) or "",
                _ttl_ms(call, batch.created_at, finished), answer)  # fmt: skip


def _ttl_ms(call: Call, created: int, finished: int | None) -> int | None:
    """Say how long after its creation it can be read; open work is kept until it has ended."""
    if finished is None:
        return None
    return finished - created + call.client.door.settings.result_ttl * 1000
