"""What the tools give, as documents of a known shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vessel.client import documents
from vessel.mcp.catalog import Answer, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.client import Result
    from vessel.jobs.model import Job


class Given(BaseModel):
    """A document; the fields named are always there, others may come."""

    model_config = ConfigDict(frozen=True, extra="allow")


class UsageGiven(Given):
    """Tokens of the call that gave an answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


class SourceGiven(Given):
    """A page that an answer rests on."""

    url: str
    title: str
    content: str


class AnswerGiven(Given):
    """An answer with who gave it and what it cost."""

    text: Annotated[str, Field(description="The answer, or its beginning where `truncated`.")]
    text_length: Annotated[int, Field(description="Characters of the whole answer.")]
    truncated: Annotated[bool, Field(description="Whether there is more: get_job with an offset reads it.")]
    job_id: str
    model: Annotated[str, Field(description="The model that answered.")]
    tier: str
    vessel: Annotated[str, Field(description="groq, or openai when it failed over.")]
    finish_reason: str
    usage: UsageGiven
    cost_usd: float
    attempts: int


class CodeGiven(AnswerGiven):
    """An answer that is code."""

    code: Annotated[str, Field(description="The code without its Markdown fence.")]


class SourcedGiven(AnswerGiven):
    """An answer of a model with built-in tools."""

    sources: list[SourceGiven]
    executed_tools: Annotated[list[dict[str, Any]], Field(description="Built-in tools that ran, where it is told.")]


class JobAccepted(Given):
    """A job that is safely queued; as the result of a task, the ended job with all that get_job tells."""

    job_id: str
    state: str
    tier: str
    model: str
    existing: Annotated[bool, Field(description="Whether the idempotency key had made it before.")]


class JobGiven(Given):
    """A job, with its answer once it has one."""

    id: str
    state: Annotated[str, Field(description="queued, running, parked, succeeded, failed, cancelled or expired.")]
    tier: str
    model: str
    created_at: str | None
    finished_at: str | None
    reason: str | None
    message: str | None
    waiting: Annotated[dict[str, Any] | None, Field(description="Why it waits, and until when.")]
    attempts: list[dict[str, Any]]
    usage: dict[str, Any] | None
    cost_usd: float | None
    text: Annotated[str | None, Field(description="The answer from `offset` on; null before it has one.")]
    text_length: int
    truncated: Annotated[bool, Field(description="Whether there is more: go on with offset + the length of text.")]


class CancelledGiven(Given):
    """What became of a cancellation."""

    id: str
    state: Annotated[str, Field(description="cancelled; cancelling while its call is cut; or how it had ended.")]
    cancelled: bool


class BatchAccepted(Given):
    """A batch that is safely stored; as the result of a task, the ended batch with all that get_batch tells."""

    batch_id: str
    status: str
    total: Annotated[int, Field(description="How many lines it has.")]
    estimate: Annotated[dict[str, Any] | None, Field(description="What it will take and cost.")]


class LineGiven(Given):
    """What became of one line."""

    custom_id: str
    text: str | None
    truncated: bool
    error: dict[str, Any] | None


class BatchGiven(Given):
    """A batch as of this moment, with a page of its lines where it was asked for."""

    id: str
    status: str
    request_counts: dict[str, int]
    usage: dict[str, Any] | None
    lines: Annotated[list[LineGiven] | None, Field(description="The page asked for.")]
    next_cursor: Annotated[str | None, Field(description="Where the next page begins; null: nothing more yet.")]


class ModelsGiven(Given):
    """The models of the registry."""

    models: list[dict[str, Any]]
    tiers: list[dict[str, Any]]


class RouteGiven(Given):
    """Where a request would go, why, and what it would cost."""

    tier: str
    model: str
    reasons: list[str]
    chain: list[dict[str, Any]]
    builtin_tools: list[str]
    estimated_tokens: int
    max_output_tokens: int
    typical_cost_usd: float
    worst_cost_usd: float
    as_listed: bool
    live_workers: int | None


class UsageSums(Given):
    """Sums of calls, tokens and cost, by group and of all."""

    since: str
    until: str
    by: str
    data: list[dict[str, Any]]
    total: dict[str, Any]


class HealthGiven(Given):
    """How the vessel is."""

    status: Annotated[str, Field(description="healthy, degraded or unhealthy.")]
    redis: bool
    workers: Annotated[dict[str, int], Field(description="Live workers of each tier.")]
    waiting: dict[str, int]
    models_available: int
    open_breakers: list[str]
    maintenance: list[dict[str, Any]]
    advice: list[str]


def cut(whole: str, most: int, offset: int = 0) -> tuple[str, bool]:
    """Return a part of a text, and whether more follows."""
    return whole[offset : offset + most], len(whole) > offset + most


def result_fields(result: Result, most: int) -> dict[str, Any]:
    """Describe a result."""
    part, truncated = cut(result.text, most)
    usage = {name: getattr(result.usage, name) for name in type(result.usage).__slots__}
    return {
        "text": part,
        "text_length": len(result.text),
        "truncated": truncated,
        "job_id": result.job_id,
        "model": result.model,
        "tier": result.tier,
        "vessel": result.vessel,
        "finish_reason": result.finish_reason,
        "usage": {"total_tokens": usage["prompt_tokens"] + usage["completion_tokens"], **usage},
        "cost_usd": float(result.cost_usd),
        "attempts": len(result.attempts),
    }


def answered(document: dict[str, Any], *, shown: Sequence[str] = ("text",)) -> Answer:
    """Give an answer: its text as a model reads it, and then who gave it, so that neither is read twice."""
    words = str(document[shown[0]])
    if document["truncated"]:
        words += (
            f"\n\n[Cut after {len(document['text']):,} of {document['text_length']:,} characters. The rest: get_job "
            f"with job_id {document['job_id']} and offset {len(document['text'])}.]"
        )
    about = {key: value for key, value in document.items() if key not in {"text", *shown}}
    return Answer(document, [text(words), text(json.dumps(about, ensure_ascii=False, separators=(",", ":")))])


def text_of(job: Job) -> str | None:
    """Return the answer of a job that has one."""
    if not job.response:
        return None
    choices = json.loads(job.response).get("choices")
    message = choices[0].get("message") if isinstance(choices, list) and choices else None
    found = message.get("content") if isinstance(message, dict) else None
    return found if isinstance(found, str) else ""


def job_fields(job: Job, waiting: dict[str, Any] | None, most: int, offset: int = 0) -> dict[str, Any]:
    """Describe a job, with a part of its answer."""
    whole = text_of(job)
    part, truncated = cut(whole or "", most, offset)
    return documents.job(job, whole=True) | {
        "waiting": waiting,
        "text": None if whole is None else part,
        "text_length": len(whole or ""),
        "truncated": truncated,
    }
