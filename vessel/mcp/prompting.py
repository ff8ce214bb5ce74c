"""The prompts that a user picks: analyze and code-review."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp_types import GetPromptResult, PromptArgument, PromptMessage

from vessel.client.fence import fenced
from vessel.mcp.catalog import Prompt, text
from vessel.wire import TaskType

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.mcp.catalog import Call

LANGUAGES = ("bash", "c", "cpp", "csharp", "go", "java", "javascript", "kotlin", "lua", "php", "python", "ruby", "rust",
             "sql", "swift", "typescript")  # fmt: skip


def _said(words: str, about: str) -> GetPromptResult:
    return GetPromptResult(description=about, messages=[PromptMessage(role="user", content=text(words))])


async def analyze(_call: Call, given: Mapping[str, str]) -> GetPromptResult:
    """Ask for an analysis through the tool."""
    task = given.get("task_type") or TaskType.STRATEGIC_ANALYSIS
    words = (
        f"Use the tool `analyze` with task_type {task} on the subject below, then give me: the situation in three "
        "sentences, the options with what speaks for and against each, your recommendation, and what would change it. "
        f"Name the model that answered and what it cost.\n\nSubject:\n{given['subject']}"
    )
    return _said(words, "An analysis by a model of the power tier")


async def code_review(_call: Call, given: Mapping[str, str]) -> GetPromptResult:
    """Ask for a review of code through the tool."""
    focus = f" Look above all at {given['focus']}." if given.get("focus") else ""
    named = f" It is {given['language']}." if given.get("language") else ""
    words = (
        f"Review the code below with the tool `query` (task_type coding).{named}{focus} List defects first, each with "
        "its line, what goes wrong and a fix; then risks; then what could be simpler. Say so if there is nothing.\n\n"
        f"{fenced(given['code'])}"
    )
    return _said(words, "A review of code")


async def propose(_call: Call, argument: str, begun: str) -> Sequence[str]:
    """Propose values of an argument."""
    known: Mapping[str, Sequence[str]] = {"task_type": tuple(TaskType), "language": LANGUAGES}
    return [str(value) for value in known.get(argument, ()) if value.startswith(begun.lower())]


PROMPTS = (
    Prompt(
        "analyze",
        "Analyze a subject",
        "Have a subject analyzed by a strong model.",
        (
            PromptArgument(name="subject", description="What to analyze, with its context.", required=True),
            PromptArgument(name="task_type", description="The kind of task; strategic_analysis without it."),
        ),
        analyze,
        propose,
    ),
    Prompt(
        "code-review",
        "Review code",
        "Have code reviewed.",
        (
            PromptArgument(name="code", description="The code.", required=True),
            PromptArgument(name="language", description="Its language."),
            PromptArgument(name="focus", description="What to look at above all, such as security."),
        ),
        code_review,
        propose,
    ),
)
