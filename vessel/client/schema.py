"""From a Python type to the JSON schema that Groq takes, and from an answer's text back to a value of that type.

Groq takes a subset of JSON Schema: strict mode wants every key required and `additionalProperties: false` on every
object (console.groq.com/docs/structured-outputs), and keywords such as `minItems` are refused with a 400
(https://github.com/i-am-bee/beeai-framework/issues/1215). What cannot be said in it is said in the descriptions, and
checked when the answer is read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from vessel.client.fence import unfenced
from vessel.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import TypeAdapter

WRAP = "value"
"""The one key of the object that stands around what is no object: Groq's answers are objects."""

MOST_FAULTS = 20
_TOLD = (
    "format", "pattern", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip
_KEPT = ("type", "description", "enum")
_UNSAID = ("prefixItems", "patternProperties", "not", "if", "dependentSchemas")


@dataclass(frozen=True, slots=True)
class Fault:
    """One way in which an answer does not fit: `place` and `kind` hold nothing of it, `told` may."""

    place: str
    kind: str
    told: str


class Unfit(Exception):
    """An answer does not fit; never leaves this package."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        """Hold what is wrong."""
        super().__init__()
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer must look like; `strict` tells whether Groq's strict mode can say it."""

    name: str
    adapter: TypeAdapter[Any]
    wrapper: TypeAdapter[Any] | None
    schema: dict[str, Any]
    strict: bool
    names: frozenset[str]
    wanted: Any

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes as the type it was made of."""
        return form_of, (self.wanted,)

    def read(self, text: str) -> Any:
        """Return the value that a text holds, a Markdown fence around it or not. Raises Unfit."""
        try:
            return self._value(text)
        except ValidationError as first:
            bare = unfenced(text)
            if bare != text.strip():
                try:
                    return self._value(bare)
                except ValidationError:
                    pass
            faults = self._faults(first)
        raise Unfit(faults)

    def _value(self, text: str) -> Any:
        if self.wrapper is None:
            return self.adapter.validate_json(text)
        try:
            return getattr(self.wrapper.validate_json(text), WRAP)
        except ValidationError:
            try:
                return self.adapter.validate_json(text)
            except ValidationError:
                pass
            raise

    def _faults(self, error: ValidationError) -> tuple[Fault, ...]:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        return tuple(
            Fault(".".join(map(self._step, e["loc"])) or "the answer", e["type"], f"{_path(e['loc'])}{e['msg']}")
            for e in found[:MOST_FAULTS]
        )

    def _step(self, step: str | int) -> str:
        """Name a place; a key that is not in the schema is the model's own word."""
        return str(step) if isinstance(step, int) or step in self.names else "*"


def form_of(wanted: Any) -> Form:
    """Describe a pydantic model, dataclass, TypedDict, `list[...]`, union or other type. Raises InvalidRequest."""
    try:
        return _cached(wanted)
    except TypeError:  # annotations may hold what cannot be hashed
        return _described(wanted)


@lru_cache(maxsize=128)
def _cached(wanted: Any) -> Form:
    return _described(wanted)


def _described(wanted: Any) -> Form:
    from pydantic import TypeAdapter, create_model  # noqa: PLC0415  only who asks needs them

    wrapper: TypeAdapter[Any] | None = None
    if isinstance(wanted, (FunctionType, MethodType)):  # pydantic would describe its arguments
        raise _refused(None)
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(wanted)
        root = _root(adapter.json_schema())
        if root.get("type") != "object":
            wrapper = TypeAdapter(create_model("Answer", value=(wanted, ...)))
            root = wrapper.json_schema()
    except Exception as error:  # noqa: BLE001  pydantic says in many ways that something is no type
        raise _refused(error) from None
    schema = _plain(root)
    return Form(_name(wanted), adapter, wrapper, schema, _can_be_strict(schema), frozenset(_names(root)), wanted)


def _refused(error: Exception | None) -> InvalidRequest:
    text = "it must be a type that JSON can hold: a pydantic model, a dataclass, a TypedDict, list[...] of one."
    if getattr(error, "code", None) == "typed-dict-version":
        text = "below Python 3.12 a TypedDict must be typing_extensions.TypedDict."
    return InvalidRequest(f"response_model: {text} A JSON schema goes as response_format.", param="response_model")


def _root(whole: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with its root spelled out: a recursive model's is a reference."""
    reference = whole.get("$ref")
    if not isinstance(reference, str):
        return whole
    found = whole["$defs"].get(reference.removeprefix("#/$defs/"), {})
    return dict(found) | {"$defs": whole["$defs"]}


def _plain(schema: Any) -> dict[str, Any]:
    """Rewrite a schema of pydantic's in the keywords that Groq takes."""
    if not isinstance(schema, dict):
        return {}
    plain: dict[str, Any] = {name: schema[name] for name in _KEPT if name in schema}
    if "const" in schema:
        plain["enum"] = [schema["const"]]
    _plain_choices(plain, schema)
    if schema.get("type") == "array":
        _plain_array(plain, schema)
    if schema.get("type") == "object":
        _plain_object(plain, schema)
    rules = [f"{name}: {json.dumps(schema[name])}" for name in (*_TOLD, *_UNSAID) if name in schema]
    if rules:
        plain["description"] = " ".join(filter(None, [plain.get("description"), f"({', '.join(rules)})"]))
    if "$defs" in schema:
        plain["$defs"] = {name: _plain(one) for name, one in schema["$defs"].items()}
    return plain


_KINDS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _plain_choices(plain: dict[str, Any], schema: Mapping[str, Any]) -> None:
    if "enum" in plain and len(kinds := {_KINDS.get(type(value), "object") for value in plain["enum"]}) == 1:
        plain.setdefault("type", kinds.pop())
    if choices := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        plain["anyOf"] = [_plain(choice) for choice in choices]
    if "$ref" in schema:
        if not plain:
            plain["$ref"] = schema["$ref"]
        else:  # nothing may stand beside a reference
            plain["anyOf"] = [{"$ref": schema["$ref"]}]


def _plain_array(plain: dict[str, Any], schema: Mapping[str, Any]) -> None:
    if "items" in schema:
        plain["items"] = _plain(schema["items"])
    elif schema.get("prefixItems"):  # a tuple: what may stand in it; its order is in the description
        plain["items"] = {"anyOf": [_plain(one) for one in schema["prefixItems"]]}


def _plain_object(plain: dict[str, Any], schema: Mapping[str, Any]) -> None:
    properties, more = schema.get("properties"), schema.get("additionalProperties")
    if properties or (more is False):
        plain["properties"] = {name: _plain(one) for name, one in (properties or {}).items()}
        plain["required"] = list(plain["properties"])
        plain["additionalProperties"] = False
    elif isinstance(more, dict):
        plain["additionalProperties"] = _plain(more)


def _can_be_strict(schema: Mapping[str, Any]) -> bool:
    """Tell whether every part says what it is: strict mode knows neither free keys nor values of any kind."""
    parts = [*schema.get("properties", {}).values(), *schema.get("anyOf", ()), *schema.get("$defs", {}).values()]
    if "items" in schema:
        parts.append(schema["items"])
    if not any(name in schema for name in ("type", "anyOf", "$ref", "enum")):
        return False
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        return False
    if schema.get("type") == "array" and "items" not in schema:
        return False
    return all(_can_be_strict(part) for part in parts)


def _names(schema: Any) -> Iterator[str]:
    """Yield the names that the caller gave: of fields and of types."""
    if isinstance(schema, dict):
        for name in ("properties", "$defs"):
            yield from schema.get(name) or ()
        for part in schema.values():
            yield from _names(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _names(part)


def _name(wanted: Any) -> str:
    named = getattr(wanted, "__name__", "") if isinstance(wanted, type) else str(wanted).rpartition(".")[2]
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", named).strip("_")[:64] or "answer"


def _path(loc: tuple[str | int, ...]) -> str:
    return f"{'.'.join(map(str, loc))}: " if loc else ""
