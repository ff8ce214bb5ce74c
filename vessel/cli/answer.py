"""Ask, wait and print the answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, assert_never

from vessel.cli.output import emit, note, say, say_on, usd
from vessel.cli.reading import prompt_text
from vessel.client import CodeResult, GroqClient, GroqCompound, core, documents

if TYPE_CHECKING:
    from vessel.client import Result
    from vessel.client.request import Ask

Verb = Literal["query", "analyze", "code", "research"]


def answer(verb: Verb, text: str, asked: dict[str, Any], *, as_json: bool, stream: bool = False) -> None:
    """Ask, wait and print: the text alone, or everything in JSON; with `stream` piece by piece."""
    prompt = prompt_text(text)
    with GroqClient() as client:
        if stream:
            result = _print_as_it_comes(client, _composed(verb, prompt, asked), asked.get("timeout"), as_json=as_json)
        else:
            result = _ask(client, verb, prompt, asked)
    if as_json:
        emit(result_document(result))
        return
    if not stream:
        say(result.code if isinstance(result, CodeResult) else result.text)
    for number, source in enumerate(result.sources[: asked.get("max_results")], 1):
        say(f"[{number}] {source.title} {source.url}" if source.title else f"[{number}] {source.url}")
    usage, about = result.usage, "about " if result.cost_estimated else ""
    where = "" if result.vessel == "groq" else f" at {result.vessel}"
    note(
        f"-- {result.model}{where} ({result.tier}), {usage.prompt_tokens} + {usage.completion_tokens} tokens, "
        f"{about}{usd(result.cost_usd)}, {result.job_id}"
    )


def _print_as_it_comes(client: GroqClient, ask: Ask, timeout: float | None, *, as_json: bool) -> Result:
    """Print the pieces, in JSON one document each, and give the whole result."""
    with client.stream_ask(ask, timeout) as pieces:
        try:
            for piece in pieces:
                if as_json:
                    emit({"job_id": pieces.job_id, "piece": piece})
                else:
                    say_on(piece)
        except KeyboardInterrupt as stop:
            if not as_json:
                say()
            stop.add_note(f"Job {pieces.job_id} is cancelled; `vessel retry {pieces.job_id}` runs it again.")
            raise
    if not as_json:
        say()
    return pieces.whole


def _composed(verb: Verb, prompt: str, asked: dict[str, Any]) -> Ask:
    rest = {name: value for name, value in asked.items() if name not in {"timeout", "language", "max_results", "tools"}}
    match verb:
        case "query":
            return core.query(prompt, rest)
        case "analyze":
            return core.analysis(prompt, rest)
        case "code":
            return core.code(prompt, asked.get("language"), rest)
        case "research":
            return core.research(prompt, asked.get("tools", ("web_search",)), rest, asked.get("max_results"))
        case _ as never:
            assert_never(never)


def _ask(client: GroqClient, verb: Verb, prompt: str, asked: dict[str, Any]) -> Result:
    match verb:
        case "query":
            return client.query(prompt, **asked)
        case "analyze":
            return client.analyze(prompt, **asked)
        case "code":
            return client.generate_code(prompt, **asked)
        case "research":
            return GroqCompound(client=client).research(prompt, **asked)
        case _ as never:
            assert_never(never)


def result_document(result: Result) -> dict[str, Any]:
    """Describe a result in JSON."""
    document: dict[str, Any] = {
        "job_id": result.job_id,
        "state": "succeeded",
        "text": result.text,
        "model": result.model,
        "tier": result.tier,
        "vessel": result.vessel,
        "finish_reason": result.finish_reason,
        "usage": {name: getattr(result.usage, name) for name in result.usage.__slots__},
        "cost_usd": result.cost_usd,
        "attempts": documents.attempts(result.attempts),
    }
    if isinstance(result, CodeResult):
        document["code"] = result.code
    if result.cost_estimated:
        document |= {"cost_estimated": True, "tool_cost_usd": result.tool_cost_usd}
    if result.executed_tools:
        document["executed_tools"] = result.executed_tools
    if result.sources:
        document["sources"] = [asdict(source) for source in result.sources]
    return document
