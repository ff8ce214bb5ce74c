"""What an answer says beside its text about its price: the built-in tools that ran, and the models behind a system.

Both are optional (groq-facts 5), and what is odd in them is left out: it must not cost anybody a paid answer.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from vessel.upstream.outcome import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vessel.wire import BuiltinTool

KINDS: dict[str, BuiltinTool] = {
    "search": "web_search",
    "web_search": "web_search",
    "browser_search": "web_search",
    "browser.search": "web_search",
    "visit": "visit_website",
    "visit_website": "visit_website",
    "browser.open": "visit_website",
    "python": "code_execution",
    "code_interpreter": "code_execution",
    "code_execution": "code_execution",
    "browser_automation": "browser_automation",
    "wolfram": "wolfram_alpha",
    "wolfram_alpha": "wolfram_alpha",
}
"""How Groq calls what ran, as `type` or `name`. `browser.find` looks into a page that is open, and is not priced."""

LARGEST_TOKENS = 10**9


def tool_runs(answer: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """Count the runs of each built-in tool, by the seed's names, in the order of their first run."""
    counted = Counter(kind for run in _executed(answer) if (kind := _kind(run)) is not None)
    return tuple(counted.items())


def usage_parts(answer: dict[str, Any]) -> tuple[tuple[str, Usage], ...]:
    """Return `usage_breakdown`: each model behind a system with its tokens; nothing where a part cannot be read."""
    breakdown = answer.get("usage_breakdown")
    models = breakdown.get("models") if isinstance(breakdown, dict) else None
    if not isinstance(models, list):
        return ()
    parts = [_part(entry) for entry in models]
    return tuple(part for part in parts if part) if all(parts) else ()


def _executed(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    runs = message.get("executed_tools") if isinstance(message, dict) else None
    yield from (run for run in runs if isinstance(run, dict)) if isinstance(runs, list) else ()


def _kind(run: dict[str, Any]) -> str | None:
    for name in (run.get("name"), run.get("type")):
        if isinstance(name, str) and name in KINDS:
            return KINDS[name]
    return None


def _part(entry: object) -> tuple[str, Usage] | None:
    model = entry.get("model") if isinstance(entry, dict) else None
    given = entry.get("usage") if isinstance(entry, dict) else None
    if not isinstance(model, str) or not isinstance(given, dict):
        return None
    prompt, completion = _tokens(given.get("prompt_tokens")), _tokens(given.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    details = given.get("prompt_tokens_details")
    cached = _tokens(details.get("cached_tokens")) if isinstance(details, dict) else None
    return model, Usage(prompt, completion, min(cached or 0, prompt))


def _tokens(value: object) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value <= LARGEST_TOKENS else None  # type: ignore[operator,return-value]
