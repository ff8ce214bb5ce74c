"""Answers that can be checked: a deterministic function of the messages, whatever model gives them.

A text starts with `[` + the first 16 hex digits of the SHA-256 of the messages' canonical JSON + `] `.
Tokens are counted as one per four bytes of UTF-8, rounded up, and four per message.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

EMPTY = "<<empty>>"
"""A prompt that holds this is answered with empty content, finish_reason stop."""
NULL = "<<null>>"
"""A prompt that holds this is answered with null content, finish_reason length: reasoning ate the budget."""

_FILLER = (
    "It depends on load and on limits.", "The figures agree with the table.", "A short plan follows from that.",
    "First measure, then change one thing.", "The rest can wait until tomorrow.", "Both options cost about the same.",
)  # fmt: skip


def digest(messages: list[Any]) -> str:
    """Return 16 hex digits that stand for the messages."""
    text = json.dumps(messages, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def text_of(message: Any) -> str:
    """Return a message's text, its parts joined."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def last_user_text(messages: list[Any]) -> str:
    """Return the last thing the user said."""
    texts = [text_of(m) for m in messages if isinstance(m, dict) and m.get("role") == "user"]
    return texts[-1] if texts else ""


def count_tokens(text: str) -> int:
    """Count a text's tokens: one per four bytes, rounded up."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def prompt_tokens(messages: list[Any]) -> int:
    """Count the tokens of a request's messages."""
    return sum(4 + count_tokens(text_of(m)) for m in messages)


def expected_text(messages: list[Any], model: str | None = None, response_format: dict[str, Any] | None = None) -> str:
    """Return the answer to messages; JSON when a response format asks for it. The model makes no difference."""
    del model
    mark = digest(messages)
    if response_format and response_format.get("type") == "json_object":
        return json.dumps({"answer": f"[{mark}]", "confidence": 0.9})
    if response_format and response_format.get("type") == "json_schema":
        schema = (response_format.get("json_schema") or {}).get("schema") or {}
        return json.dumps(_of_schema(schema, mark))
    quoted = " ".join(last_user_text(messages).split())[:60]
    extra = int(mark[:2], 16) % len(_FILLER) + 1
    return f"[{mark}] You asked: {quoted!r}. " + " ".join(_FILLER[(i + extra) % len(_FILLER)] for i in range(extra))


def _of_schema(schema: dict[str, Any], mark: str) -> Any:  # noqa: PLR0911  one answer per type
    if schema.get("enum"):
        return schema["enum"][int(mark[:4], 16) % len(schema["enum"])]
    match schema.get("type"):
        case "object":
            return {name: _of_schema(sub, mark) for name, sub in (schema.get("properties") or {}).items()}
        case "array":
            return [_of_schema(schema.get("items") or {}, mark)]
        case "integer":
            return int(mark[:4], 16)
        case "number":
            return int(mark[:4], 16) / 100
        case "boolean":
            return int(mark[0], 16) % 2 == 0
        case "null":
            return None
        case _:
            return f"[{mark}]"


def cut(text: str, tokens: int) -> tuple[str, int, str]:
    """Return the text within a budget, its tokens, and the finish reason."""
    counted = max(8, count_tokens(text))
    if counted <= tokens:
        return text, counted, "stop"
    return text.encode()[: tokens * 4].decode("utf-8", "ignore"), tokens, "length"
