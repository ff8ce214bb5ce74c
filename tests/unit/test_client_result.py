"""What a result tells about an answer, and what it keeps to itself."""

from __future__ import annotations

import copy
import json
import pickle
from decimal import Decimal
from typing import Any

import pytest

from vessel.client.fence import fenced, unfenced
from vessel.client.result import CodeResult, Result, Source, ToolCall
from vessel.jobs.model import Hop, Job
from vessel.wire import JobState, Priority


def job(response: dict[str, Any] | bytes, **more: Any) -> Job:
    """Describe a job that succeeded."""
    given: dict[str, Any] = {
        "id": "job_1",
        "state": JobState.SUCCEEDED,
        "generation": 2,
        "tenant": "default",
        "priority": Priority.NORMAL,
        "tier": "power",
        "model": "openai/gpt-oss-120b",
        "hops": (Hop("openai/gpt-oss-120b", "power"),),
        "hop": 0,
        "policy": {},
        "reasons": (),
        "created_at": 1,
        "updated_at": 2,
        "estimated_tokens": 3,
        "prompt_bytes": 4,
        "response": response if isinstance(response, bytes) else json.dumps(response).encode(),
    }
    return Job(**given | more)


def answer(message: dict[str, Any], finish_reason: str = "stop") -> dict[str, Any]:
    """Give a response with one choice."""
    return {"choices": [{"message": message, "finish_reason": finish_reason}]}


def test_a_result_is_its_text() -> None:
    """`str(result)` is the text, so that a result can be printed as the seed does."""
    result = Result(job(answer({"content": "Grüße 🦁"})))
    assert (str(result), result.text, result.finish_reason) == ("Grüße 🦁", "Grüße 🦁", "stop")


@pytest.mark.parametrize(
    "message", [{"content": None, "tool_calls": [{}]}, {"content": ""}, {"content": None}, {"reasoning": "long"}]
)
def test_no_content_is_an_empty_text(message: dict[str, Any]) -> None:
    """An answer without content is a result with an empty text."""
    assert Result(job(answer(message, "length"))).text == ""


def test_a_result_names_what_served_it() -> None:
    """Model and tier are those that answered, usage and cost are exact."""
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, "cached_tokens": 2}
    served = {"served_model": "openai/gpt-oss-20b", "served_tier": "speed_demon", "cost_usd": Decimal("0.0000012")}
    result = Result(job(answer({"content": "x"}), usage=usage, **served))
    assert (result.model, result.tier) == ("openai/gpt-oss-20b", "speed_demon")
    assert (result.usage.total_tokens, result.usage.cached_tokens) == (12, 2)
    assert result.cost_usd == Decimal("0.0000012")


def test_the_bytes_are_kept_as_they_came() -> None:
    """`raw_bytes` is Groq's own spelling, `raw` what it means."""
    spelt = b'{ "choices":[{"message":{"content":"\\u00e9"}}], "n": 1.0e2 }'
    result = Result(job(spelt))
    assert result.raw_bytes == spelt
    assert result.raw["n"] == 100
    assert result.text == "é"


def test_the_repr_of_a_result_holds_no_answer() -> None:
    """A result may be logged."""
    shown = repr(Result(job(answer({"content": "canary answer"}), cost_usd=Decimal("0.0000001"))))
    assert "canary" not in shown
    assert shown == "<Result job_1 model=openai/gpt-oss-120b tier=power cost_usd=0.0000001>"


def test_a_result_travels() -> None:
    """Results are copied, and sent between processes, whole."""
    result: Result[Any] = Result(job(answer({"content": "x"})), parsed=[1], repairs=[Result(job({}))])
    assert result.raw["choices"]
    for other in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):  # noqa: S301  our own bytes
        assert (other.text, other.raw, other.parsed, other.job_id) == ("x", result.raw, [1], "job_1")
        assert [repair.job_id for repair in other.repairs] == ["job_1"]


def test_the_whole_cost_holds_the_repairs() -> None:
    """`cost_usd` is that of the answer, `total_cost_usd` of all that were paid for."""
    before = [Result(job({}, cost_usd=Decimal(n))) for n in (1, 2)]
    result = Result(job({}, cost_usd=Decimal("0.5")), repairs=before)
    assert (result.cost_usd, result.total_cost_usd) == (Decimal("0.5"), Decimal("3.5"))


def test_tool_calls_and_reasoning_are_told_and_go_on_as_a_message() -> None:
    """What a tool loop needs: the calls, and the message that the next request repeats."""
    calls = [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"canary": 1}'}}]
    said = Result(job(answer({"content": None, "reasoning": "hm", "tool_calls": calls}, "tool_calls")))
    assert said.tool_calls == [ToolCall("call_1", "f", '{"canary": 1}')]
    assert "canary" not in repr(said.tool_calls)
    assert said.reasoning == "hm"
    assert said.message == {"role": "assistant", "tool_calls": calls}
    plain = Result(job(answer({"content": "x", "executed_tools": []})))
    assert (plain.tool_calls, plain.reasoning, plain.message) == ([], "", {"role": "assistant", "content": "x"})
    assert Result(job({})).message == {"role": "assistant", "content": ""}
    for odd in ("odd", [3], [{"function": "odd"}]):
        assert Result(job(answer({"tool_calls": odd}))).tool_calls == []


def test_sources_come_from_searches_and_citations_each_once() -> None:
    """Pages are named in the order of the tools, then of the citations, and not twice."""
    page = {"title": "One", "url": "https://one.example", "content": "c", "score": 0.9}
    message = {
        "content": "x",
        "executed_tools": [
            {"type": "search", "search_results": {"results": [page, {"url": "https://two.example"}]}},
            {"type": "browser", "browser_results": [{"url": "https://three.example", "title": "Three"}]},
            {"type": "python", "search_results": {"results": None}, "browser_results": None},
        ],
        "annotations": [
            {"type": "url_citation", "url_citation": {"url": "https://four.example", "title": "Four"}},
            {"type": "url_citation", "url_citation": {"url": "https://one.example", "title": "again"}},
        ],
    }
    result = Result(job(answer(message)))
    assert result.sources[0] == Source("https://one.example", "One", "c", 0.9)
    assert [source.url.split("/")[2].partition(".")[0] for source in result.sources] == ["one", "two", "three", "four"]
    assert [tool["type"] for tool in result.executed_tools] == ["search", "browser", "python"]
    assert len(Result(job(answer(message)), max_sources=2).sources) == 2


@pytest.mark.parametrize(
    "message",
    [
        {"content": "x"},
        {"content": "x", "executed_tools": None, "annotations": None},
        {"content": "x", "executed_tools": "odd", "annotations": ["odd", {"url": 3}]},
        {"content": "x", "executed_tools": ["odd", {"search_results": "odd"}]},
    ],
)
def test_an_answer_without_sources_has_none(message: dict[str, Any]) -> None:
    """Sources and tools are optional in an answer, and odd ones are left out."""
    result = Result(job(answer(message)))
    assert result.sources == []
    assert all(isinstance(tool, dict) for tool in result.executed_tools)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("Here:\n\n```py\nx = 1\n\ny = 2\n```\nDone.", "x = 1\n\ny = 2"),
        ("```\na\n```\nand\n~~~sh\nb\n~~~", "a\n\nb"),
        ("````md\n```\ninner\n```\n````", "```\ninner\n```"),
        ("```python\ncut = off(", "cut = off("),
        ("  ```\n  indented\n    more\n  ```", "indented\n  more"),
        ("  plain = True\n", "plain = True"),
        ("use ```inline``` marks", "use ```inline``` marks"),
        ("```python\n```", ""),
        ("", ""),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1"),
        ("Run:\n```bash\npip install x\n```\nthen\n```python\nimport x\n```", "pip install x\n\nimport x"),
        ('```python\ns = """\n~~~\n```` no\n"""\n```', 's = """\n~~~\n```` no\n"""'),
        ("~~~python\nx = `1`\n```\n~~~", "x = `1`\n```"),
        ("```python\nx = 1\n`````\nafter", "x = 1"),
        ("1. Do:\n\n   ```py\n   if x:\n       y()\n   ```", "if x:\n    y()"),
        ("> quoted ```\nno fence", "> quoted ```\nno fence"),
    ],
)
def test_code_is_what_stands_in_the_fence(text: str, code: str) -> None:
    """Fences are read as CommonMark does; without one the whole text is code."""
    assert unfenced(text) == code
    assert CodeResult(job(answer({"content": text}))).code == code


@pytest.mark.parametrize("code", ["x = 1", "```", "a\n````\nb"])
def test_a_fence_can_be_taken_off_again(code: str) -> None:
    """What was fenced comes back."""
    assert unfenced(fenced(code)) == code
