"""What one attempt sends: model, output bound and body for the hop the job is on, and what that charges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.gate.flex import FLEX, flex_gate
from vessel.gate.history import kind_of
from vessel.gate.limiter import Charge, configured
from vessel.gate.tokens import max_prompt_tokens
from vessel.observe.logs import get_logger
from vessel.registry import Vessel, resolve, vessel_of
from vessel.routing.needs import needs_of
from vessel.routing.output import affordable_output_tokens, asked_output_tokens, output_tokens
from vessel.upstream.outcome import Failure, Reason
from vessel.upstream.translate import leave_out_groqs, translate
from vessel.usage.prices import tools_reserve_nano_usd, worst_case_nano_usd
from vessel.usage.rows import Call
from vessel.wire import ChatRequest, Policy, Submission

if TYPE_CHECKING:
    from vessel.execute.process import Executor
    from vessel.jobs.model import Job
    from vessel.registry import Limits, Model

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is about to be sent."""

    call: Call
    body: dict[str, object]
    deadline_s: float
    kind: str | None = None
    """Of which history its answer is a part; None where the caller set a bound, or no history is kept."""


def plan(executor: Executor, job: Job, policy: Policy, hop: int) -> Plan | Failure:
    """Choose model, output bound and body for a hop, or say why nothing can be sent."""
    model = _model(executor, job.hops[hop].model)
    if isinstance(model, Failure):
        return model
    body = job.request()
    request = ChatRequest.model_validate(body)
    lacking = _lacking(job, request, policy, model)
    if lacking is not None:
        return lacking
    limits = model.limits.get(executor.settings.groq_plan)
    kind = None if asked_output_tokens(request) else kind_of(request, policy)
    most_prompt = max_prompt_tokens(len(job.body))
    fees = tools_reserve_nano_usd(executor.registry, model, job.builtin_tools, executor.settings.call_timeout)
    output = affordable_output_tokens(
        request,
        model,
        output_tokens(request, model, limits, job.estimated_tokens, executor.history.cap(kind, model)),
        most_prompt_tokens=most_prompt,
        cap_usd=policy.max_cost_usd,
        spent_nano=job.spent_nano_usd,
        fees_nano=fees,
    )
    if output is None:
        text = f"Another call on {model.id} could pass max_cost_usd={policy.max_cost_usd:f}; it was not made."
        return Failure(model.id, Reason.TOO_LARGE, text, detail="max_cost_usd")
    translated, notes = _translated(job, body, model, output)
    worst = worst_case_nano_usd(model, most_prompt, output) + fees  # not the estimate, which a bill may pass
    call = Call(
        job=job,
        number=len(job.attempts) + 1,
        model=model,
        tier=job.hops[hop].tier,
        worker=executor.worker,
        prompt_tokens=job.estimated_tokens,
        output_tokens=output,
        worst_nano_usd=worst,
        charge=_charge(executor.settings.org, model, limits, body, job.estimated_tokens, output, worst),
        notes=notes,
        registry=executor.registry,
    )
    return Plan(call, translated, _deadline_s(executor, job), kind)


def _model(executor: Executor, wanted: str) -> Model | Failure:
    """Return what serves a hop today: the model or its successor, or the failover vessel's as it is set now."""
    if vessel_of(wanted) is Vessel.OPENAI:
        if executor.door.failover is not None:
            return executor.door.failover.model
        text = "No failover model is set at this worker, so nothing was sent. Set VESSEL_FAILOVER_MODEL there."
        return Failure(wanted, Reason.NO_KEY, text)
    known = wanted in executor.registry.models  # the job may have been made with another registry
    model_id = resolve(executor.registry, wanted, executor.availability) if known else None
    if model_id is None:
        return Failure(wanted, Reason.MODEL_GONE, f"{wanted} is not served any more and has no successor.")
    return executor.registry.model(model_id)


def _lacking(job: Job, request: ChatRequest, policy: Policy, model: Model) -> Failure | None:
    """Refuse a model that lacks the built-in tools that were named: a successor may serve a hop that had them."""
    if not job.builtin_tools:
        return None
    needs = needs_of(Submission(job.body, request, policy))
    missing = needs.tools_missing(model)
    if not needs.named_tools or not (missing or needs.tools_refused(model)):
        return None
    what = f"has nothing like {' and '.join(missing)}" if missing else "takes no tools with a response_format"
    text = f"{model.id}, which serves this job now, {what}; it was not called."
    return Failure(model.id, Reason.LACKS_TOOLS, text)


def _translated(job: Job, body: dict[str, Any], model: Model, output: int) -> tuple[dict[str, object], tuple[str, ...]]:
    translated, notes = translate(
        body,
        model_id=model.served_id,
        features=frozenset(str(f) for f in model.features),
        reasoning_efforts=model.reasoning_efforts,
        builtin_tools=job.builtin_tools,
        max_completion_tokens=output,
    )
    if model.vessel is Vessel.OPENAI:
        translated, more = leave_out_groqs(translated, model.served_id)
        notes += more
    for note in notes:
        log.info("job.translated", job_id=job.id, model=model.id, note=note)
    return translated, tuple(notes)


def _charge(
    org: str, model: Model, limits: Limits | None, body: dict[str, Any], prompt: int, output: int, worst_nano: int
) -> Charge:
    figures, gate = configured(limits), model.id
    if body.get("service_tier") == FLEX and model.vessel is Vessel.GROQ:
        gate, figures = flex_gate(gate, figures)
    concurrency = (limits.concurrency if limits else None) or 0
    return Charge(gate, org, figures, prompt, output, worst_nano, concurrency)


def _deadline_s(executor: Executor, job: Job) -> float:
    limit = float(executor.settings.call_timeout)
    if job.deadline_at is None:
        return limit
    left = (job.deadline_at - executor.now_ms()) / 1000
    return max(0.001, min(limit, left))
