"""The token estimate: exact where the vocabulary is there, near enough elsewhere, never slow, and an upper bound."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import sys
from datetime import date
from typing import TYPE_CHECKING

import pytest
import quicktok  # type: ignore[import-untyped]  # it has no types
from hypothesis import given
from hypothesis import strategies as st

from vessel.gate import tokens, vocabulary
from vessel.gate.tokens import estimate_tokens, max_prompt_tokens
from vessel.gate.vocabulary import count, vocabulary_of
from vessel.registry import Availability
from vessel.settings import load_settings
from vessel.submit import Door

if TYPE_CHECKING:
    from collections.abc import Iterator

GPT_OSS, LLAMA, QWEN = "openai/gpt-oss-120b", "llama-3.3-70b-versatile", "qwen/qwen3-32b"
VOCABULARY = {GPT_OSS: "o200k_harmony", LLAMA: "llama3", QWEN: "qwen3"}
NO_VOCABULARY = "groq/compound"

# Counted with the o200k vocabulary of gpt-oss (quicktok-v1 0.4.0, equal to tiktoken's), texts only.
COUNTED = {
    "prose": ("The quick brown fox jumps over the lazy dog. " * 20, 201),
    "analysis": ("Analyze the viability of the revenue path and compare it with two alternatives. " * 10, 141),
    "code": ("def add(left: int, right: int) -> int:\n    return left + right\n\n\n" * 10, 190),
    "romanian": ("Analizează viabilitatea planului și compară-l cu două alternative realiste. " * 10, 181),
    "russian": ("Проанализируй жизнеспособность плана и сравни его с двумя вариантами. " * 10, 201),  # noqa: RUF001  it is that language
    "chinese": ("分析该计划的可行性，并与两个备选方案进行比较。" * 10, 160),  # noqa: RUF001  it is that language
    "japanese": ("この計画の実現可能性を分析し、二つの代替案と比較してください。" * 10, 211),
    "json": (json.dumps([{"id": n, "name": f"item_{n}", "ok": True} for n in range(50)]), 951),
    "base64": (base64.b64encode(bytes(range(256)) * 4).decode(), 926),
    "emoji": ("🚀🔥👍🎉😀🇷🇴👩‍💻" * 10, 160),
}
HUGE = ["x" * 10**6, "é" * 10**6, " " * 10**6, "a1" * 500_000, "\x00" * 10**6, "=" * 10**6, "😀" * 250_000]


@pytest.fixture
def not_installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the extra look as if it were not there."""
    monkeypatch.setitem(sys.modules, "quicktok", None)
    vocabulary._load.cache_clear()
    yield
    vocabulary._load.cache_clear()


def estimate(text: str, model: str | None = None) -> int:
    """Estimate a text alone: what it adds to an empty message."""
    with_text = estimate_tokens([{"role": "user", "content": text}], model)
    return with_text - estimate_tokens([{"role": "user", "content": ""}], model)


@pytest.mark.parametrize("kind", COUNTED)
def test_an_estimate_lies_near_the_true_count(kind: str) -> None:
    """By classes it reserves at least nine tenths of what gpt-oss counts, and less than twice as much."""
    text, counted = COUNTED[kind]

    assert 0.9 * counted <= estimate(text) <= 2 * counted


@pytest.mark.parametrize("kind", COUNTED)
def test_with_the_vocabulary_a_count_is_exact(kind: str) -> None:
    """A text counts what gpt-oss makes of it, and a prompt that and its template."""
    text, counted = COUNTED[kind]

    assert count(text, GPT_OSS) == counted
    long = text * (1 + tokens.SHORT // len(text))
    exact = quicktok.get_encoding(VOCABULARY[GPT_OSS]).count(long.encode())
    assert estimate(long, GPT_OSS) == exact
    assert exact + 70 < estimate_tokens([{"role": "user", "content": long}], GPT_OSS) < exact + 100


def test_a_short_text_loads_no_vocabulary() -> None:
    """A command that asks one question does not spend half a second on counting it."""
    vocabulary._load.cache_clear()
    text = "x" * (tokens.SHORT - 1)

    assert estimate(text, GPT_OSS) == tokens._by_classes(text)
    assert vocabulary._load.cache_info().currsize == 0
    assert estimate(text + "x", GPT_OSS) > 0
    assert vocabulary._load.cache_info().currsize == 1


@pytest.mark.parametrize("model", VOCABULARY)
@given(text=st.text())
def test_any_text_counts_as_many_as_it_encodes_to(model: str, text: str) -> None:
    """Each model's own vocabulary counts; what is half a character counts as a question mark."""
    whole = text.encode("utf-8", "replace").decode()
    reference = quicktok.get_encoding(VOCABULARY[model])

    assert count(text, model) == len(reference.encode_ordinary(whole))


@pytest.mark.parametrize(
    ("model", "vocabulary_name"),
    [
        ("openai/gpt-oss-20b", "o200k_harmony"),
        ("gpt-oss-120b", "o200k_harmony"),
        ("openai/gpt-oss-safeguard-20b", "o200k_harmony"),
        ("llama-3.1-8b-instant", "llama3"),
        ("llama3-70b-8192", "llama3"),
        ("qwen/qwen3-32b", "qwen3"),
        ("qwen/qwen3.8-27b", None),
        ("meta-llama/llama-4-scout-17b-16e-instruct", None),
        ("meta-llama/llama-guard-4-12b", None),
        ("groq/compound", None),
        ("moonshotai/kimi-k2-instruct-0905", None),
        ("", None),
        (None, None),
    ],
)
def test_a_model_is_counted_by_its_own_vocabulary_or_none(model: str | None, vocabulary_name: str | None) -> None:
    """A sister's vocabulary would be called exact and would not be."""
    assert vocabulary_of(model) == vocabulary_name
    assert (count("hello", model) is None) == (vocabulary_name is None)


@pytest.mark.parametrize("model", [None, NO_VOCABULARY])
def test_a_model_without_a_vocabulary_is_estimated(model: str | None) -> None:
    """What nobody can count is estimated by classes."""
    text, _ = COUNTED["code"]

    assert estimate(text, model) == tokens._by_classes(text)


@pytest.mark.usefixtures("not_installed")
def test_without_the_extra_everything_is_estimated() -> None:
    """A plain install counts by classes and says nothing about what it lacks."""
    text, counted = COUNTED["prose"]

    assert count(text, GPT_OSS) is None
    assert estimate(text, GPT_OSS) == tokens._by_classes(text) != counted


def test_no_vocabulary_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocabularies come with the package: loading each of them opens no connection."""
    opened: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda _, address: opened.append(address))
    vocabulary._load.cache_clear()

    assert all(count("hello", model) for model in VOCABULARY)
    assert opened == []


def test_nothing_is_loaded_before_something_is_counted() -> None:
    """Importing the estimate must not cost anybody the tokenizer."""
    code = "import sys, vessel.gate.tokens, vessel.cli.main; print('quicktok' in sys.modules, 'numpy' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert shown.split() == ["False", "False"]


@pytest.mark.parametrize("model", [GPT_OSS, LLAMA, QWEN, None])
@pytest.mark.parametrize("text", ["<|end|><|start|>system<|message|>", "<|eot_id|>", "<|im_end|>", "<|endoftext|>"])
def test_a_special_token_in_a_text_is_plain_text(model: str | None, text: str) -> None:
    """A caller's `<|end|>` raises nothing, and counts as the characters it is rather than as one token."""
    assert estimate(text, model) > 1


@pytest.mark.parametrize("model", [GPT_OSS, LLAMA, QWEN, None])
def test_half_a_surrogate_pair_raises_nothing(model: str | None) -> None:
    """The body is refused elsewhere; counting must not be what falls over."""
    assert 0 < estimate("a \ud83d b", model) < 10


def test_a_short_prompt_pays_for_the_chat_template() -> None:
    """Even `hi` costs what Groq's template adds around it."""
    assert 70 < estimate_tokens([{"role": "user", "content": "hi"}]) < 100


@pytest.mark.parametrize("model", [GPT_OSS, None])
def test_text_parts_count_like_text_and_images_at_a_flat_rate(model: str | None) -> None:
    """An image given as a data URL counts as one image, not as its base64 text."""
    text = "What is in this picture?"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    plain = estimate_tokens([{"role": "user", "content": text}], model)
    parts = [{"type": "text", "text": text}]

    assert estimate_tokens([{"role": "user", "content": parts}], model) == plain
    assert plain + 1000 < estimate_tokens([{"role": "user", "content": [*parts, image]}], model) < plain + 4000


@pytest.mark.parametrize("model", [GPT_OSS, None])
def test_tools_and_tool_calls_count(model: str | None) -> None:
    """Definitions of tools and earlier calls of them are part of the prompt."""
    messages = [{"role": "user", "content": "weather?"}]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"arguments": "{}"}}]}

    assert estimate_tokens(messages, model, [tool]) > estimate_tokens(messages, model)
    assert estimate_tokens([*messages, call], model) > estimate_tokens(messages, model) + 10


@pytest.mark.parametrize("model", [GPT_OSS, None])
@given(
    messages=st.lists(
        st.dictionaries(
            st.sampled_from(["role", "content", "name", "tool_calls"]),
            st.one_of(st.none(), st.text(), st.integers(), st.lists(st.one_of(st.text(), st.none(), st.integers()))),
        ),
        max_size=5,
    )
)
def test_any_message_has_an_estimate(model: str | None, messages: list[dict[str, object]]) -> None:
    """Whatever stands in a message, the estimate is a positive number and raises nothing."""
    assert estimate_tokens(messages, model) > 0


@pytest.mark.parametrize("model", [GPT_OSS, LLAMA, QWEN, None])
@pytest.mark.parametrize("text", HUGE, ids=range(len(HUGE)))
@pytest.mark.timeout(20)
def test_a_megabyte_of_anything_is_counted_in_linear_time(model: str | None, text: str) -> None:
    """No text makes the patterns or the tokenizer run away; a quadratic one would take minutes."""
    assert 0 < estimate(text, model) <= 3 * 10**6


@given(st.text())
def test_the_upper_bound_is_above_the_bytes(text: str) -> None:
    """One token per byte of the body, plus the template, bounds every tokenizer that falls back to bytes."""
    body = json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=True).encode()

    assert max_prompt_tokens(len(body)) > len(text.encode("utf-8", "surrogatepass"))
    assert max_prompt_tokens(len(body)) > (count(text, GPT_OSS) or 0)


def test_a_routed_request_is_counted_for_the_model_that_serves_it() -> None:
    """Who names no model is counted by the vocabulary of the one that routing chose."""
    messages = [{"role": "user", "content": "Donaudampfschifffahrtsgesellschaft " * 50}]
    door = Door(load_settings({}))
    all_served = Availability(listed=None, gone=frozenset(), today=date(2026, 11, 27))
    _, found, estimate = door.plan({"messages": messages}, {"tier": "power"}, availability=all_served)
    assert estimate == estimate_tokens(messages, found.hops[0].model)
    assert estimate != estimate_tokens(messages)
