"""What a caller gets back: the answer with who served it, what it cost and where it came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from vessel.client.fence import unfenced
from vessel.upstream.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vessel.jobs.model import Attempt, Job


@dataclass(frozen=True, slots=True)
class Source:
    """A page that a search tool found or an answer cites."""

    url: str
    title: str = ""
    content: str = ""
    score: float | None = None


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
        """Exact, in USD, of the call that gave the answer."""
        self.attempts: tuple[Attempt, ...] = job.attempts
        self.raw_bytes = job.response or b"{}"
        """Groq's response exactly as it came."""
        self._max_sources = max_sources

    @cached_property
    def raw(self) -> dict[str, Any]:
        """The response parsed, in the chat-completions shape."""
        parsed: dict[str, Any] = json.loads(self.raw_bytes)
        return parsed

    @property
    def text(self) -> str:
        """The first choice's text; empty where it has none, as with tool calls or a budget spent on reasoning."""
        return self._message.get("content") or ""

    @property
    def finish_reason(self) -> str:
        """Why the model stopped: stop, length, tool_calls, ..."""
        return str(self._choice.get("finish_reason") or "")

    @property
    def executed_tools(self) -> list[dict[str, Any]]:
        """The built-in tools that Groq ran, as it reports them; empty where it does not."""
        tools = self._message.get("executed_tools")
        return [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []

    @property
    def sources(self) -> list[Source]:
        """The pages that searches found and the answer cites, each once, best first as the tools gave them."""
        found: dict[str, Source] = {}
        for source in (*self._found(), *self._cited()):
            found.setdefault(source.url, source)
        return list(found.values())[: self._max_sources]

    @property
    def _choice(self) -> dict[str, Any]:
        choices = self.raw.get("choices")
        return choices[0] if isinstance(choices, list) and choices else {}

    @property
    def _message(self) -> dict[str, Any]:
        return self._choice.get("message") or {}

    def _found(self) -> Iterator[Source]:
        for tool in self.executed_tools:
            for name in ("search_results", "browser_results"):
                held = tool.get(name)
                pages = held.get("results") if isinstance(held, dict) else held
                yield from _sources(pages)

    def _cited(self) -> Iterator[Source]:
        for note in self._message.get("annotations") or ():
            if isinstance(note, dict):
                yield from _sources([note, *(part for part in note.values() if isinstance(part, dict))])

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


def _sources(pages: object) -> Iterator[Source]:
    for page in pages if isinstance(pages, list) else ():
        url = page.get("url") if isinstance(page, dict) else None
        if isinstance(url, str) and url:
            score = page.get("score")
            yield Source(
                url,
                str(page.get("title") or ""),
                str(page.get("content") or ""),
                float(score) if isinstance(score, (int, float)) else None,
            )
