"""A job's spans and the ids of its log lines; of what was asked and answered only models, numbers and reasons."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from structlog.contextvars import bound_contextvars

from vessel.observe import tracing
from vessel.observe.tracing import (
    ATTEMPT,
    BATCH,
    CACHED_TOKENS,
    FINISH_REASONS,
    INPUT_TOKENS,
    JOB,
    OPERATION,
    OUTPUT_TOKENS,
    PRIORITY,
    PROVIDER,
    REASON,
    REASONING_TOKENS,
    REQUEST,
    REQUEST_MAX_TOKENS,
    REQUEST_MODEL,
    REQUEST_NUMBERS,
    REQUEST_STREAM,
    RESPONSE_ID,
    RESPONSE_MODEL,
    SERVER_ADDRESS,
    SERVER_PORT,
    TIER,
    Span,
    SpanKind,
)
from vessel.registry import Vessel
from vessel.upstream.outcome import Failure, Outcome, Success

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vessel.execute.plan import Plan
    from vessel.execute.process import Executor
    from vessel.jobs.model import Job

_ID = re.compile(rb'"id"\s*:\s*"([\w.:-]{1,128})"')
_HEAD = 400
"""Bytes of an answer in which its id is looked for."""
_PORTS = {"https": 443, "http": 80}


@contextmanager
def running(job: Job) -> Iterator[Span]:
    """Run a claim of a job under its trace; every log line within names job, batch, request and trace."""
    told = {JOB: job.id, BATCH: job.batch or None, TIER: job.tier, PRIORITY: str(job.priority),
            REQUEST: job.request_id or None}  # fmt: skip
    with tracing.span("run", SpanKind.CONSUMER, told, parent=job.trace) as span:
        ids = {"job_id": job.id, "batch_id": job.batch, "request_id": job.request_id,
               "trace_id": tracing.trace_id(tracing.current())}  # fmt: skip
        with bound_contextvars(**{name: value for name, value in ids.items() if value}):
            yield span


@contextmanager
def calling(executor: Executor, planned: Plan) -> Iterator[Span]:
    """Record one call of the upstream. The trace goes no further: the upstream is another company's."""
    call, settings, body = planned.call, executor.settings, planned.body
    elsewhere = call.model.vessel is Vessel.OPENAI
    where = urlsplit((settings.openai_base_url or "https://api.openai.com") if elsewhere else settings.groq_base_url)
    told: dict[str, Any] = {
        OPERATION: "chat",
        PROVIDER: str(call.model.vessel),
        REQUEST_MODEL: call.model.served_id,
        REQUEST_MAX_TOKENS: body.get("max_completion_tokens") or body.get("max_tokens"),
        REQUEST_STREAM: call.job.streams or None,
        SERVER_ADDRESS: where.hostname,
        SERVER_PORT: where.port or _PORTS.get(where.scheme),
        JOB: call.job.id,
        ATTEMPT: call.number,
        TIER: call.tier,
    }
    numbers = {REQUEST_NUMBERS[field]: body[field] for field in REQUEST_NUMBERS if _is_number(body.get(field))}
    with tracing.span(f"chat {call.model.served_id}", SpanKind.CLIENT, told | numbers) as span:
        yield span


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def ended(span: Span, outcome: Outcome) -> None:
    """Say how a call ended."""
    if not span.recording:
        return
    match outcome:
        case Success():
            found = _ID.search(outcome.body[:_HEAD])
            usage = outcome.usage
            span.set({RESPONSE_MODEL: outcome.model, FINISH_REASONS: [outcome.finish_reason],
                      RESPONSE_ID: found[1].decode() if found else None, INPUT_TOKENS: usage.prompt_tokens,
                      OUTPUT_TOKENS: usage.completion_tokens, CACHED_TOKENS: usage.cached_tokens,
                      REASONING_TOKENS: usage.reasoning_tokens})  # fmt: skip
        case Failure():
            if outcome.usage is not None:
                span.set({INPUT_TOKENS: outcome.usage.prompt_tokens, OUTPUT_TOKENS: outcome.usage.completion_tokens})
            span.set({REASON: str(outcome.reason)})
            span.fail(str(outcome.status or outcome.reason))
