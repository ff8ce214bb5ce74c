"""One interactive call: query, analyze, code, research."""

from typing import Annotated

from typer import Option

from vessel.cli.commands import options
from vessel.cli.reading import context, given

Language = Annotated[str | None, Option(metavar="NAME", help="The programming language, e.g. python.")]
Tools = Annotated[
    list[str] | None,
    Option("--tool", metavar="NAME", help="A built-in tool, e.g. code_execution (else web_search). May be repeated."),
]
Results = Annotated[int | None, Option(min=1, metavar="N", help="At most so many sources.")]


def query(
    text: options.Text,
    *,
    tier: options.Tier = None,
    model: options.Model = None,
    task: options.Task = None,
    speed: options.Speed = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    max_cost: options.MaxCost = None,
    hints: options.Context = None,
    timeout: options.Timeout = None,
    stream: options.Stream = False,
    as_json: options.AsJson = False,
) -> None:
    """Ask and wait for the answer."""
    from vessel.cli.answer import answer

    asked = given(tier=tier, model=model, task_type=task, speed_priority=speed, system=system, timeout=timeout,
                  max_completion_tokens=max_tokens, max_cost_usd=max_cost, context=context(hints))  # fmt: skip
    answer("query", text, asked, as_json=as_json, stream=stream)


def analyze(
    text: options.Text,
    *,
    tier: options.Tier = None,
    model: options.Model = None,
    task: options.Task = None,
    speed: options.Speed = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    max_cost: options.MaxCost = None,
    hints: options.Context = None,
    timeout: options.Timeout = None,
    stream: options.Stream = False,
    as_json: options.AsJson = False,
) -> None:
    """Ask for an analysis, on the tier for strategic work unless another one is named."""
    from vessel.cli.answer import answer

    asked = given(tier=tier, model=model, task_type=task, speed_priority=speed, system=system, timeout=timeout,
                  max_completion_tokens=max_tokens, max_cost_usd=max_cost, context=context(hints))  # fmt: skip
    answer("analyze", text, asked, as_json=as_json, stream=stream)


def code(
    text: options.Text,
    *,
    language: Language = None,
    tier: options.Tier = None,
    model: options.Model = None,
    speed: options.Speed = None,
    max_tokens: options.MaxTokens = None,
    max_cost: options.MaxCost = None,
    timeout: options.Timeout = None,
    stream: options.Stream = False,
    as_json: options.AsJson = False,
) -> None:
    """Ask for code and print only that."""
    from vessel.cli.answer import answer

    asked = given(language=language, tier=tier, model=model, speed_priority=speed, timeout=timeout,
                  max_completion_tokens=max_tokens, max_cost_usd=max_cost)  # fmt: skip
    answer("code", text, asked, as_json=as_json, stream=stream)


def research(
    text: options.Text,
    *,
    tier: options.Tier = None,
    model: options.Model = None,
    tools: Tools = None,
    max_results: Results = None,
    max_tokens: options.MaxTokens = None,
    max_cost: options.MaxCost = None,
    timeout: options.Timeout = None,
    stream: options.Stream = False,
    as_json: options.AsJson = False,
) -> None:
    """Ask a model that searches the web, and name the sources."""
    from vessel.cli.answer import answer

    asked = given(tier=tier, model=model, tools=tools or None, max_results=max_results, timeout=timeout,
                  max_completion_tokens=max_tokens, max_cost_usd=max_cost)  # fmt: skip
    answer("research", text, asked, as_json=as_json, stream=stream)
