"""The token estimate: near enough to reserve quota with, never slow, and an upper bound that holds."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.gate.tokens import estimate_tokens, max_prompt_tokens

# Counted with the o200k vocabulary of gpt-oss (quicktok-v1 0.4.0), texts only.
COUNTED = [
    ("The quick brown fox jumps over the lazy dog. " * 20, 201),
    ("Analyze the viability of the revenue path and compare it with two alternatives. " * 10, 141),
    ("def add(left: int, right: int) -> int:\n    return left + right\n\n\n" * 10, 190),
    ("Analizează viabilitatea planului și compară-l cu două alternative realiste. " * 10, 181),
    ("Проанализируй жизнеспособность плана и сравни его с двумя вариантами. " * 10, 201),  # noqa: RUF001  Russian
    ("分析该计划的可行性，并与两个备选方案进行比较。" * 10, 160),  # noqa: RUF001  Chinese
    ("この計画の実現可能性を分析し、二つの代替案と比較してください。" * 10, 211),
    (json.dumps([{"id": n, "name": f"item_{n}", "ok": True} for n in range(50)]), 951),
    (base64.b64encode(bytes(range(256)) * 4).decode(), 926),
]


def estimate(text: str) -> int:
    """Estimate a text alone: what it adds to an empty message."""
    return estimate_tokens([{"role": "user", "content": text}]) - estimate_tokens([{"role": "user", "content": ""}])


@pytest.mark.parametrize(("text", "counted"), COUNTED)
def test_estimate_lies_near_the_true_count(text: str, counted: int) -> None:
    """An estimate reserves at least nine tenths of what gpt-oss counts, and less than twice as much."""
    assert 0.9 * counted <= estimate(text) <= 2 * counted


def test_a_short_prompt_pays_for_the_chat_template() -> None:
    """Even `hi` costs what Groq's template adds around it."""
    assert 70 < estimate_tokens([{"role": "user", "content": "hi"}]) < 100


def test_text_parts_count_like_text_and_images_at_a_flat_rate() -> None:
    """An image given as a data URL counts as one image, not as its base64 text."""
    text = "What is in this picture?"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    plain = estimate_tokens([{"role": "user", "content": text}])
    parts = [{"type": "text", "text": text}]

    assert estimate_tokens([{"role": "user", "content": parts}]) == plain
    assert plain + 1000 < estimate_tokens([{"role": "user", "content": [*parts, image]}]) < plain + 4000


def test_tools_and_tool_calls_count() -> None:
    """Definitions of tools and earlier calls of them are part of the prompt."""
    messages = [{"role": "user", "content": "weather?"}]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"arguments": "{}"}}]}

    assert estimate_tokens(messages, None, [tool]) > estimate_tokens(messages)
    assert estimate_tokens([*messages, call]) > estimate_tokens(messages) + 10


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["role", "content", "name", "tool_calls"]),
            st.one_of(st.none(), st.text(), st.integers(), st.lists(st.one_of(st.text(), st.none(), st.integers()))),
        ),
        max_size=5,
    )
)
def test_any_message_has_an_estimate(messages: list[dict[str, object]]) -> None:
    """Whatever stands in a message, the estimate is a positive number and raises nothing."""
    assert estimate_tokens(messages) > 0


@pytest.mark.parametrize("text", ["x" * 10**6, "é" * 10**6, " " * 10**6, "a1" * 500_000, "\x00" * 10**6, "=" * 10**6])
@pytest.mark.timeout(20)
def test_a_megabyte_of_anything_is_counted_in_linear_time(text: str) -> None:
    """No text makes the patterns run away; a quadratic one would take minutes."""
    assert 0 < estimate(text) <= 3 * 10**6


@given(st.text())
def test_the_upper_bound_is_above_the_bytes(text: str) -> None:
    """One token per byte of the body, plus the template, bounds every tokenizer that falls back to bytes."""
    body = json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=True).encode()

    assert max_prompt_tokens(len(body)) > len(text.encode("utf-8", "surrogatepass"))
