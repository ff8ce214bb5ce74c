"""From a request to its tier, model and chain: the seed's decision matrix, explicit wishes before text length.

Precedence (contract 4): model > tier > images > built-in tools > maximum speed > task type > the seed's heuristics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from vessel.errors import ContextLengthExceeded, Unreachable, UnsupportedContent
from vessel.jobs.model import Hop
from vessel.registry import Feature, Kind, resolve
from vessel.routing.needs import Needs, needs_of
from vessel.wire import SpeedPriority, Submission, TaskType

if TYPE_CHECKING:
    from vessel.registry import Availability, Model, Registry

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
COMPLEX_WORDS = ("analyze", "design", "architect", "strategy", "compare", "evaluate", "synthesize")
SIMPLE_BELOW_WORDS = 20
AGENTIC = frozenset({"compound", "compound_mini"})
"""Tiers whose models come with tools; without a wish of the caller's both are on."""
SHAPED = frozenset({Feature.JSON_OBJECT, Feature.JSON_SCHEMA, Feature.STRICT_SCHEMA})
"""Groq refuses built-in tools together with structured output (groq-facts 5)."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: its tier, the chain of hops (the first is the primary), and why."""

    tier: str
    task: str
    hops: tuple[Hop, ...]
    reasons: tuple[str, ...]
    builtin_tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Choice:
    model: str
    tier: str
    reason: str
    explicit: bool = False


def route(submission: Submission, registry: Registry, availability: Availability, *, estimated_tokens: int) -> Route:
    """Choose tier, model and fallback chain.

    Raises UnknownModel, UnsupportedContent (an explicit wish that cannot, or nobody can), ContextLengthExceeded, and
    Unreachable when nothing of the chain is served.
    """
    needs = needs_of(submission)
    choice = _choose(submission, registry, availability, needs)
    hops, lost = _chain(submission, registry, availability, needs, choice)
    roomy = [hop for hop in hops if _room(registry.model(hop.model), submission, estimated_tokens)]
    if not roomy:
        if hops:
            longest = max(registry.model(hop.model).context_window for hop in hops)
            raise ContextLengthExceeded(
                f"The prompt has about {estimated_tokens} tokens; the models of its chain take at most {longest}, the "
                "answer included. Nothing was sent. Shorten the prompt or split it.",
                param="messages",
            )
        _refuse(choice, needs, lost)
    first = Hop(roomy[0].model, choice.tier, roomy[0].note)
    reasons = [choice.reason, *(hop.note for hop in roomy if hop.note)]
    builtin = needs.builtin_tools
    if choice.tier in AGENTIC and not builtin and not needs.features & SHAPED:
        builtin = ("web_search", "code_execution")
    if builtin:
        without = [h.model for h in roomy if not registry.model(h.model).can(Feature.BUILTIN_TOOLS)]
        reasons += [f"{model} would answer without built-in tools" for model in without]
    return Route(choice.tier, _task(submission), (first, *roomy[1:]), tuple(dict.fromkeys(reasons)), builtin)


def _choose(submission: Submission, registry: Registry, availability: Availability, needs: Needs) -> _Choice:
    policy, name = submission.policy, submission.request.model
    if name and name != AUTO and name not in registry.tiers:
        model = registry.model(name)
        if not model.routable:
            raise UnsupportedContent(
                f"{name} does not answer chat completions; it is a {model.kind} model.", param="model"
            )
        return _Choice(name, model.tier, f"the request names the model {name}", explicit=True)
    tier = name if name in registry.tiers else policy.tier
    if tier is not None:
        model_id = registry.tiers[tier].model if tier in registry.tiers else registry.model(tier).id
        return _Choice(model_id, registry.model(model_id).tier, f"the request names the tier {tier}", explicit=True)
    if needs.images:
        seeing = [m for m in registry.models.values() if _sees(m) and availability.serves(m)]
        if not seeing:
            raise UnsupportedContent(
                "The request holds images and no model that can see them is served. Send the text alone, or arm the "
                "OpenAI vessel (VESSEL_FAILOVER_MODEL).",
                param="messages",
            )
        return _Choice(seeing[0].id, seeing[0].tier, "the request holds images")
    return _by_task(submission, registry, needs)


def _sees(model: Model) -> bool:
    return model.kind is Kind.CHAT and model.can(Feature.VISION)


def _by_task(submission: Submission, registry: Registry, needs: Needs) -> _Choice:
    policy = submission.policy
    if needs.builtin_tools:
        tier, reason = "compound", f"it needs built-in tools ({', '.join(needs.builtin_tools)})"
    elif policy.speed_priority is SpeedPriority.MAXIMUM or policy.context.get("speed_critical"):
        tier, reason = "speed_demon", "speed comes first"
    elif policy.task_type is not None:
        tier, reason = TASK_TIERS[policy.task_type], f"the task type {policy.task_type} belongs to this tier"
    else:
        tier, reason = _by_text(submission)
    return _Choice(registry.tiers[tier].model, tier, reason)


def _by_text(submission: Submission) -> tuple[str, str]:
    """Apply the seed's heuristics to the last thing the user said."""
    said = next((m.content for m in reversed(submission.request.messages) if m.role == "user"), "")
    text = said if isinstance(said, str) else " ".join(str(p.get("text", "")) for p in said or ())
    words = len(text.split())
    if words < SIMPLE_BELOW_WORDS:
        return "ultra_fast", f"a short prompt ({words} words, below {SIMPLE_BELOW_WORDS}) is taken as simple"
    lowered = text.lower()
    found = next((word for word in COMPLEX_WORDS if word in lowered), None)
    if found:
        return "power", f"the word {found!r} speaks for a complex task"
    return "balanced", "nothing speaks for another tier"


def _task(submission: Submission) -> str:
    return str(submission.policy.task_type or "")


def _wanted(submission: Submission, registry: Registry, availability: Availability, primary: str) -> list[str]:
    """Name the chain before retired models are resolved."""
    fallback = submission.policy.fallback
    if fallback == "none":
        return [primary]
    if fallback != "chain":
        return [primary, *(registry.tiers[f].model if f in registry.tiers else registry.model(f).id for f in fallback)]
    chain = [primary, *registry.chain(primary)]
    stand_in = resolve(registry, primary, availability)
    if stand_in is not None and stand_in != primary:
        chain += registry.chain(stand_in)
    return chain


def _chain(
    submission: Submission, registry: Registry, availability: Availability, needs: Needs, choice: _Choice
) -> tuple[list[Hop], list[str]]:
    """Resolve the chain; returns the hops that can serve the request, and what was missing in the others."""
    hops: dict[str, Hop] = {}
    lost: list[str] = []
    for position, wanted in enumerate(_wanted(submission, registry, availability, choice.model)):
        found = resolve(registry, wanted, availability)
        if found is None:
            lost.append(f"{wanted} is not served and has no successor")
            continue
        missing = needs.missing(registry.model(found))
        if missing:
            lost.append(f"{found} cannot do {' and '.join(missing)}")
            if position == 0 and choice.explicit:
                break
            continue
        hops.setdefault(found, Hop(found, registry.model(found).tier, _note(registry, availability, wanted, found)))
    return list(hops.values()), lost


def _note(registry: Registry, availability: Availability, wanted: str, found: str) -> str:
    if wanted == found:
        return ""
    return f"{wanted} {availability.absence(registry.model(wanted))}; {found} takes its place"


def _room(model: Model, submission: Submission, estimated_tokens: int) -> bool:
    asked = submission.request.max_completion_tokens or submission.request.max_tokens or 1
    return estimated_tokens + min(asked, model.max_output) <= model.context_window


def _refuse(choice: _Choice, needs: Needs, lost: list[str]) -> NoReturn:
    why = "; ".join(dict.fromkeys(lost))
    if needs.features:
        raise UnsupportedContent(
            f"Nothing was sent, because {why}. Leave that out or choose another model.", param="model"
        )
    raise Unreachable(
        f"Nothing was sent, because {why}. `vessel models --refresh` shows what is served ({choice.tier})."
    )
