"""What a request needs of a model: images, function tools, built-in tools, JSON; read off its body and policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.errors import InvalidRequest
from vessel.registry import Feature, Kind
from vessel.wire import BUILTIN_NAMES

if TYPE_CHECKING:
    from vessel.registry import Model
    from vessel.wire import ChatRequest, Policy, Submission

ALL_BUILTIN = ("web_search", "code_execution")
ONLY_SYSTEMS = frozenset({"wolfram_alpha"})
"""Built-in tools that gpt-oss has no counterpart for (groq-facts 5)."""

_OTHER_TOOLS = frozenset({"function", "mcp"})
SHAPED = frozenset({Feature.JSON_OBJECT, Feature.JSON_SCHEMA, Feature.STRICT_SCHEMA})
_WORDS = {
    Feature.VISION: "images",
    Feature.TOOLS: "function tools",
    Feature.JSON_OBJECT: "JSON mode",
    Feature.JSON_SCHEMA: "a JSON schema",
    Feature.STRICT_SCHEMA: "a strict JSON schema",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model must be able to do (`features`), and which built-in tools are asked for.

    `named_tools` tells that the caller named the built-in tools, and did not only say that some are needed.
    """

    features: frozenset[Feature] = frozenset()
    builtin_tools: tuple[str, ...] = ()
    named_tools: bool = False

    def missing(self, model: Model) -> list[str]:
        """Say in words what a model cannot do."""
        return [_WORDS[feature] for feature in sorted(self.features) if not model.can(feature)]

    def tools_missing(self, model: Model) -> tuple[str, ...]:
        """Name the built-in tools that were asked for and a model has nothing like."""
        if not model.can(Feature.BUILTIN_TOOLS):
            return self.builtin_tools
        alone = () if model.kind is Kind.SYSTEM else ONLY_SYSTEMS
        return tuple(name for name in self.builtin_tools if name in alone)

    def tools_refused(self, model: Model) -> bool:
        """Tell whether a model with built-in tools refuses them for this request.

        Groq refuses tools together with structured output (docs/structured-outputs); Compound takes JSON mode.
        """
        shaped = self.features & SHAPED
        return bool(shaped) and not (model.kind is Kind.SYSTEM and shaped == {Feature.JSON_OBJECT})

    @property
    def images(self) -> bool:
        """Tell whether the request holds images."""
        return Feature.VISION in self.features


def needs_of(submission: Submission) -> Needs:
    """Read what a request needs. Raises InvalidRequest for a tool that nobody knows."""
    request, policy = submission.request, submission.policy
    features: set[Feature] = set(_shape(request))
    if _has_images(request):
        features.add(Feature.VISION)
    kinds = [str(tool.get("type")) for tool in request.tools or ()]
    enabled = _enabled(request)
    _refuse_unknown(kinds, enabled)
    if any(kind not in BUILTIN_NAMES for kind in kinds):
        features.add(Feature.TOOLS)
    asked = [*policy.builtin_tools, *kinds, *_listed(policy.context.get("tools")), *enabled]
    builtin = tuple(dict.fromkeys(BUILTIN_NAMES[name] for name in asked if name in BUILTIN_NAMES))
    # With function tools in the body, `requires_tools` is met by those.
    if not builtin and Feature.TOOLS not in features and wished(policy, "requires_tools"):
        return Needs(frozenset(features), ALL_BUILTIN)
    return Needs(frozenset(features), builtin, named_tools=bool(builtin))


def wished(policy: Policy, name: str) -> bool:
    """Read a yes or no of the seed's context; a command line gives text, so `false`, `no` and `0` mean no."""
    value = policy.context.get(name)
    return bool(value) and str(value).strip().lower() not in {"false", "no", "0", "off", ""}


def _has_images(request: ChatRequest) -> bool:
    parts = (part for message in request.messages if isinstance(message.content, list) for part in message.content)
    return any(str(part.get("type")) in {"image_url", "image", "input_image"} for part in parts)


def _shape(request: ChatRequest) -> list[Feature]:
    form = request.response_format or {}
    if form.get("type") == "json_object":
        return [Feature.JSON_OBJECT]
    if form.get("type") != "json_schema":
        return []
    schema = form.get("json_schema")
    strict = isinstance(schema, dict) and schema.get("strict") is True
    return [Feature.STRICT_SCHEMA if strict else Feature.JSON_SCHEMA]


def _enabled(request: ChatRequest) -> list[str]:
    """Return the tools that the body enables the Compound way."""
    found: Any = (request.model_extra or {}).get("compound_custom")
    for name in ("tools", "enabled_tools"):
        found = found.get(name) if isinstance(found, dict) else None
    return [str(name) for name in found] if isinstance(found, list) else []


def _refuse_unknown(kinds: list[str], enabled: list[str]) -> None:
    known = f"The built-in ones are {', '.join(BUILTIN_NAMES)}"
    for number, kind in enumerate(kinds):
        if kind not in BUILTIN_NAMES and kind not in _OTHER_TOOLS:
            text = f"tools.{number}.type: there is no such kind of tool. {known}; your own are of type function or mcp."
            raise InvalidRequest(text, param=f"tools.{number}.type")
    for number, name in enumerate(enabled):
        if name not in BUILTIN_NAMES:
            place = f"compound_custom.tools.enabled_tools.{number}"
            raise InvalidRequest(f"{place}: there is no such tool. {known}.", param=place)


def _listed(value: object) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, (list, tuple)) else []
