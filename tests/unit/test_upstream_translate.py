"""What changes in a body on its way to a model, and that every change is told (groq-facts 5, 6)."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from vessel.upstream.translate import translate

GPT = (
    "openai/gpt-oss-120b",
    frozenset({"tools", "json_object", "json_schema", "strict_schema", "reasoning", "builtin_tools"}),
)
COMPOUND = ("groq/compound", frozenset({"builtin_tools"}))
LLAMA = ("llama-3.3-70b-versatile", frozenset({"tools", "json_object"}))
QWEN = ("qwen/qwen3.8-27b", frozenset({"tools", "json_object", "json_schema", "reasoning", "vision"}))
EFFORTS = {GPT: ("low", "medium", "high"), QWEN: ("none", "default", "low", "medium", "high")}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

Target = tuple[str, frozenset[str]]


def to(
    target: Target, body: dict[str, Any], *builtin: str, budget: int = 512
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Translate and check what always holds: the caller's body is left alone."""
    whole = {"messages": [{"role": "user", "content": "hi"}], "model": "auto", **body}
    before = copy.deepcopy(whole)
    translated, notes = translate(
        whole,
        model_id=target[0],
        features=target[1],
        reasoning_efforts=EFFORTS.get(target, ()),
        builtin_tools=builtin,
        max_completion_tokens=budget,
    )
    assert whole == before
    assert translated["model"] == target[0]
    assert translated["messages"] == whole["messages"]
    return translated, notes


def test_plain_fields_and_unknown_ones_pass_untouched() -> None:
    """A body that means the same everywhere only gets its model and its budget."""
    body = {"temperature": 0.20, "seed": 10**25, "user": "u", "new_field": {"a": [1.50]}, "tools": [FUNCTION]}
    translated, notes = to(GPT, body)
    assert notes == ()
    assert translated == {**body, "messages": translated["messages"], "model": GPT[0], "max_completion_tokens": 512}


def test_the_budget_is_set_and_the_deprecated_name_goes() -> None:
    """`max_tokens` is not sent beside its successor; a changed number is told."""
    translated, notes = to(GPT, {"max_tokens": 512, "stream": True, "stream_options": {}})
    assert notes == ()
    assert translated.keys() == {"messages", "model", "max_completion_tokens"}
    translated, notes = to(GPT, {"max_completion_tokens": 9000, "max_tokens": 1}, budget=4096)
    assert translated["max_completion_tokens"] == 4096
    assert notes == ("max_completion_tokens was changed from 9000 to 4096",)


def test_builtin_tools_are_tool_entries_on_gpt_oss() -> None:
    """Groq calls them browser_search and code_interpreter there; the choice stays with the caller."""
    translated, notes = to(GPT, {"tools": [FUNCTION, {"type": "browser_search"}]}, "web_search", "code_execution")
    assert translated["tools"] == [FUNCTION, {"type": "browser_search"}, {"type": "code_interpreter"}]
    assert "tool_choice" not in translated
    assert notes == ()
    assert to(GPT, {"tool_choice": "required"}, "web_search")[0]["tool_choice"] == "required"


def test_builtin_tools_are_enabled_on_compound() -> None:
    """A system takes names instead of entries, beside what the caller set there."""
    translated, notes = to(
        COMPOUND, {"compound_custom": {"models": {"answering_model": "m"}}}, "web_search", "code_execution"
    )
    assert translated["compound_custom"] == {
        "models": {"answering_model": "m"},
        "tools": {"enabled_tools": ["web_search", "code_interpreter"]},
    }
    assert notes == ()


def test_compound_without_a_wish_keeps_its_own_tools() -> None:
    """Everything is on by default there, so nothing is sent."""
    assert "compound_custom" not in to(COMPOUND, {})[0]
    own = {"compound_custom": {"tools": {"enabled_tools": ["visit_website"]}}}
    assert to(COMPOUND, own)[0]["compound_custom"] == own["compound_custom"]
    assert to(COMPOUND, own, "web_search")[0]["compound_custom"]["tools"]["enabled_tools"] == [
        "visit_website",
        "web_search",
    ]


def test_tool_entries_become_enabled_tools_on_compound() -> None:
    """A body written for gpt-oss works on a system too."""
    translated, notes = to(COMPOUND, {"tools": [{"type": "browser_search"}], "tool_choice": "required"})
    assert translated["compound_custom"] == {"tools": {"enabled_tools": ["web_search"]}}
    assert not {"tools", "tool_choice"} & translated.keys()
    assert notes == ()


def test_compound_fields_become_tools_on_gpt_oss() -> None:
    """A chain that leaves Compound keeps what has a counterpart and tells the rest."""
    body = {
        "compound_custom": {"tools": {"enabled_tools": ["web_search", "wolfram_alpha"]}, "models": {}},
        "search_settings": {"include_domains": ["a.example"]},
    }
    translated, notes = to(GPT, body)
    assert translated["tools"] == [{"type": "browser_search"}]
    assert not {"compound_custom", "search_settings"} & translated.keys()
    assert len(notes) == 3


def test_builtin_tools_are_dropped_with_a_note_where_there_are_none() -> None:
    """The seed's compound chain ends in a model that cannot search."""
    body = {"tools": [FUNCTION, {"type": "code_interpreter"}], "tool_choice": "auto"}
    translated, notes = to(LLAMA, body, "web_search")
    assert translated["tools"] == [FUNCTION]
    assert translated["tool_choice"] == "auto"
    assert [note.split()[0] for note in notes] == ["web_search", "code_execution"]


def test_a_choice_without_tools_goes_with_them() -> None:
    """Left alone it would be a 400."""
    body = {"tools": [{"type": "browser_search"}], "tool_choice": "required", "parallel_tool_calls": False}
    translated, notes = to(LLAMA, body)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & translated.keys()
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("target", "asked", "sent", "told"),
    [
        (GPT, "high", "high", False),
        (GPT, "none", "low", True),
        (GPT, "default", None, False),
        (GPT, None, None, False),
        (QWEN, "none", "none", False),
        (QWEN, "default", "default", False),
        (QWEN, "high", "high", False),
        (LLAMA, "high", None, True),
        (LLAMA, "none", None, True),
    ],
)
def test_reasoning_effort_is_what_the_model_takes(
    target: Target, asked: str | None, sent: str | None, *, told: bool
) -> None:
    """gpt-oss cannot stop reasoning, and a model without reasoning refuses the field."""
    translated, notes = to(target, {} if asked is None else {"reasoning_effort": asked})
    assert translated.get("reasoning_effort") == sent
    assert bool(notes) is told


@pytest.mark.parametrize(
    ("target", "body", "sent", "told"),
    [
        (GPT, {"reasoning_format": "hidden"}, {"include_reasoning": False}, False),
        (GPT, {"reasoning_format": "parsed"}, {"include_reasoning": True}, False),
        (GPT, {"reasoning_format": "raw"}, {"include_reasoning": True}, True),
        (GPT, {"include_reasoning": False}, {"include_reasoning": False}, False),
        (GPT, {"include_reasoning": False, "reasoning_format": "parsed"}, {"include_reasoning": False}, False),
        (GPT, {"reasoning_format": None}, {}, False),
        (QWEN, {"reasoning_format": "raw"}, {"reasoning_format": "raw"}, False),
        (LLAMA, {"reasoning_format": "hidden"}, {}, True),
        (LLAMA, {"include_reasoning": True}, {}, True),
    ],
)
def test_how_reasoning_is_shown_is_carried_over(
    target: Target, body: dict[str, Any], sent: dict[str, Any], *, told: bool
) -> None:
    """gpt-oss knows include_reasoning where others know reasoning_format."""
    translated, notes = to(target, body)
    assert {name: value for name, value in translated.items() if "reasoning" in name} == sent
    assert bool(notes) is told


def test_a_strict_schema_is_best_effort_where_strict_is_not_offered() -> None:
    """The schema stays, the promise does not, and that is told."""
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}}
    assert to(GPT, {"response_format": form}) == (to(GPT, {"response_format": form})[0], ())
    translated, notes = to(QWEN, {"response_format": form})
    assert translated["response_format"]["json_schema"] == {"name": "n", "schema": {"type": "object"}, "strict": False}
    assert notes == ("the JSON schema is best effort on qwen/qwen3.8-27b, not strict",)


@pytest.mark.parametrize(
    "odd",
    [None, 7, "x", [], {"tools": 7}, {"tools": {"enabled_tools": {"a": 1}}}, {"tools": {"enabled_tools": [[], 1]}}],
)
@pytest.mark.parametrize("target", [GPT, COMPOUND, LLAMA])
def test_odd_values_in_unchecked_fields_do_not_break_it(odd: object, target: Target) -> None:
    """Unknown fields are not checked on the way in, so anything can stand there."""
    body = {"compound_custom": odd, "response_format": odd, "search_settings": odd, "tools": [{"type": ["a"]}, {}]}
    assert to(target, body, "web_search")[0]["model"] == target[0]
