"""JSON schemas of what tools take and give, as small as they can be: models read them with every request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel, ValidationError

    from vessel.registry import Registry

_WORDS = frozenset({"properties", "$defs"})
"""Keywords whose keys are names of the caller's, not keywords."""
_SAYS_NOTHING = (("default", None), ("additionalProperties", True))
LONGEST_NAME = 64


def input_schema(model: type[BaseModel], registry: Registry | None = None) -> dict[str, Any]:
    """Describe what a tool takes; a property `tier` lists the registry's tiers."""
    raw = model.model_json_schema()
    raw.pop("description", None)
    found = _plain(raw, raw.pop("$defs", {}))
    properties = found.get("properties", {})
    needed = found.get("required", [])
    found["properties"] = {name: properties[name] for name in [*needed, *(n for n in properties if n not in needed)]}
    tier = properties.get("tier")
    if tier is not None and registry is not None:
        tier["enum"] = list(registry.tiers)
        tier.pop("maxLength", None)
    return {"type": "object", **found}


def output_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Describe what a tool gives."""
    raw = model.model_json_schema(mode="serialization")
    raw.pop("description", None)
    definitions = raw.pop("$defs", {})
    return {"type": "object", **_plain(raw, definitions, nullable=True)}


def _plain(node: Any, definitions: Mapping[str, Any], *, nullable: bool = False, names: bool = False) -> Any:
    """Inline references, drop generated titles, and in what callers give say nothing of null, which means not given."""
    if isinstance(node, list):
        return [_plain(item, definitions, nullable=nullable) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = definitions[node["$ref"].rpartition("/")[2]]
        return _plain({**target, **{k: v for k, v in node.items() if k != "$ref"}}, definitions, nullable=nullable)
    if not nullable and not names and "anyOf" in node:
        kinds = [kind for kind in node["anyOf"] if kind != {"type": "null"}]
        rest = {key: value for key, value in node.items() if key != "anyOf" and (key, value) != ("default", None)}
        node = {**kinds[0], **rest} if len(kinds) == 1 else {**rest, "anyOf": kinds}
        if "$ref" in node:
            return _plain(node, definitions)
    return {
        key: _plain(value, definitions, nullable=nullable, names=not names and key in _WORDS)
        for key, value in node.items()
        if names or not (key == "title" or (key, value) in _SAYS_NOTHING)
    }


def told(error: ValidationError, model: type[BaseModel]) -> str:
    """Say what is wrong with arguments and what there is; values are never repeated."""
    lines: list[str] = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False)[:5]:
        place = ".".join(str(part)[:LONGEST_NAME] for part in fault["loc"]) or "arguments"
        if fault["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            lines.append(f"{place}: there is no such argument. There are: {known}.")
        else:
            lines.append(f"{place}: {str(fault['msg']).removeprefix('Value error, ')}.")
    return "\n".join(dict.fromkeys(lines))
