"""The tools of long work: jobs and batches that are handed over, looked at, followed and cancelled."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from mcp_types import ToolAnnotations

from vessel.client import documents
from vessel.client.batching import ERR, OUT, Document, read_result
from vessel.client.steps import Run, Steps, drive_async
from vessel.errors import InvalidRequest, WaitTimeout, WrongState
from vessel.mcp.answers import (
    BatchAccepted,
    BatchGiven,
    CancelledGiven,
    JobAccepted,
    JobGiven,
    cut,
    job_fields,
)
from vessel.mcp.asks import MOST_CHARS, Cancel, GetBatch, GetJob, SubmitBatch, SubmitJob
from vessel.mcp.attending import attended, batch_told, followed
from vessel.mcp.catalog import Answer, Tool, text

if TYPE_CHECKING:
    from vessel.client import AsyncGroqClient, Batch, Estimate
    from vessel.client.steps import Effect
    from vessel.jobs.model import Job
    from vessel.mcp.catalog import Call

LOOK_S = 0.5
SUBMITS = ToolAnnotations(read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=True)
READS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
CANCELS = ToolAnnotations(read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False)
BATCH = "batch_"


async def submit_job(call: Call, asked: SubmitJob) -> Answer:
    """Enqueue and give the id."""
    handle = await call.client.submit(asked.prompt, **asked.options())
    state = await handle.state()
    return Answer({"job_id": handle.id, "state": str(state), "tier": handle.tier, "model": handle.model,
                   "existing": handle.existing})  # fmt: skip


async def get_job(call: Call, asked: GetJob) -> Answer:
    """Look at a job, after a wait for its end where that was asked for."""
    if asked.wait_s:
        await attended(call, followed(call, ended(call, asked.job_id, asked.wait_s), lambda: _known(asked.job_id)))
    return await job_answer(call, asked.job_id, asked.max_chars, asked.offset)


async def _known(job_id: str) -> str:
    return job_id


async def ended(call: Call, job_id: str, wait_s: float | None) -> None:
    """Wait until a job has ended or the time is over. Raises JobNotFound."""
    try:
        async for _ in call.client.wait([job_id], timeout=wait_s):
            return
    except WaitTimeout:
        return


async def job_answer(call: Call, job_id: str, most: int, offset: int = 0) -> Answer:
    """Describe a job; a model reads its answer first, as a text."""
    client = call.client
    job = await client.job(job_id)
    waiting = None if job.terminal else documents.waiting(await client.waiting(job))
    document = job_fields(job, waiting, most, offset)
    if document["text"] is None:
        return Answer(document)
    about = {key: value for key, value in document.items() if key != "text"}
    return Answer(document, [text(document["text"]), text(json.dumps(about, ensure_ascii=False))])


async def cancel_job(call: Call, asked: Cancel) -> Answer:
    """Cancel a job or a batch; what has ended stays as it is."""
    if asked.job_id.startswith(BATCH):
        try:
            batch = await call.client.cancel_batch(asked.job_id)
        except WrongState:
            batch = await call.client.batch_progress(asked.job_id)
            return _cancelled(asked.job_id, str(batch.status), cancelled=str(batch.status) == "cancelled")
        return _cancelled(batch.id, str(batch.status), cancelled=True)
    state = await call.client.cancel(asked.job_id)
    return _cancelled(asked.job_id, state, cancelled=state in {"cancelled", "cancelling"})


def _cancelled(name: str, state: str, *, cancelled: bool) -> Answer:
    return Answer({"id": name, "state": state, "cancelled": cancelled})


async def submit_batch(call: Call, asked: SubmitBatch) -> Answer:
    """Check every line, store the batch and give its id."""
    source: Any = asked.path
    if asked.path is not None and not call.visitor.local:
        text_ = "path: a file of the server's machine can only be named over stdio. Send `requests`, or upload a file "
        raise InvalidRequest(f"{text_}by POST /v1/files and make a batch of it by POST /v1/batches.", param="path")
    if asked.requests is not None:
        source = [line.model_dump(exclude_none=True) for line in asked.requests]
    handle = await call.client.submit_batch(
        source, window=asked.window, metadata=asked.metadata, idempotency_key=asked.idempotency_key
    )
    batch = await handle.progress()
    return Answer({"batch_id": batch.id, "status": str(batch.status), "total": batch.total,
                   "estimate": _estimate(handle.estimate)})  # fmt: skip


def _estimate(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"typical_cost_usd": float(found.typical_cost_usd), "worst_cost_usd": float(found.worst_cost_usd),
            "seconds": found.seconds, "models": [part.model for part in found.models]}  # fmt: skip


async def get_batch(call: Call, asked: GetBatch) -> Answer:
    """Look at a batch, after a wait for its end where that was asked for, with a page of its lines."""
    client, batch_id = call.client, asked.batch_id

    async def read() -> Batch:
        return await client.batch_progress(batch_id)

    if asked.wait_s:
        until = asyncio.get_running_loop().time() + asked.wait_s
        batch = await attended(call, batch_told(call, read, LOOK_S, until))
    else:
        batch = await read()
    lines, following = None, None
    if asked.part != "progress":
        lines, following = await page(client, batch_id, asked)
    return Answer(batch_document(batch) | {"lines": lines, "next_cursor": following})


def batch_document(batch: Batch) -> dict[str, Any]:
    """Describe a batch as REST does."""
    return batch.as_dict()


async def page(client: AsyncGroqClient, batch_id: str, asked: GetBatch) -> tuple[list[dict[str, Any]], str | None]:
    """Read a page of a batch's results or errors, and where the next one begins.

    The cursor names an entry of the document, how many lines of it were read, and how many of the next ones.
    """
    entry, skip, taken = (int(part) for part in (asked.cursor or "0-0-0").split("-"))
    document = Document(client.door, batch_id, OUT if asked.part == "results" else ERR, (entry, skip))
    rows = await _run(client, document.more())
    shown = rows[taken : taken + asked.limit]
    most = min(asked.max_chars, MOST_CHARS // max(1, len(shown)))
    lines = [_line(row, most) for row in shown]
    if not rows or (not shown and taken >= len(rows)):
        return lines, None
    if taken + len(shown) < len(rows):
        return lines, f"{entry}-{skip}-{taken + len(shown)}"
    entry, skip = document.cursor
    return lines, f"{entry}-{skip}-0" if await _run(client, document.more()) else None


def _line(row: bytes, most: int) -> dict[str, Any]:
    result = read_result(row)
    words, truncated = cut(result.text, most)
    return {"custom_id": result.custom_id, "text": words if result.response else None, "truncated": truncated,
            "error": result.error}  # fmt: skip


async def _run(client: AsyncGroqClient, steps: Steps[list[bytes]]) -> list[bytes]:
    async def perform(effect: Effect) -> Any:
        if not isinstance(effect, Run):
            raise TypeError(type(effect).__name__)
        return await client.runner.run_all(effect.calls)

    return await drive_async(steps, perform)


async def jobs_of(call: Call, limit: int) -> list[Job]:
    """List a caller's newest jobs."""
    return await call.client.jobs(limit=limit)


TOOLS = (
    Tool(
        "submit_job",
        "Submit a job",
        "Queue a request and return its id at once; it runs on when you are gone. Read it with get_job.",
        SubmitJob,
        submit_job,
        SUBMITS,
        JobAccepted,
        starts_task=True,
    ),
    Tool(
        "get_job",
        "Look at a job",
        "Tell where a job stands, why it waits and until when, and its answer once it has one. wait_s waits for its "
        "end; offset reads on in a long answer.",
        GetJob,
        get_job,
        READS,
        JobGiven,
    ),
    Tool(
        "cancel_job",
        "Cancel a job or batch",
        "Cancel a job or a batch by its id. Answers that are there stay; one that has ended is left as it is.",
        Cancel,
        cancel_job,
        CANCELS,
        CancelledGiven,
    ),
    Tool(
        "submit_batch",
        "Submit a batch",
        "Queue many requests as one batch and return its id at once. All lines are checked first; if one is wrong, "
        "nothing is sent. It runs on when you are gone: follow it with get_batch.",
        SubmitBatch,
        submit_batch,
        SUBMITS,
        BatchAccepted,
        starts_task=True,
    ),
    Tool(
        "get_batch",
        "Look at a batch",
        "Tell how far a batch is; with part results or errors also a page of its lines. wait_s waits for its end.",
        GetBatch,
        get_batch,
        READS,
        BatchGiven,
    ),
)
