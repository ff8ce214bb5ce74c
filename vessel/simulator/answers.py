"""Answers that can be checked: a deterministic function of the messages, whatever model gives them.

A text starts with `[` + the first 16 hex digits of the SHA-256 of the messages' canonical JSON (sorted keys, no spaces,
UTF-8) + `] `, then quotes the last thing the user said, then fills up. Marks in the last user text change the answer:
`<<empty>>` gives content "" (stop), `<<null>>` gives no content (length: thinking ate the budget), `<<tokens:N>>` gives
a text of exactly N tokens. `<<unfit:N>>` in any user text: the first N answers of the conversation are JSON that does
not fit the schema asked for, as if the model had not kept to it.

In JSON mode an answer fits the schema that a system message holds, where one does.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from vessel.simulator.schema import example, told_schema
from vessel.simulator.tokens import BYTES_PER_TOKEN, count_text, cut_text

if TYPE_CHECKING:
    from collections.abc import Sequence

EMPTY = "<<empty>>"
NULL = "<<null>>"
QUOTED_CHARS = 60
MIN_TOKENS = 8
_UNFIT = re.compile(r"<<unfit:(\d)>>")
_LENGTH = re.compile(r"<<tokens:(\d{1,6})>>")
_canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode
_SENTENCES = (
    "The short answer is that it depends on load and on limits. ",
    "The figures agree with the table that was given. ",
    "A simple plan follows from that, in three steps. ",
    "First measure, then change one thing at a time. ",
    "The rest can wait until the numbers are in. ",
    "Both options cost about the same over a year. ",
    "What remains open is who decides, and by when. ",
    "In practice the simpler of the two is easier to run. ",
)


def digest(messages: Sequence[Any]) -> str:
    """Return the 16 hex digits that stand for the messages."""
    return hashlib.sha256(_canonical(messages).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def text_of(message: Any) -> str:
    """Return a message's text, its text parts joined by spaces."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def last_user_text(messages: Sequence[Any]) -> str:
    """Return the last thing the user said, empty when nothing."""
    for message in reversed(messages):
        if isinstance(message, dict) and message.get("role") == "user":
            return text_of(message)
    return ""


def prompt_text(messages: Sequence[Any]) -> str:
    """Return the text of all messages, for faults that match a part of it."""
    return "\n".join(text_of(message) for message in messages)


def expected_text(
    messages: Sequence[Any], model: str | None = None, response_format: dict[str, Any] | None = None
) -> str:
    """Return the whole answer to messages, before any budget cuts it; JSON where a response format asks for it.

    The model makes no difference: an answer can be checked without knowing who gave it.
    """
    del model
    return answer_text(messages, digest(messages), response_format)


def answer_text(messages: Sequence[Any], mark: str, response_format: dict[str, Any] | None) -> str:
    """Return `expected_text` where the digest is already known."""
    kind = (response_format or {}).get("type", "text")
    schema = _schema(messages, response_format or {})
    if schema is not None:
        return json.dumps({"unfit": f"[{mark}]"} if _slips(messages) else example(schema, f"[{mark}]"))
    said = last_user_text(messages)
    if EMPTY in said or NULL in said:
        return ""
    quoted = said[:QUOTED_CHARS]
    if kind == "json_object":
        return json.dumps({"digest": f"[{mark}]", "answer": f'You asked: "{quoted}"', "confidence": 0.9})
    head = f'[{mark}] You asked: "{quoted}" - '
    if wanted := _LENGTH.search(said):
        return _exactly(head, max(MIN_TOKENS, int(wanted[1])))
    number = int(mark, 16)
    first, count = number >> 8, 1 + number % 6
    return (head + "".join(_SENTENCES[(first + 3 * i) % len(_SENTENCES)] for i in range(count))).rstrip()


def _schema(messages: Sequence[Any], response_format: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema that an answer is to fit: that of the request, or the first one a system message tells."""
    if response_format.get("type") == "json_schema":
        return (response_format.get("json_schema") or {}).get("schema") or {}
    if response_format.get("type") == "json_object":
        told = (text_of(m) for m in messages if isinstance(m, dict) and m.get("role") in {"system", "developer"})
        return next((found for text in told if (found := told_schema(text)) is not None), None)
    return None


def _slips(messages: Sequence[Any]) -> bool:
    wanted = _UNFIT.search("\n".join(text_of(m) for m in messages if isinstance(m, dict) and m.get("role") == "user"))
    answered = sum(1 for message in messages if isinstance(message, dict) and message.get("role") == "assistant")
    return wanted is not None and answered < int(wanted[1])


def _exactly(head: str, tokens: int) -> str:
    filler = "".join(_SENTENCES)
    missing = tokens * BYTES_PER_TOKEN - len(head.encode("utf-8", "surrogatepass"))
    text = head + (filler * (missing // len(filler) + 1))[: max(0, missing)]
    return text if count_text(text) == tokens else cut_text(text, tokens)
