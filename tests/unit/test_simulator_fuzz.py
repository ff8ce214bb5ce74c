"""Whatever is sent, the simulator answers as an API: 200 or an error of its own, never an exception."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulated import MODEL, Local
from vessel.simulator.validation import _OPEN

SEED, TODAY = Local(world="seed"), Local()
MODELS = st.sampled_from([MODEL, "groq/compound", "llama-3.1-8b-instant", "qwen/qwen3.8-27b", "nothing"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
WORDS = st.sampled_from(
    [
        "type", "function", "name", "parameters", "json_schema", "schema", "properties", "items", "enum",
        "$ref", "anyOf", "minItems", "maximum", "minLength", "const", "object", "array", "string",
        "#/$defs/x", "$defs", "required", "role", "content", "text", "image_url", "tool_calls", "user",
        "assistant", "tools", "enabled_tools", "include_domains", "web_search", "browser_search",
        "json_object", "low", "flex", "auto", "raw", "strict", "allOf", "number",
    ]
)  # fmt: skip
JSON = st.recursive(
    LEAVES | WORDS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5), max_leaves=20
)
FIELDS = st.dictionaries(st.sampled_from(sorted(_OPEN - {"model", "messages"})), JSON, max_size=4)
FUNCTION = st.fixed_dictionaries({"name": st.text(max_size=4), "parameters": JSON})
TOOLS = st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": FUNCTION}), max_size=2)
SCHEMA = st.fixed_dictionaries({"name": st.just("n"), "schema": JSON, "strict": st.booleans()})


def answered(**body: Any) -> None:
    """Send a body to both worlds; each must answer, and log it."""
    for sim in (SEED, TODAY):
        answer = sim.chat(**body)
        assert answer.status in {200, 400, 404, 413, 429}, body
        assert answer.status == 200 or answer.error["message"]
        assert sim.sim.stats.in_flight == 0


@given(MODELS, FIELDS)
@settings(max_examples=100)
def test_any_parameters_are_answered(model: str, fields: dict[str, Any]) -> None:
    """Known names with any values."""
    answered(model=model, **fields)


@given(MODELS, JSON)
@settings(max_examples=80)
def test_any_messages_are_answered(model: str, messages: Any) -> None:
    """Anything in the place of messages."""
    answered(model=model, messages=messages)


@given(MODELS, TOOLS)
def test_any_functions_are_answered(model: str, tools: Any) -> None:
    """Any parameters of functions."""
    answered(model=model, tools=tools, tool_choice="required")


@given(SCHEMA)
@settings(max_examples=80)
def test_any_schema_is_answered(schema: Any) -> None:
    """Any schema of an answer."""
    answered(response_format={"type": "json_schema", "json_schema": schema})


@given(st.binary(max_size=60))
def test_any_bytes_are_answered(content: bytes) -> None:
    """Anything in the place of a body."""
    assert TODAY.ask("POST", "/openai/v1/chat/completions", content).status == 400
