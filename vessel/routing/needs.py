"""What a request needs of a model: images, function tools, built-in tools, JSON; read off its body and policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vessel.registry import Feature

if TYPE_CHECKING:
    from vessel.registry import Model
    from vessel.wire import Submission

BUILTIN = {
    "web_search": "web_search",
    "browser_search": "web_search",
    "visit_website": "web_search",
    "code_execution": "code_execution",
    "code_interpreter": "code_execution",
}
"""The seed's and Groq's names of built-in tools, and which of ours they mean."""

_WORDS = {
    Feature.VISION: "images",
    Feature.TOOLS: "function tools",
    Feature.JSON_OBJECT: "JSON mode",
    Feature.JSON_SCHEMA: "a JSON schema",
    Feature.STRICT_SCHEMA: "a strict JSON schema",
}


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model must be able to do (`features`), and which built-in tools are wanted (a chain may end without)."""

    features: frozenset[Feature]
    builtin_tools: tuple[str, ...]

    def missing(self, model: Model) -> list[str]:
        """Say in words what a model cannot do."""
        return [_WORDS[feature] for feature in sorted(self.features) if not model.can(feature)]

    @property
    def images(self) -> bool:
        """Tell whether the request holds images."""
        return Feature.VISION in self.features


def needs_of(submission: Submission) -> Needs:
    """Read what a request needs."""
    request, policy = submission.request, submission.policy
    features: set[Feature] = set()
    parts = [part for message in request.messages if isinstance(message.content, list) for part in message.content]
    if any(part.get("type") == "image_url" for part in parts):
        features.add(Feature.VISION)
    builtin: list[str] = [*policy.builtin_tools]
    for tool in request.tools or ():
        name = BUILTIN.get(str(tool.get("type")))
        if name:
            builtin.append(name)
        else:
            features.add(Feature.TOOLS)
    listed = policy.context.get("tools")
    builtin += [BUILTIN[t] for t in listed if t in BUILTIN] if isinstance(listed, list) else []
    if policy.context.get("requires_tools") and not builtin and Feature.TOOLS not in features:
        builtin += ["web_search", "code_execution"]
    shape = request.response_format or {}
    if shape.get("type") == "json_object":
        features.add(Feature.JSON_OBJECT)
    if shape.get("type") == "json_schema":
        strict = bool((shape.get("json_schema") or {}).get("strict"))
        features.add(Feature.STRICT_SCHEMA if strict else Feature.JSON_SCHEMA)
    return Needs(frozenset(features), tuple(dict.fromkeys(builtin)))
