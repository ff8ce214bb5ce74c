"""What a caller gets back: the answer with who served it, what it cost and where it came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from vessel.client.fence import unfenced
from vessel.client.sources import Source, executed_tools, sources_of, without_marks
from vessel.upstream.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.jobs.model import Attempt, Job


__all__ = ["CodeResult", "Result", "Source", "ToolCall"]

T = TypeVar("T", default=None)
"""What `parsed` is: the type given as `response_model`, None without one."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the caller's own function tools that the model asks for; `arguments` is JSON as it was said."""

    id: str
    name: str
    arguments: str

    def __repr__(self) -> str:
        """Show what may be logged."""
        return f"ToolCall(id={self.id!r}, name={self.name!r})"


class Result(Generic[T]):
    """A job's answer. `str(result)` is its text; its repr never shows it. Can be copied and pickled."""

    def __init__(
        self, job: Job, *, max_sources: int | None = None, parsed: Any = None, repairs: Sequence[Result[Any]] = ()
    ) -> None:
        """Take a job that succeeded, with its payload, and what was read out of its text."""
        self.job_id = job.id
        self.model = job.served_model or job.model
        """The model that answered, which may be another than the one asked for."""
        self.tier = job.served_tier or job.tier
        self.vessel = job.served_vessel or "groq"
        """Who answered: `groq`, or `openai` when the job failed over."""
        usage = job.usage or {}
        self.usage = Usage(*(usage.get(name, 0) for name in Usage.__slots__))
        self.cost_usd = job.cost_usd if job.cost_usd is not None else Decimal(0)
        """In USD, of the call that gave the answer, with the fees of built-in tools; exact unless `cost_estimated`."""
        self.tool_cost_usd = Decimal(str(usage.get("tool_cost_usd") or 0))
        """How much of it are fees of built-in tools, by the price list in the registry."""
        self.cost_estimated = bool(usage.get("cost_estimated"))
        """Whether a price in it is not Groq's own word, as a tool's fee never is."""
        self.attempts: tuple[Attempt, ...] = job.attempts
        self.raw_bytes = job.response or b"{}"
        """Groq's response exactly as it came."""
        self.parsed: T = parsed
        """The answer as the type that was asked for by `response_model`."""
        self.repairs: tuple[Result[Any], ...] = tuple(repairs)
        """The answers before it that did not fit `response_model`, each from a job of its own that was paid for."""
        self._max_sources = max_sources
        self._marked = bool(job.builtin_tools)

    @property
    def total_cost_usd(self) -> Decimal:
        """Exact, in USD, with the answers before it that did not fit."""
        return self.cost_usd + sum((answer.cost_usd for answer in self.repairs), start=Decimal(0))

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The response parsed, in the chat-completions shape."""
        parsed: dict[str, Any] = json.loads(self.raw_bytes)
        return parsed

    @property
    def text(self) -> str:
        """The first choice's text; empty where it has none, as with tool calls or a budget spent on reasoning.

        An answer with built-in tools comes without gpt-oss' citation marks, which `raw` keeps.
        """
        text = self._message.get("content") or ""
        return without_marks(text) if self._marked else text

    @property
    def finish_reason(self) -> str:
        """Why the model stopped: stop, length, tool_calls, ..."""
        return str(self._choice.get("finish_reason") or "")

    @property
    def reasoning(self) -> str:
        """What the model thought, where Groq tells it; empty otherwise."""
        return self._message.get("reasoning") or ""

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The calls of the caller's own tools that the model asks for; empty where it asks for none."""
        calls = self._message.get("tool_calls")
        found = [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
        named = [(str(call.get("id") or ""), call.get("function")) for call in found]
        return [
            ToolCall(call_id, str(function.get("name") or ""), str(function.get("arguments") or ""))
            for call_id, function in named
            if isinstance(function, dict)
        ]

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a chat message, to be put into the next request: role, content and tool calls."""
        kept = {name: self._message[name] for name in ("content", "tool_calls") if self._message.get(name) is not None}
        return {"role": "assistant"} | ({"content": ""} if not kept else {}) | kept

    @property
    def executed_tools(self) -> list[dict[str, Any]]:
        """The built-in tools that Groq ran, as it reports them; empty where it does not."""
        return executed_tools(self._message)

    @cached_property
    def sources(self) -> list[Source]:
        """The pages that searches found and the answer cites, each once, best first as the tools gave them.

        Empty where the answer names none. At most as many as were asked for.
        """
        return sources_of(self._message)[: self._max_sources]

    @property
    def _choice(self) -> dict[str, Any]:
        choices = self.raw.get("choices")
        return choices[0] if isinstance(choices, list) and choices else {}

    @property
    def _message(self) -> dict[str, Any]:
        return self._choice.get("message") or {}

    def __str__(self) -> str:
        """Give the text."""
        return self.text

    def __repr__(self) -> str:
        """Show what may be logged."""
        kind = type(self).__name__
        return f"<{kind} {self.job_id} model={self.model} tier={self.tier} cost_usd={self.cost_usd:f}>"


class CodeResult(Result[None]):
    """An answer that holds code."""

    @property
    def code(self) -> str:
        """The text without its Markdown fence; several fenced blocks are joined by an empty line."""
        return unfenced(self.text)
