"""From a request to its tier, its chain of models, and the reasons: explicit wishes before text length.

Precedence (contract 4): model > tier > images > built-in tools > maximum speed > task type > the seed's heuristics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from vessel.errors import ContextLengthExceeded, InvalidRequest, Unreachable, UnsupportedContent
from vessel.jobs.model import Hop
from vessel.registry import Feature, Kind, Vessel, resolve, vessel_of
from vessel.routing.choice import chat_model, choose
from vessel.routing.needs import ALL_BUILTIN, needs_of
from vessel.routing.wayout import WayOut
from vessel.wire import OnOutage, SpeedPriority, Submission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.registry import Availability, Failover, Model, Registry

AGENTIC = frozenset({"compound", "compound_mini"})
"""Tiers whose models come with built-in tools; without a wish of the caller's all of them are on."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes: its tier, the chain of hops (the first is the primary), and why.

    `task` is the task type, or what stood in for one: explicit, images, agentic, speed_critical, simple, medium,
    complex. `builtin_tools` holds what is switched on, by the seed's names. Tools that were asked for filter the chain;
    those that only come with a tier do not, and a hop that lacks them says so in its note.
    """

    tier: str
    task: str
    hops: tuple[Hop, ...]
    reasons: tuple[str, ...]
    builtin_tools: tuple[str, ...] = ()

    @property
    def model(self) -> str:
        """Return the model that is asked first."""
        return self.hops[0].model


def route(
    submission: Submission,
    registry: Registry,
    availability: Availability,
    *,
    estimated_tokens: int,
    failover: Failover | None = None,
) -> Route:
    """Choose tier, model and fallback chain; with `on_outage` failover, its last hop is the failover vessel.

    Raises UnknownModel; UnsupportedContent for an explicit wish that cannot do what the request holds, or when nobody
    can; ContextLengthExceeded; and Unreachable when nothing of the chain is served.
    """
    return _Routing(submission, registry, availability, estimated_tokens, failover).route()


class _Routing:
    def __init__(
        self,
        submission: Submission,
        registry: Registry,
        availability: Availability,
        tokens: int,
        failover: Failover | None,
    ) -> None:
        self.submission, self.registry, self.availability, self.tokens = submission, registry, availability, tokens
        self.needs = needs_of(submission)
        self.choice = choose(submission, registry, availability, self.needs, failover)
        self.way_out = WayOut(submission, self.needs, tokens, failover)
        self.left_out: dict[str, str] = {}
        self.too_small: list[Model] = []
        self.unable = False

    def route(self) -> Route:
        if vessel_of(self.choice.model) is Vessel.OPENAI:
            hop = self.way_out.only_hop(self.choice.tier)
            return Route(self.choice.tier, self.choice.task, (hop,), (self.choice.reason,))
        if self.choice.explicit:
            self._check_explicit()
        tools, tools_reason = self._builtin_tools()
        hops = self._hops(tools)
        self._check_bound(hops)
        able = bool(hops) or not (self.unable or self.too_small)
        if able and self.submission.policy.on_outage is OnOutage.FAILOVER:
            hops += self.way_out.hops(self.choice.tier, alone=not hops)
        if not hops:
            self._refuse()
        hops[0] = Hop(hops[0].model, self.choice.tier, hops[0].note)
        reasons = [
            self.choice.reason,
            *tools_reason,
            *(hop.note for hop in hops if hop.note),
            *self.left_out.values(),
            *self.way_out.notes,
        ]
        if self.submission.policy.speed_priority is SpeedPriority.FAST:
            reasons.append("speed_priority fast keeps the tier and shortens the waits")
        return Route(self.choice.tier, self.choice.task, tuple(hops), tuple(dict.fromkeys(reasons)), tools)

    def _check_explicit(self) -> None:
        """Refuse a named model or tier that cannot do it: neither itself nor what serves in its name today."""
        named = self.registry.model(self.choice.model)
        served = resolve(self.registry, named.id, self.availability)
        candidates = [named] if served is None else [named, self.registry.model(served)]
        missing = [self._missing(model) for model in candidates]
        if all(missing):
            what = " and ".join(missing[-1])
            served_now = [
                m for m in self.registry.routable() if self.availability.serves(m) and m.kind is not Kind.GUARD
            ]
            able = [model.id for model in served_now if not self._missing(model)]
            hint = f"Able to: {', '.join(able)}." if able else "No model that is served can."
            text = f"{candidates[-1].id} cannot do {what}, so nothing was sent. {hint} Or leave the choice to `auto`."
            raise UnsupportedContent(text, param="model")

    def _check_bound(self, hops: Sequence[Hop]) -> None:
        """Refuse a longer answer than any model of the chain can give, as Groq does; each hop has its own bound."""
        request = self.submission.request
        name = "max_completion_tokens" if request.max_completion_tokens else "max_tokens"
        most = max((self.registry.model(hop.model).max_output for hop in hops), default=None)
        if most is not None and (getattr(request, name) or 0) > most:
            text = f"{name}: the models of its chain answer with at most {most} tokens. Nothing was sent."
            raise InvalidRequest(text, param=name)

    def _missing(self, model: Model) -> list[str]:
        missing = self.needs.missing(model)
        lacking = self.needs.tools_missing(model) if self.needs.named_tools else ()
        return [*missing, f"built-in tools ({', '.join(lacking)})"] if lacking else missing

    def _builtin_tools(self) -> tuple[tuple[str, ...], list[str]]:
        """Return the built-in tools to switch on; refuse those that were asked for together with structured output."""
        wanted = self.needs.builtin_tools or (ALL_BUILTIN if self._agentic() else ())
        served = resolve(self.registry, self.choice.model, self.availability)
        if not wanted or served is None or not self.needs.tools_refused(self.registry.model(served)):
            return wanted, []
        if self.needs.builtin_tools:
            text = (
                "Groq refuses built-in tools together with structured output (response_format), so nothing was sent. "
                "Ask in two steps: with the tools first, then for the answer's shape."
            )
            raise UnsupportedContent(text, param="response_format")
        return (), ["without built-in tools: Groq refuses them together with structured output"]

    def _agentic(self) -> bool:
        return self.choice.tier in AGENTIC or self.choice.task == "research"

    def _hops(self, tools: tuple[str, ...]) -> list[Hop]:
        hops: dict[str, Hop] = {}
        for wanted in self._wanted():
            model = self._with_tools(self._served(wanted))
            if model is None or model.id in hops or not self._fits(model):
                continue
            note = self._note(wanted, model)
            if tools and not model.can(Feature.BUILTIN_TOOLS):
                note = "; ".join(filter(None, (note, f"{model.id} answers without {' and '.join(tools)}")))
            hops[model.id] = Hop(model.id, model.tier, note)
        return list(hops.values())

    def _wanted(self) -> list[str]:
        """Name the chain before retired models are resolved."""
        primary, fallback = self.choice.model, self.submission.policy.fallback
        if fallback == "none":
            return [primary]
        if fallback != "chain":
            return [primary, *(chat_model(self.registry, name, "vessel.fallback").id for name in fallback)]
        chain = [primary, *self.registry.chain(primary)]
        stand_in: Model | None = self.registry.model(primary)
        while stand_in is not None and not self.availability.serves(stand_in):
            # A successor that is down too still hands on its fallbacks: one dead model must not end a whole tier.
            stand_in = self.registry.model(stand_in.successor) if stand_in.successor else None
            if stand_in is not None:
                chain += self.registry.chain(stand_in.id)
        return chain

    def _served(self, wanted: str) -> Model | None:
        found = resolve(self.registry, wanted, self.availability)
        if found is not None:
            return self.registry.model(found)
        absence = self.availability.absence(self.registry.model(wanted))
        self.left_out[wanted] = f"{wanted} {absence} and nothing takes its place"
        return None

    def _fits(self, model: Model) -> bool:
        missing = self.needs.missing(model)
        if missing:
            self.unable = True
            self.left_out[model.id] = f"{model.id} is left out: it cannot do {' and '.join(missing)}"
            return False
        asked = self.submission.request.max_completion_tokens or self.submission.request.max_tokens or 1
        if self.tokens + min(asked, model.max_output) > model.context_window:
            self.too_small.append(model)
            self.left_out[model.id] = (
                f"{model.id} is left out: its window of {model.context_window} tokens is too small"
            )
            return False
        return True

    def _with_tools(self, model: Model | None) -> Model | None:
        """Return a model of the chain, or the successor that has the built-in tools that were asked for, or None.

        One without them would answer as if it had used them. Where they were not named, an explicit model goes before
        them, and so do images.
        """
        given = self.choice.explicit or self.choice.task == "images"
        if model is None or not self.needs.builtin_tools or (given and not self.needs.named_tools):
            return model
        if self._lacking(model) is None:
            return model
        self.unable = True
        self.left_out[model.id] = f"{model.id} is left out: {self._lacking(model)}"
        successor = self.registry.model(model.successor) if model.successor else None
        while successor is not None and (not self.availability.serves(successor) or self._lacking(successor)):
            successor = self.registry.model(successor.successor) if successor.successor else None
        return successor

    def _lacking(self, model: Model) -> str | None:
        missing = self.needs.tools_missing(model)
        if missing:
            return f"it has nothing like {' and '.join(missing)}"
        return "it takes no built-in tools with a response_format" if self.needs.tools_refused(model) else None

    def _note(self, wanted: str, model: Model) -> str:
        if wanted == model.id:
            return ""
        named = self.registry.model(wanted)
        absence = "lacks the built-in tools" if self.availability.serves(named) else self.availability.absence(named)
        return f"{wanted} {absence}; {model.id} is its successor"

    def _refuse(self) -> NoReturn:
        why = "; ".join(self.left_out.values())
        if self.too_small:
            most = max(model.context_window for model in self.too_small)
            text = (
                f"The prompt has about {self.tokens} tokens; the models of its chain take at most {most}, the answer "
                "included. Nothing was sent. Shorten the prompt, split it, or ask for a shorter answer."
            )
            raise ContextLengthExceeded(text, param="messages")
        if self.unable:
            text = f"Nothing was sent, because no model of the chain can serve this: {why}."
            raise UnsupportedContent(f"{text} Leave that out or choose another model.", param="model")
        raise Unreachable(
            f"Nothing was sent: {why}. `vessel models --refresh` shows what is served; name one of those."
        )
