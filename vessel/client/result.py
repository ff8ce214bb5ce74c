"""What a caller gets back: the answer with who served it, what it cost and where it came from."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vessel.client.fence import unfenced
from vessel.client.sources import Source, executed_tools, sources_of, without_marks
from vessel.upstream.outcome import Usage

if TYPE_CHECKING:
    from vessel.jobs.model import Attempt, Job


__all__ = ["CodeResult", "Result", "Source"]


class Result:
    """A job's answer. `str(result)` is its text; its repr never shows it."""

    def __init__(self, job: Job, *, max_sources: int | None = None) -> None:
        """Take a job that succeeded, with its payload."""
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
        self._max_sources = max_sources
        self._marked = bool(job.builtin_tools)

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


class CodeResult(Result):
    """An answer that holds code."""

    @property
    def code(self) -> str:
        """The text without its Markdown fence; several fenced blocks are joined by an empty line."""
        return unfenced(self.text)
