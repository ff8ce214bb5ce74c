"""What tools do in an answer: calls of the caller's functions, and the built-in tools that Groq runs by itself.

gpt-oss runs `browser_search` and `code_interpreter` (tools of the request); compound ran `enabled_tools` of
`compound_custom`. Both report in `message.executed_tools`.
"""

from __future__ import annotations

import json
import re
from typing import Any

from vessel.simulator.models import Feature, SimModel
from vessel.simulator.schema import example

BUILTIN = frozenset({"browser_search", "code_interpreter"})
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
