"""Which tier and model a request is for, before anything is known about who serves it: contract 4's precedence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vessel.errors import UnknownModel, UnsupportedContent
from vessel.registry import Feature, Kind, no_tier, resolve
from vessel.routing.needs import wished
from vessel.wire import SpeedPriority, TaskType

if TYPE_CHECKING:
    from vessel.registry import Availability, Failover, Model, Registry
    from vessel.routing.needs import Needs
    from vessel.wire import ChatRequest, Submission

AUTO = "auto"
TASK_TIERS = {
    TaskType.CLASSIFICATION: "ultra_fast",
    TaskType.EXTRACTION: "ultra_fast",
    TaskType.QA: "ultra_fast",
    TaskType.TECHNICAL_QA: "balanced",
    TaskType.CODING: "balanced",
    TaskType.GENERAL: "balanced",
    TaskType.STRATEGIC_ANALYSIS: "power",
    TaskType.DEEP_REASONING: "power",
    TaskType.RESEARCH: "compound",
    TaskType.REALTIME: "speed_demon",
}
"""The seed's decision matrix."""

COMPLEX_WORDS = ("analyze", "design", "architect", "strategy", "compare", "evaluate", "synthesize")
SIMPLE_BELOW_WORDS = 20


@dataclass(frozen=True, slots=True)
class Choice:
    """The model in mind, the tier whose queue is used, and why; `explicit` when the caller named one of them."""

    model: str
    tier: str
    task: str
    reason: str
    explicit: bool = False


IMAGES_TIER = "balanced"
"""The queue for images where no tier's model takes them and the failover vessel does."""


def choose(
    submission: Submission,
    registry: Registry,
    availability: Availability,
    needs: Needs,
    failover: Failover | None = None,
) -> Choice:
    """Choose by model > tier > images > built-in tools > maximum speed > task type > the seed's text heuristics."""
    named = _by_name(submission, registry)
    if named is not None:
        return named
    if needs.images:
        return _seeing(registry, availability, needs, failover)
    tier, task, reason = _by_task(submission, registry, availability, needs)
    return Choice(registry.tiers[tier].model, tier, task, reason)


def chat_model(registry: Registry, name: str, param: str) -> Model:
    """Return a model that answers chat completions, by id or tier name; raise UnknownModel or UnsupportedContent."""
    model = registry.model(registry.tiers[name].model if name in registry.tiers else name)
    if not model.routable:
        text = f"{name} does not answer chat completions; it is a model of kind {model.kind}."
        raise UnsupportedContent(text, param=param)
    return model


def _by_name(submission: Submission, registry: Registry) -> Choice | None:
    name, tier = submission.request.model, submission.policy.tier
    task = str(submission.policy.task_type or "explicit")
    if tier is not None and tier not in registry.tiers:
        text = f"{no_tier(tier, registry.tiers)} `vessel tiers` lists them."
        raise UnknownModel(text, param="vessel.tier")
    if name is not None and name != AUTO and name not in registry.tiers:
        model = chat_model(registry, name, "model")
        return Choice(name, model.tier, task, f"the request names the model {name}", explicit=True)
    if name is not None and name != AUTO:
        tier = name
    if tier is None:
        return None
    return Choice(registry.tiers[tier].model, tier, task, f"the request names the tier {tier}", explicit=True)


def _seeing(registry: Registry, availability: Availability, needs: Needs, failover: Failover | None) -> Choice:
    """Choose a model of Groq's that takes images, else the failover vessel's, outage or not."""
    seeing = [
        model
        for model in registry.models.values()
        if model.kind is Kind.CHAT and model.can(Feature.VISION) and availability.serves(model)
    ]
    if seeing:
        model = next((model for model in seeing if not needs.missing(model)), seeing[0])
        return Choice(model.id, model.tier, "images", "the request holds images")
    if failover is None or not failover.model.can(Feature.VISION):
        also = "" if failover is None else f", nor does the failover model {failover.model.served_id}"
        text = f"The request holds images, and no model that takes them is served{also}. Send the text alone."
        raise UnsupportedContent(text, param="messages")
    tier = IMAGES_TIER if IMAGES_TIER in registry.tiers else next(iter(registry.tiers))
    reason = f"the request holds images, and of the models that are served only {failover.model.id} takes them"
    return Choice(failover.model.id, tier, "images", reason)


def _by_task(
    submission: Submission, registry: Registry, availability: Availability, needs: Needs
) -> tuple[str, str, str]:
    policy = submission.policy
    if needs.builtin_tools:
        reason = f"it needs built-in tools ({', '.join(needs.builtin_tools)})"
        return _agentic_tier(registry, availability, needs), "agentic", reason
    if policy.speed_priority is SpeedPriority.MAXIMUM or wished(policy, "speed_critical"):
        return "speed_demon", "speed_critical", "speed comes first"
    if policy.task_type is None:
        return _by_text(submission.request)
    tier, task = TASK_TIERS[policy.task_type], str(policy.task_type)
    if policy.task_type is TaskType.RESEARCH:
        tier = _agentic_tier(registry, availability, needs)
    return tier, task, f"the task type {task} belongs to the tier {tier}"


def _agentic_tier(registry: Registry, availability: Availability, needs: Needs) -> str:
    """Return `compound`, or the first tier whose model has built-in tools and can do the rest that is needed."""
    preferred = "compound"
    for tier in (preferred, *registry.tiers):
        served = resolve(registry, registry.tiers[tier].model, availability)
        model = registry.models.get(served or "")
        able = model is not None and model.can(Feature.BUILTIN_TOOLS) and not needs.tools_missing(model)
        if able and model is not None and not needs.missing(model):
            return tier
    return preferred


def _by_text(request: ChatRequest) -> tuple[str, str, str]:
    """Apply the seed's heuristics to the last thing the user said."""
    said = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
    text = said if isinstance(said, str) else " ".join(str(part.get("text", "")) for part in said or ())
    words = len(text.split(None, SIMPLE_BELOW_WORDS))
    if words < SIMPLE_BELOW_WORDS:
        return "ultra_fast", "simple", f"a prompt of fewer than {SIMPLE_BELOW_WORDS} words counts as simple"
    lowered = text.lower()
    found = next((word for word in COMPLEX_WORDS if word in lowered), None)
    if found is not None:
        return "power", "complex", f"the word {found!r} speaks for a complex task"
    return "balanced", "medium", "nothing speaks for another tier than balanced"
