"""Types become schemas that Groq takes, and answers become values of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, RootModel, field_validator
from typing_extensions import TypedDict

from vessel.client.schema import Unfit, form_of
from vessel.errors import InvalidRequest
from vessel.simulator.schema import example, lacks_strictness, malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = "[0123456789abcdef]"
TAKEN = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "anyOf", "$ref", "$defs", "description",
}  # fmt: skip


class Color(Enum):
    """Texts."""

    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    """Numbers."""

    LOW = 1
    HIGH = 2


class Cat(BaseModel):
    """One branch of a union."""

    kind: Literal["cat"]
    lives: int = Field(ge=1, le=9, description="how many are left")


class Dog(BaseModel):
    """The other branch."""

    kind: Literal["dog"]
    name: str | None = None


class Node(BaseModel):
    """A tree."""

    value: int
    children: list[Node] = []


@dataclass
class Point:
    """A dataclass of the standard library."""

    x: int
    y: float = 1.0


class Movie(TypedDict, total=False):
    """Keys that may be missing."""

    title: str
    year: int


class Everything(BaseModel):
    """What people put into models."""

    pet: Cat | Dog = Field(discriminator="kind", description="the pet")
    first: Cat = Field(description="a reference with words beside it")
    color: Color
    level: Level
    born: date
    price: Decimal
    key: UUID
    pair: tuple[int, str] | None = None
    tags: Annotated[list[str], Field(min_length=1)]
    aliased: int = Field(alias="aliasedName", default=3)
    either: int | str | None


class Free(BaseModel):
    """Keys that nobody knows before."""

    counts: dict[str, int]


class Anything(BaseModel):
    """A value of any kind."""

    payload: Any


class Nothing(BaseModel):
    """No field at all."""


STRICT: list[Any] = [
    Everything, Cat, Node, Point, Movie, list[Cat], list[Node], int, str | None, Cat | Dog, Color, Literal["a", "b"],
    tuple[int, str], RootModel[list[int]], Annotated[int, Field(ge=5)], bool,
]  # fmt: skip
LOOSE: list[Any] = [Free, Anything, Nothing, dict[str, int], list[dict[str, str]], Any]


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for name in ("properties", "$defs"):
            for part in schema.get(name, {}).values():
                yield from _parts(part)
        for part in [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", [])]:
            yield from _parts(part)


@pytest.mark.parametrize("wanted", [*STRICT, *LOOSE], ids=str)
def test_a_schema_holds_only_what_groq_takes(wanted: Any) -> None:
    """`minItems` and its kin are refused with a 400; beside a reference nothing may stand; the root is an object."""
    schema = form_of(wanted).schema
    assert schema["type"] == "object"
    assert malformed(schema) is None
    for part in _parts(schema):
        assert part.keys() <= TAKEN
        assert "$ref" not in part or set(part) == {"$ref"}
        assert "required" not in part or "properties" in part


@pytest.mark.parametrize("wanted", STRICT, ids=str)
def test_a_type_that_can_be_strict_is(wanted: Any) -> None:
    """Every object names its keys, requires them all and allows no other."""
    form = form_of(wanted)
    assert form.strict
    assert lacks_strictness(form.schema) is None


@pytest.mark.parametrize("wanted", LOOSE, ids=str)
def test_free_keys_and_values_of_any_kind_are_not_strict(wanted: Any) -> None:
    """Strict mode would forbid every key of a mapping, so such a type goes as a schema that is not enforced."""
    assert not form_of(wanted).strict


@pytest.mark.parametrize("wanted", [*STRICT, *LOOSE], ids=str)
def test_what_fits_the_schema_is_read(wanted: Any) -> None:
    """A model that keeps to the schema and its descriptions gives a value, with a Markdown fence or without."""
    form = form_of(wanted)
    text = json.dumps(example(form.schema, MARK))
    value = form.read(text)
    assert form.read(f"Here:\n\n```json\n{text}\n```\n") == value
    assert form.read(form.adapter.dump_json(value, by_alias=True).decode()) == value  # unwrapped


def test_rules_that_groq_refuses_are_told_and_checked() -> None:
    """What the schema cannot say stands in the description, and the answer is held to it."""
    form = form_of(Cat)
    assert form.schema["properties"]["lives"]["description"] == "how many are left (minimum: 1, maximum: 9)"
    with pytest.raises(Unfit) as unfit:
        form.read('{"kind": "cat", "lives": 10}')
    assert [(fault.place, fault.kind) for fault in unfit.value.faults] == [("lives", "less_than_equal")]


def test_digits_survive_the_wrapping_object() -> None:
    """What is no object is wrapped in one; a Decimal keeps its digits."""
    digits = "3.14159265358979323846264338327950288"
    assert form_of(Decimal).read(f'{{"value": "{digits}"}}') == Decimal(digits)
    assert form_of(list[Decimal]).read(f'{{"value": ["{digits}"]}}') == [Decimal(digits)]


class Picky(BaseModel):
    """A validator that quotes what it is given."""

    city: str
    more: dict[str, int] = {}

    @field_validator("city")
    @classmethod
    def _known(cls, city: str) -> str:
        raise ValueError(f"{city} is no city")


@pytest.mark.parametrize(
    "text",
    [
        '{"city": "canary"}',
        '{"city": "x", "more": {"canary": "y"}}',
        '{"canary": 1}',
        "canary",
        "",
        '["canary"]',
        '{"value": "canary"}',
        "null",
    ],
)
@pytest.mark.parametrize("wanted", [Picky, list[Picky], Cat | Dog], ids=str)
def test_places_and_kinds_of_faults_hold_nothing_of_the_answer(wanted: Any, text: str) -> None:
    """What goes into an error is the schema's own words; what goes back to the model may quote it."""
    with pytest.raises(Unfit) as unfit:
        form_of(wanted).read(text)
    assert unfit.value.faults
    assert "canary" not in "".join(f"{fault.place} {fault.kind}" for fault in unfit.value.faults)
    assert "canary" not in str(unfit.value)


def test_many_faults_are_told_up_to_a_bound() -> None:
    """A hundred wrong items do not make a prompt of a hundred lines."""
    with pytest.raises(Unfit) as unfit:
        form_of(list[int]).read(json.dumps({"value": ["x"] * 100}))
    assert len(unfit.value.faults) == 20


def _function() -> Callable[[], int]:
    return lambda: 1


@pytest.mark.parametrize(
    "wanted", [_function(), Cat(kind="cat", lives=1), "Nope", 3, object(), [Cat], type, {"type": "object"}]
)
def test_what_json_cannot_hold_is_refused(wanted: Any) -> None:
    """The fault is told before anything is sent."""
    with pytest.raises(InvalidRequest, match="response_model"):
        form_of(wanted)


def test_a_form_is_made_once() -> None:
    """Describing a type costs more than a call."""
    assert form_of(list[Cat]) is form_of(list[Cat])
    assert form_of(Annotated[int, Field(json_schema_extra={"unhashable": {}})]).strict
