"""What the simulated model says to a valid request, and the usage that goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.simulator import answers, problems
from vessel.simulator.models import Feature, SimModel
from vessel.simulator.tokens import count_json, count_text, cut_text
from vessel.simulator.tools import Report, Reports, report, tool_call

if TYPE_CHECKING:
    from vessel.simulator.latency import Timing

DEFAULT_RESERVATION = 1024
"""What is reserved of the output where the caller gave no bound; what Groq takes is published nowhere."""

_THINKING_TOKENS = {"minimal": 8, "low": 16, "medium": 48, "default": 48, "high": 160}
_THOUGHT = "The user wants an answer that can be checked, so the answer starts with the digest of the messages. "
_COMPOUND_SHARES = ("openai/gpt-oss-120b", "meta-llama/llama-4-scout-17b-16e-instruct")


@dataclass(frozen=True, slots=True)
class Completion:
    """A computed answer; `problem` is set where the model ran and failed."""

    message: dict[str, Any]
    finish_reason: str
    tokens: int
    reasoning_tokens: int = 0
    problem: problems.Problem | None = None


def bound(body: dict[str, Any]) -> int | None:
    """Return the caller's own bound of the output."""
    asked = body.get("max_completion_tokens")
    asked = body.get("max_tokens") if asked is None else asked
    return asked if isinstance(asked, int) else None


def reservation(body: dict[str, Any], model: SimModel) -> int:
    """Return the output that is reserved on arrival."""
    asked = bound(body)
    return min(DEFAULT_RESERVATION, model.max_output) if asked is None else asked


def complete(body: dict[str, Any], model: SimModel, mark: str, reports: Reports = "results") -> Completion:
    """Compute the answer to a valid request; `mark` is the digest of its messages, `reports` how it tells of tools."""
    said = answers.last_user_text(body["messages"])
    budget = bound(body)
    if answers.EMPTY in said:
        return Completion({"role": "assistant", "content": ""}, "stop", 1)
    if answers.NULL in said:
        eaten = reservation(body, model)
        return Completion({"role": "assistant", "content": None}, "length", eaten, eaten)
    thinking = _thinking(body, model)
    most = model.max_output if budget is None else budget
    if thinking >= most:
        return _ate_the_budget(body, most)
    if call := tool_call(body, said, mark):
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        tokens = max(answers.MIN_TOKENS, count_json(call)) + thinking
        return _with_reasoning(Completion(message, "tool_calls", tokens, thinking), body, model)
    told = report(body, model, said, mark, reports)
    return _in_words(body, model, mark, told, most - thinking, thinking)


def _in_words(body: dict[str, Any], model: SimModel, mark: str, told: Report, budget: int, thinking: int) -> Completion:
    wanted = body.get("response_format")
    whole = _stopped(answers.answer_text(body["messages"], mark, wanted), body.get("stop"))
    text = cut_text(whole, budget)
    was_cut = len(text) < len(whole)
    text = text if was_cut else text + told.marks
    tokens = budget if was_cut else min(budget, max(answers.MIN_TOKENS, count_text(text)))
    if was_cut and wanted and wanted.get("type") in {"json_object", "json_schema"}:
        return Completion({}, "length", tokens + thinking, thinking, problems.json_validate_failed(text))
    message: dict[str, Any] = {"role": "assistant", "content": text} | told.fields
    done = Completion(message, "length" if was_cut else "stop", tokens + thinking, thinking)
    return _with_reasoning(done, body, model)


def _ate_the_budget(body: dict[str, Any], budget: int) -> Completion:
    wanted = (body.get("response_format") or {}).get("type", "text")
    problem = None if wanted == "text" else problems.json_validate_failed("")
    message = {"role": "assistant", "content": None, "reasoning": cut_text(_thoughts(budget), budget)}
    return Completion(message, "length", budget, budget, problem)


def _thinking(body: dict[str, Any], model: SimModel) -> int:
    """Return the tokens spent on thinking: only models that can, and only when `reasoning_effort` is given."""
    return _THINKING_TOKENS.get(str(body.get("reasoning_effort")), 0) if model.efforts else 0


def _thoughts(tokens: int) -> str:
    return _THOUGHT * (tokens * 4 // len(_THOUGHT) + 1)


def _with_reasoning(done: Completion, body: dict[str, Any], model: SimModel) -> Completion:
    style = body.get("reasoning_format") or "parsed"
    if Feature.COMPOUND in model.features:
        done.message["reasoning"] = "<tool>searched, then answered</tool>"
    if not done.reasoning_tokens or style == "hidden" or body.get("include_reasoning") is False:
        return done
    thoughts = cut_text(_thoughts(done.reasoning_tokens), done.reasoning_tokens)
    if style == "raw":
        done.message["content"] = f"<think>\n{thoughts}\n</think>\n{done.message['content'] or ''}"
    else:
        done.message["reasoning"] = thoughts
    return done


def _stopped(text: str, stop: Any) -> str:
    ends = [stop] if isinstance(stop, str) else stop or []
    found = [at for end in ends if end and (at := text.find(end)) >= 0]
    return text[: min(found)] if found else text


def usage(done: Completion, prompt: int, cached: int, timing: Timing) -> dict[str, Any]:
    """Write the usage: total_time is prompt and completion, the queue is outside; details only where there are any."""
    found: dict[str, Any] = {
        "queue_time": timing.queue_s,
        "prompt_tokens": prompt,
        "prompt_time": timing.prompt_s,
        "completion_tokens": done.tokens,
        "completion_time": timing.completion_s,
        "total_tokens": prompt + done.tokens,
        "total_time": timing.prompt_s + timing.completion_s,
    }
    if cached:
        found["prompt_tokens_details"] = {"cached_tokens": cached}
    if done.reasoning_tokens:
        found["completion_tokens_details"] = {"reasoning_tokens": done.reasoning_tokens}
    return found


def usage_breakdown(model: SimModel, whole: dict[str, Any]) -> dict[str, Any] | None:
    """Split a compound answer's usage over the models that were behind it; the parts add up."""
    if Feature.COMPOUND not in model.features:
        return None
    first, second = dict(whole), dict(whole)
    for name in ("prompt_tokens", "completion_tokens"):
        second[name] = whole[name] // 3
        first[name] = whole[name] - second[name]
    for name in ("queue_time", "prompt_time", "completion_time", "total_time"):
        second[name] = whole[name] / 3
        first[name] = whole[name] - second[name]
    for part in (first, second):
        part["total_tokens"] = part["prompt_tokens"] + part["completion_tokens"]
    return {
        "models": [{"model": name, "usage": part} for name, part in zip(_COMPOUND_SHARES, (first, second), strict=True)]
    }
