"""What clients are shown of the MCP tools: small, whole schemas that say what each argument is and how large."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vessel.mcp.answers import cut
from vessel.mcp.catalog import Resource
from vessel.mcp.schemas import input_schema, output_schema
from vessel.mcp.vessel import ORDER, make_server
from vessel.registry import load_registry
from vessel.settings import load_settings

MOST_BYTES = 40_000
"""Of all tools together; a model reads them with every conversation."""


async def no_sums(*_: object) -> dict[str, Any]:
    """Sum up nothing."""
    return {}


SERVER = make_server(load_settings({}), no_sums)
TOOLS = SERVER.catalog.tools


def nodes(schema: Any) -> Any:
    """Yield every object within a schema."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


def test_the_tools_are_those_of_the_contract() -> None:
    """In the order in which they help."""
    assert tuple(tool.name for tool in TOOLS) == ORDER
    assert len(ORDER) == 14


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_argument_is_described_and_bounded(tool: Any) -> None:
    """Each says what it is; texts, numbers and lists have bounds; nothing refers elsewhere or is null."""
    schema = input_schema(tool.takes, load_registry())
    assert schema["additionalProperties"] is False
    for name, argument in schema["properties"].items():
        assert argument.get("description"), name
        kinds = argument.get("anyOf", [argument])
        for kind in kinds:
            if kind.get("type") == "string" and len(kinds) == 1:
                assert {"enum", "maxLength", "pattern"} & set(kind), name
            if kind.get("type") in {"number", "integer"} and len(kinds) == 1:
                assert {"minimum", "exclusiveMinimum"} & set(kind), name
            if kind.get("type") == "array":
                assert "maxItems" in kind, name
    for node in [*nodes(schema), *nodes(output_schema(tool.gives))]:
        assert "$ref" not in node
        assert "$defs" not in node
    assert all(node.get("type") != "null" for node in nodes(schema))


def test_tiers_are_those_of_the_registry() -> None:
    """A model cannot choose one that is not there."""
    (query,) = [tool for tool in TOOLS if tool.name == "query"]
    schema = input_schema(query.takes, load_registry())
    assert schema["properties"]["tier"]["enum"] == list(load_registry().tiers)
    assert next(iter(schema["properties"])) == "prompt"


def test_the_list_of_tools_stays_small() -> None:
    """As it is sent."""
    sent = [json.loads(tool.model_dump_json(by_alias=True, exclude_none=True)) for tool in SERVER.listed]
    assert len(json.dumps(sent, separators=(",", ":"))) < MOST_BYTES


@pytest.mark.parametrize(
    ("uri", "part"),
    [("vessel://jobs/job_1", "job_1"), ("vessel://jobs/", None), ("vessel://jobs/a/b", None), ("vessel://job", None)],
)
def test_a_template_matches_one_part(uri: str, part: str | None) -> None:
    """Never an empty one, nor a path."""
    assert Resource("vessel://jobs/{id}", "job", "Job", "A job.", read).match(uri) == part


async def read(*_: object) -> str:
    """Read nothing."""
    return ""


def test_a_cut_says_whether_more_follows() -> None:
    """Also behind the end."""
    assert cut("abcdef", 4) == ("abcd", True)
    assert cut("abcdef", 4, 4) == ("ef", False)
    assert cut("abcdef", 4, 9) == ("", False)
