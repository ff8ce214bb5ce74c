"""Answers as values of a type: asked for as strictly as the model can, checked, and repaired where they do not fit."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.client.looking import with_body
from vessel.client.request import Ask
from vessel.client.result import Result
from vessel.client.schema import Fault, Form, Unfit, form_of
from vessel.errors import InvalidRequest, JobFailed
from vessel.watch import succeeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.client.asking import Asking, Replies
    from vessel.client.steps import Steps
    from vessel.jobs.model import Job

MOST_REPAIRS = 2
"""How often an answer that does not fit is asked for again; each time is a job that is paid for."""

MOST_TAGS = 16
_FIRST_ONLY = ("idempotency_key", "webhook", "deadline", "max_cost_usd")


class InvalidAnswer(JobFailed):
    """The job was answered, but no answer fits `response_model`."""

    code = "invalid_answer"

    def __init__(self, result: Result, faults: Sequence[Fault], repairs: Sequence[Result], why: str) -> None:
        """Hold the last answer, and those before it; neither text nor repr of the error shows any of them."""
        self.result = result
        self.repairs = tuple(repairs)
        self.faults = tuple(f"{fault.place}: {fault.kind}" for fault in faults)
        attempts = [attempt for answer in (*repairs, result) for attempt in answer.attempts]
        found = "; ".join(self.faults[:3]) + ("; ..." if len(self.faults) > 3 else "")  # noqa: PLR2004  enough to see it
        text = f"its answer does not fit response_model ({found}). {why} `vessel job {result.job_id}` shows it."
        super().__init__(result.job_id, "succeeded", "invalid_answer", text, attempts)


def shaped(ask: Ask, form: Form) -> Ask:
    """Ask for a form: strictly, else by a schema, else by JSON mode and the schema in words, as the models can."""
    if "response_format" in ask.body:
        raise InvalidRequest("response_model: give it or response_format, not both.", param="response_model")
    if ask.streaming or ask.body.get("stream"):
        raise InvalidRequest("response_model: Groq does not stream structured output.", param="response_model")
    if ask.body.get("tools") and ask.body.get("tool_choice") != "none":
        text = "Groq refuses structured output together with tools. Ask in two steps."
        raise InvalidRequest(f"response_model: {text}", param="response_model")
    schema = {"name": form.name, "schema": form.schema}
    in_words = replace(ask, body=_in_words(ask.body, form))
    loosely = replace(ask, body={**ask.body, "response_format": _by_schema(schema, strict=False)}, otherwise=in_words)
    if not form.strict:
        return loosely
    return replace(ask, body={**ask.body, "response_format": _by_schema(schema, strict=True)}, otherwise=loosely)


def _by_schema(schema: Mapping[str, Any], *, strict: bool) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {**schema, "strict": strict}}


def _in_words(body: Mapping[str, Any], form: Form) -> dict[str, Any]:
    schema = json.dumps(form.schema, ensure_ascii=False, separators=(",", ":"))
    wish = f"Answer with one JSON object and nothing else. It must fit this JSON schema:\n{schema}"
    told = {"role": "system", "content": wish}
    messages = list(body["messages"])
    at = next((n for n, m in enumerate(messages) if m.get("role") not in {"system", "developer"}), len(messages))
    return {**body, "messages": [*messages[:at], told, *messages[at:]], "response_format": {"type": "json_object"}}


def asked(asking: Asking, ask: Ask, wanted: Any, replies: Replies, timeout_s: float | None) -> Steps[Result[Any]]:
    """Ask and wait; with a wanted type the result's `parsed` is of it. Raises as `Asking.answer`, and InvalidAnswer."""
    if wanted is None:
        return Result((yield from asking.answer(ask, replies, timeout_s)))
    form, until = form_of(wanted), _until(timeout_s)
    job = yield from asking.answer(shaped(ask, form), replies, timeout_s)
    return (yield from settled(asking, job, form, replies, until))


def result_of(
    asking: Asking, job_id: str, form: Form | None, replies: Replies, timeout_s: float | None
) -> Steps[Result[Any]]:
    """Wait for a job's result, read by a form where there is one. Raises JobFailed, WaitTimeout, InvalidAnswer."""
    until = _until(timeout_s)
    job = succeeded((yield from asking.end_of(job_id, replies, timeout_s)))
    if form is None:
        return Result(job)
    return (yield from settled(asking, job, form, replies, until, lasting=True))


def settled(
    asking: Asking, job: Job, form: Form, replies: Replies, until: float | None, *, lasting: bool = False
) -> Steps[Result[Any]]:
    """Read an answer, and ask again, at most twice, where it does not fit.

    A repair is a job of its own, found again by whoever asks the same: it is paid for once. `lasting`: an interrupt
    leaves it be. Raises InvalidAnswer; JobFailed of a repair.
    """
    first, before = job, list[Result]()
    while True:
        result = Result(job)
        try:
            return Result(job, parsed=form.read(result.text), repairs=before)
        except Unfit as unfit:
            faults = unfit.faults
        if (why := _hopeless(result, before)) is not None:
            raise InvalidAnswer(result, faults, before, why)
        job = yield from with_body(asking.door, job)
        before.append(result)
        try:
            ask = _repair(job, form, faults, first, before)
            job = yield from asking.answer(ask, replies, _left(until), lasting=lasting)
        except InvalidRequest as fault:
            raise InvalidAnswer(result, faults, before[:-1], f"No repair was possible: {fault.message}") from None
        except JobFailed as failed:
            failed.add_note(f"It was to repair the answer of job {first.id}, which does not fit response_model.")
            raise


def _hopeless(result: Result, before: Sequence[Result]) -> str | None:
    """Say why no further repair is tried."""
    if result.finish_reason == "length":
        return "It was cut at its output limit; raise max_completion_tokens."
    if len(before) >= MOST_REPAIRS:
        return f"Neither did {len(before)} answers before it."
    return None


def _repair(job: Job, form: Form, faults: Sequence[Fault], first: Job, before: Sequence[Result]) -> Ask:
    """Ask again in the same conversation, within what is left of the deadline and the cost cap."""
    answer = before[-1].text
    told = "\n".join(f"- {fault.told}" for fault in faults)
    complaint = (
        f"This does not fit the JSON schema that was asked for:\n{told}\nAnswer again, with the whole JSON only."
    )
    body = {name: value for name, value in job.request().items() if name not in {"stream", "stream_options"}}
    said = [{"role": "assistant", "content": answer}] if answer else []
    body["messages"] = [*body["messages"], *said, {"role": "user", "content": complaint}]
    policy = {name: value for name, value in job.policy.items() if name not in _FIRST_ONLY}
    policy |= {"priority": str(job.priority), "idempotency_key": f"repair-{len(before)}-of-{first.id}-{_digest(form)}"}
    policy |= _left_of(first, job, sum((r.cost_usd for r in before), start=Decimal(0)))
    tags: Mapping[str, str] = policy.get("tags") or {}
    if len(tags) < MOST_TAGS:
        policy["tags"] = {**tags, "repair_of": first.id}
    ask = Ask(body, policy)
    if "response_format" not in body:
        ask = shaped(ask, form)
    if body.get("model") or policy.get("tier") or policy.get("task_type"):
        return ask
    # The longer text must not lead to another tier, unless the tier's own model cannot do this.
    return replace(ask, policy={**policy, "tier": job.tier}, otherwise=ask)


def _left_of(first: Job, last: Job, spent: Decimal) -> dict[str, Any]:
    """Say what the first job's bounds leave to a repair. Raises InvalidRequest where that is nothing."""
    left: dict[str, Any] = {}
    cap = first.policy.get("max_cost_usd")
    if cap is not None:
        left["max_cost_usd"] = Decimal(str(cap)) - spent
        if left["max_cost_usd"] <= 0:
            raise InvalidRequest("max_cost_usd is used up.", param="vessel.max_cost_usd")
    if first.deadline_at is not None:
        left["deadline"] = (first.deadline_at - (last.finished_at or last.updated_at)) / 1000
        if left["deadline"] <= 0:
            raise InvalidRequest("The deadline has passed.", param="vessel.deadline")
    return left


def _digest(form: Form) -> str:
    return hashlib.sha256(json.dumps(form.schema, sort_keys=True).encode()).hexdigest()[:12]


def _until(timeout_s: float | None) -> float | None:
    return None if timeout_s is None else time.monotonic() + timeout_s


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())
