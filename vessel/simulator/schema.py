"""A value that a JSON schema accepts, holding a mark in its strings; for the simple schemas that people send."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_DEPTH = 12
DEEP = 6
"""Beyond it a tree is brought to its end."""

DEEPEST = 50
MOST_ITEMS = 100
MOST_CHARS = 10_000
_CHOICES = ("anyOf", "oneOf", "allOf")
_NAMED = ("properties", "$defs", "definitions")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300  # noqa: PLR2004  near what a float holds


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_SHAPES: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
    ((*_CHOICES, "prefixItems"), lambda value: isinstance(value, list) and bool(value), "an array"),
    (("enum",), lambda value: isinstance(value, list) and bool(value), "an array"),
    (_NAMED, lambda value: isinstance(value, dict), "an object"),
    (("minItems", "maxItems", "minLength", "maxLength"), _is_count, "a whole number of at least 0"),
    (("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number, "a number"),
    (("required",), _are_words, "an array of strings"),
    (("$ref", "format"), lambda value: isinstance(value, str), "a string"),
    (("type",), lambda value: isinstance(value, str) or (_are_words(value) and bool(value)), "a string"),
)
_RULES = (
    "prefixItems", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
    "minLength", "maxLength",
)  # fmt: skip
_FORMATS = {
    "date": "2026-11-24",
    "date-time": "2026-11-24T00:00:00Z",
    "time": "00:00:00Z",
    "email": "simulator@example.org",
    "uri": "https://example.org/simulated",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


def example(schema: Any, mark: str) -> Any:
    """Return a value for a schema that is not malformed; strings hold `mark` where the schema leaves them free."""
    return _value(schema, mark, schema if isinstance(schema, dict) else {}, 0)


def told_schema(text: str) -> dict[str, Any] | None:
    """Return the first JSON schema in a text, None where it holds none that can be filled in."""
    try:
        found, _ = json.JSONDecoder().raw_decode(text, text.index("{"))
    except (ValueError, RecursionError):
        return None
    is_schema = isinstance(found, dict) and "type" in found and malformed(found) is None
    return found if is_schema else None


def lacks_strictness(schema: Any) -> str | None:
    """Return what strict mode misses in a schema, None when all fields are required and nothing more is allowed."""
    if isinstance(schema, list):
        return next((found for item in schema if (found := lacks_strictness(item))), None)
    if not isinstance(schema, dict):
        return None
    properties = schema.get("properties")
    if isinstance(properties, dict):
        if schema.get("additionalProperties") is not False:
            return "`additionalProperties:false` must be set on every object"
        if set(schema.get("required") or []) != set(properties):
            return "`required` is required to be supplied and to be an array including every key in properties"
        if found := lacks_strictness(list(properties.values())):
            return found
    inner = [schema.get(name) for name in ("items", "anyOf", "oneOf", "allOf")]
    definitions = [*(schema.get("$defs") or {}).values(), *(schema.get("definitions") or {}).values()]
    return lacks_strictness([*inner, *definitions])


def malformed(schema: Any, depth: int = 0) -> str | None:
    """Return what makes something no JSON schema, None when it can be filled in."""
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, dict):
        return "a schema must be an object"
    if depth > DEEPEST:
        return "the schema is nested too deeply"
    for names, fits, wanted in _SHAPES:
        for name in names:
            if name in schema and not fits(schema[name]):
                return f"`{name}` must be {wanted}"
    inner = [schema["items"]] if "items" in schema else []
    for name in _CHOICES:
        inner += schema.get(name, [])
    for name in _NAMED:
        inner += schema.get(name, {}).values()
    return next((found for part in inner if (found := malformed(part, depth + 1))), None)


def _value(schema: Any, mark: str, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    if "description" in schema:
        schema = _obeyed(schema)
    if "$ref" in schema:
        return _value(_resolve(str(schema["$ref"]), root), mark, root, depth + 1)
    if choices := [schema["const"]] if "const" in schema else schema.get("enum"):
        return choices[int(mark[1:5], 16) % len(choices)]
    for name in ("anyOf", "oneOf"):
        if schema.get(name):
            return _value(_first_real(schema[name], deep=depth > DEEP), mark, root, depth + 1)
    if schema.get("allOf"):
        merged: dict[str, Any] = {}
        for part in schema["allOf"]:
            if isinstance(part, dict):
                merged |= _resolve(str(part["$ref"]), root) if "$ref" in part else part
        return _value(merged, mark, root, depth + 1)
    return _typed(schema, mark, root, depth)


def _obeyed(schema: dict[str, Any]) -> dict[str, Any]:
    """Read rules such as `minimum: 1` out of a description, as a model does."""
    told, rules = str(schema["description"]), dict[str, Any]()
    for name in _RULES:
        _, found, rest = told.partition(f"{name}: ")
        if found:
            try:
                rules[name] = json.JSONDecoder().raw_decode(rest)[0]
            except (ValueError, RecursionError):
                continue
    return schema | rules if malformed(rules) is None else schema


def _typed(schema: dict[str, Any], mark: str, root: dict[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "string"
    match kind:
        case "object":
            properties = schema.get("properties") or {}
            return {name: _value(sub, mark, root, depth + 1) for name, sub in properties.items()}
        case "array":
            return [_value(part, mark, root, depth + 1) for part in _items(schema, depth)]
        case "integer" | "number":
            return _number(schema, mark, whole=kind == "integer")
        case "boolean":
            return int(mark[1], 16) % 2 == 0
        case "null":
            return None
        case _:
            return _string(schema, mark)


def _items(schema: dict[str, Any], depth: int) -> list[Any]:
    """Say what stands in an array: the parts of a tuple, or one item; none where a tree must end."""
    if "prefixItems" in schema:
        return list(schema["prefixItems"])
    size = min(MOST_ITEMS, max(schema.get("minItems", 1), min(1, schema.get("maxItems", 1))))
    if depth > DEEP and not schema.get("minItems"):
        size = 0
    return [schema.get("items") or {"type": "string"}] * size


def _number(schema: dict[str, Any], mark: str, *, whole: bool) -> float:
    low, high = schema.get("minimum"), schema.get("maximum")
    low = schema["exclusiveMinimum"] + 1 if "exclusiveMinimum" in schema else low
    high = schema["exclusiveMaximum"] - 1 if "exclusiveMaximum" in schema else high
    value = int(mark[1:4], 16) % 100
    value = value if low is None else max(value, low)
    value = value if high is None else min(value, high)
    return int(value) if whole else float(value)


def _string(schema: dict[str, Any], mark: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), f"{mark} simulated")
    text = text.ljust(min(MOST_CHARS, schema.get("minLength", 0)), ".")
    return text[: schema["maxLength"]] if "maxLength" in schema else text


def _first_real(choices: list[Any], *, deep: bool) -> Any:
    """Choose the first that is not null, or null where a tree must end."""
    nulls = [one for one in choices if isinstance(one, dict) and one.get("type") == "null"]
    return nulls[0] if deep and nulls else next((one for one in choices if one not in nulls), choices[0])


def _resolve(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    found: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            found = found.get(step.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}
