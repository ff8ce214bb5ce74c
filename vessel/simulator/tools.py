"""What tools do in an answer: calls of the caller's functions, and the built-in tools that Groq runs by itself.

gpt-oss runs `browser_search` and `code_interpreter` (tools of the request); compound ran `enabled_tools` of
`compound_custom`. Both report in `message.executed_tools`, mostly; how an answer tells of its tools is a scenario's to
choose (`tool_reports`), and a prompt's by `<<report:HOW>>`:

- `results`: what was found, in the fields of each run.
- `output`: gpt-oss' browser searched and opened a page; what it showed stands in `output` alone, and the answer cites
  its lines by marks like `【1†L1-L3】`.
- `annotations`: no runs, but the pages as `url_citation`.
- `none`: nothing. `mixed`: one of these, by the digest of the messages.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vessel.simulator.models import Feature, SimModel
from vessel.simulator.schema import example

BUILTIN = frozenset({"browser_search", "code_interpreter"})
ENABLED = frozenset({"web_search", "code_interpreter", "visit_website", "browser_automation", "wolfram_alpha"})
Reports = Literal["results", "output", "annotations", "none", "mixed"]
_MIXED: tuple[Reports, ...] = ("results", "output", "annotations", "none")
_HOW = re.compile(r"<<report:([a-z]+)>>")
USE_THE_TOOL = "use the tool"
COMPOUND_DEFAULT = ("web_search",)
_MOST_RUNS = {"groq/compound": 10, "groq/compound-mini": 1}
_RESULTS = 3


def tool_call(body: dict[str, Any], said: str, mark: str) -> dict[str, Any] | None:
    """Return the function call that answers a request, None when it is answered in words.

    A call answers when `tool_choice` is `required` or names a function, or when the prompt says "use the tool" and the
    last message is not already a tool's result.
    """
    functions = [tool["function"] for tool in body.get("tools") or [] if tool.get("type") == "function"]
    choice = body.get("tool_choice") or "auto"
    if not functions or choice == "none":
        return None
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        functions = [function for function in functions if function["name"] == name]
    elif choice == "auto" and (USE_THE_TOOL not in said.lower() or body["messages"][-1].get("role") == "tool"):
        return None
    chosen = functions[0]
    arguments = json.dumps(example(chosen.get("parameters") or {"type": "object"}, f"[{mark}]"))
    return {
        "id": f"call_{mark}",
        "type": "function",
        "function": {"name": chosen["name"], "arguments": arguments},
    }


@dataclass(frozen=True, slots=True)
class Report:
    """What an answer tells of its tools: fields of its message, and marks behind its text."""

    fields: dict[str, Any]
    marks: str = ""


def report(body: dict[str, Any], model: SimModel, said: str, mark: str, how: Reports) -> Report:
    """Tell of the built-in tools that ran for a request, in one of the ways that Groq does."""
    runs = executed_tools(body, model, said, mark)
    wished = _HOW.search(said)
    if wished and wished[1] in get_args(Reports):
        how = wished[1]  # type: ignore[assignment]  # one of them, as was just looked up
    if how == "mixed":
        how = _MIXED[int(mark, 16) % len(_MIXED)]
    searched = any("search_results" in run and run["search_results"]["results"] for run in runs)
    if not runs or how == "none":
        return Report({})
    if how == "annotations":
        return Report({"annotations": _annotations(body, mark)} if searched else {})
    if how == "output" and Feature.COMPOUND not in model.features:
        return Report({"executed_tools": _shown(runs, body, mark)}, " 【0†L1-L3】【1†L2】" if searched else "")
    return Report({"executed_tools": runs})


def _annotations(body: dict[str, Any], mark: str) -> list[dict[str, Any]]:
    return [
        {
            "type": "url_citation",
            "url_citation": {"url": url, "title": f"[{mark}] Cited page", "start_index": 0, "end_index": 1},
        }
        for url in _urls(body)
    ]


def _shown(runs: list[dict[str, Any]], body: dict[str, Any], mark: str) -> list[dict[str, Any]]:
    """Tell of gpt-oss' runs by what they showed the model; its browser opened the first page that it found."""
    shown: list[dict[str, Any]] = []
    for run in runs:
        told = {name: value for name, value in run.items() if name not in {"search_results", "code_results"}}
        if told.get("name") != "browser.search":
            shown.append(told | {"index": len(shown)})
            continue
        urls = _urls(body)
        links = "\n".join(f"L{at}: 【{at}†[{mark}] Page {at}†{url.split('/')[2]}】" for at, url in enumerate(urls))
        shown.append(told | {"index": len(shown), "output": f"[0] search (web-search://simulated)\n{links}"})
        page = f"[1] [{mark}] Simulated source 1 ({urls[0]})\n**viewing lines [0 - 2 of 2]**\n\nL0: Simulated."
        opened = {"index": len(shown), "type": "function", "name": "browser.open"}
        shown.append(opened | {"arguments": json.dumps({"cursor": 0, "id": 0}), "output": page})
    return shown


def executed_tools(body: dict[str, Any], model: SimModel, said: str, mark: str) -> list[dict[str, Any]]:
    """Return the built-in tools that ran for a request, in order."""
    if Feature.COMPOUND in model.features:
        custom = (body.get("compound_custom") or {}).get("tools") or {}
        names = list(custom.get("enabled_tools") or COMPOUND_DEFAULT)[: _MOST_RUNS.get(model.id, 10)]
        return [_compound_run(index, name, body, said, mark) for index, name in enumerate(names)]
    if body.get("tool_choice") == "none":
        return []
    names = [tool["type"] for tool in body.get("tools") or [] if tool.get("type") in BUILTIN]
    return [_oss_run(index, name, body, said, mark) for index, name in enumerate(names)]


def _oss_run(index: int, name: str, body: dict[str, Any], said: str, mark: str) -> dict[str, Any]:
    if name == "browser_search":
        found = _search(body, said, mark)
        return {"index": index, "type": "function", "name": "browser.search"} | found
    return {"index": index, "type": "function", "name": "python"} | _code(mark)


def _compound_run(index: int, name: str, body: dict[str, Any], said: str, mark: str) -> dict[str, Any]:
    row: dict[str, Any] = {"index": index}
    match name:
        case "code_interpreter":
            return row | {"type": "python"} | _code(mark)
        case "visit_website":
            page = {"title": f"[{mark}] A simulated page", "url": _urls(body)[0], "content": "Simulated content."}
            arguments = json.dumps({"url": page["url"]})
            return row | {"type": "visit", "arguments": arguments, "output": page["content"], "browser_results": [page]}
        case "browser_automation" | "wolfram_alpha":
            kind = "wolfram" if name == "wolfram_alpha" else name
            return row | {"type": kind, "arguments": json.dumps({"query": said[:60]}), "output": f"[{mark}] simulated"}
        case _:
            return row | {"type": "search"} | _search(body, said, mark)


def _code(mark: str) -> dict[str, Any]:
    output = f"[{mark}] 42\n"
    return {
        "arguments": json.dumps({"code": f"print('[{mark}]', 6 * 7)"}),
        "output": output,
        "code_results": [{"text": output}],
        "search_results": {"results": None},
    }


def _search(body: dict[str, Any], said: str, mark: str) -> dict[str, Any]:
    results = [
        {
            "title": f"[{mark}] Simulated source {number}",
            "url": url,
            "content": f"What source {number} says about: {said[:60]}",
            "score": round(0.95 - 0.1 * number, 2),
        }
        for number, url in enumerate(_urls(body), start=1)
    ]
    settings = body.get("search_settings") or {}
    images = ["https://example.org/simulated.png"] if settings.get("include_images") else []
    return {
        "arguments": json.dumps({"query": said[:60]}),
        "output": "\n\n".join(f"Title: {row['title']}\nURL: {row['url']}\n{row['content']}" for row in results),
        "search_results": {"results": results, "images": images},
    }


def _urls(body: dict[str, Any]) -> list[str]:
    settings = body.get("search_settings") or {}
    domains = settings.get("include_domains") or ["example.org", "example.com", "example.net"]
    excluded = set(settings.get("exclude_domains") or [])
    kept = [domain for domain in domains if domain not in excluded] or ["example.edu"]
    hosts = [re.sub(r"[^A-Za-z0-9.-]", "", domain.replace("*", "www")) for domain in kept]
    return [f"https://{hosts[number % len(hosts)]}/simulated/{number + 1}" for number in range(_RESULTS)]
