"""The body of an answer: what the model would have said, with usage that agrees with the time it took."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.simulator import answers

if TYPE_CHECKING:
    from vessel.simulator.models import SimModel

DEFAULT_RESERVATION = 1024
"""What is reserved of the output where the caller gave no bound; Groq's own figure was never seen (groq-facts 2)."""

_BUILTIN = {"browser_search": "search", "web_search": "search", "code_interpreter": "python", "visit_website": "visit"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A computed answer and how long it takes."""

    message: dict[str, Any]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    queue_s: float
    prompt_s: float
    completion_s: float

    @property
    def total_s(self) -> float:
        """Return the time from arrival to the last token."""
        return self.queue_s + self.prompt_s + self.completion_s

    def usage(self) -> dict[str, Any]:
        """Write the usage; total_time leaves the queue out (groq-facts 1.3)."""
        return {
            "queue_time": self.queue_s,
            "prompt_tokens": self.prompt_tokens,
            "prompt_time": self.prompt_s,
            "completion_tokens": self.completion_tokens,
            "completion_time": self.completion_s,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "total_time": self.prompt_s + self.completion_s,
        }

    def body(self, model: str, request_id: str, created: int, tier: str) -> dict[str, Any]:
        """Write the whole answer."""
        breakdown = None
        if model.startswith("groq/compound"):
            breakdown = {"models": [{"model": "openai/gpt-oss-120b", "usage": self.usage()}]}
        return {
            "id": f"chatcmpl-{request_id[4:]}",
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [{"index": 0, "message": self.message, "logprobs": None, "finish_reason": self.finish_reason}],
            "usage": self.usage(),
            "usage_breakdown": breakdown,
            "system_fingerprint": "fp_simulator",
            "x_groq": {"id": request_id, "seed": 1},
            "service_tier": tier,
        }


def output_budget(body: dict[str, Any], model: SimModel) -> int:
    """Return what is reserved and at most generated."""
    wanted = body.get("max_completion_tokens") or body.get("max_tokens")
    return wanted if isinstance(wanted, int) else min(DEFAULT_RESERVATION, model.max_output)


def compute(body: dict[str, Any], model: SimModel, prompt_tokens: int) -> Answer:
    """Answer a valid request."""
    messages = body["messages"]
    said = answers.last_user_text(messages)
    message, tokens, finish = _message(body, model, messages, said)
    return Answer(
        message, finish, prompt_tokens, tokens, 0.002, prompt_tokens / (model.speed_tps * 20), tokens / model.speed_tps
    )


def _message(body: dict[str, Any], model: SimModel, messages: list[Any], said: str) -> tuple[dict[str, Any], int, str]:
    budget = output_budget(body, model)
    if answers.EMPTY in said:
        return {"role": "assistant", "content": ""}, 1, "stop"
    if answers.NULL in said:
        return {"role": "assistant", "content": None, "reasoning": "..."}, budget, "length"
    call = _tool_call(body, said, answers.digest(messages))
    if call is not None:
        return {"role": "assistant", "content": None, "tool_calls": [call]}, 24, "tool_calls"
    text, tokens, finish = answers.cut(answers.expected_text(messages, None, body.get("response_format")), budget)
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if executed := _executed(body, model, said):
        message["executed_tools"] = executed
    return message, tokens, finish


def _tool_call(body: dict[str, Any], said: str, mark: str) -> dict[str, Any] | None:
    functions = [t["function"] for t in body.get("tools") or [] if t.get("type") == "function"]
    choice = body.get("tool_choice")
    if not functions or choice == "none":
        return None
    if isinstance(choice, dict):
        functions = [f for f in functions if f.get("name") == (choice.get("function") or {}).get("name")] or functions
    elif choice != "required" and "use the tool" not in said.lower():
        return None
    names = (functions[0].get("parameters") or {}).get("properties") or {}
    arguments = json.dumps(dict.fromkeys(names, f"[{mark}]"))
    return {
        "id": f"call_{mark}",
        "type": "function",
        "function": {"name": functions[0]["name"], "arguments": arguments},
    }


def _executed(body: dict[str, Any], model: SimModel, said: str) -> list[dict[str, Any]]:
    enabled = [t.get("type") for t in body.get("tools") or [] if t.get("type") in _BUILTIN]
    if "compound" in model.features:
        enabled = ((body.get("compound_custom") or {}).get("tools") or {}).get("enabled_tools") or ["web_search"]
    return [_run(index, name, said) for index, name in enumerate(enabled) if name in _BUILTIN]


def _run(index: int, name: str, said: str) -> dict[str, Any]:
    row: dict[str, Any] = {"index": index, "type": _BUILTIN[name], "arguments": json.dumps({"query": said[:60]})}
    if _BUILTIN[name] == "search":
        found = {"title": "A simulated page", "url": "https://example.org/simulated", "content": "…", "score": 0.9}
        return row | {"output": "1 result", "search_results": {"results": [found], "images": []}}
    return row | {"output": "ok", "code_results": [{"text": "ok"}]}
