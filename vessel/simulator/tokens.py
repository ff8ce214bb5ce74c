"""The simulator's token counter: simple, and the same for every model.

One token per four bytes of UTF-8, rounded up, and four per message; an image is IMAGE_TOKENS, tool definitions and
schemas count as their JSON. Real tokenizers differ by model; nothing here depends on being like them.
"""

from __future__ import annotations

from typing import Any

from vessel.simulator.encoding import encode_text

PER_MESSAGE = 4
IMAGE_TOKENS = 1024
BYTES_PER_TOKEN = 4


def count_text(text: str) -> int:
    """Count the tokens of a text."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)


def count_message(message: dict[str, Any]) -> int:
    """Count the tokens of one message."""
    content = message.get("content")
    total = PER_MESSAGE
    if isinstance(content, str):
        total += count_text(content)
    elif isinstance(content, list):
        for part in content:
            if part.get("type") == "image_url":
                total += IMAGE_TOKENS
            else:
                total += count_text(str(part.get("text", "")))
    if message.get("tool_calls"):
        total += count_json(message["tool_calls"])
    return total


def count_json(value: Any) -> int:
    """Count the tokens of something that the model sees as JSON."""
    return count_text(encode_text(value))


def count_prompt(body: dict[str, Any]) -> int:
    """Count the prompt of a valid request: messages, tools and schema."""
    total = sum(count_message(message) for message in body["messages"])
    if body.get("tools"):
        total += count_json(body["tools"])
    wanted = body.get("response_format")
    if wanted and wanted.get("json_schema"):
        total += count_json(wanted["json_schema"])
    return total


def cut_text(text: str, tokens: int) -> str:
    """Return the beginning of a text that is at most so many tokens, cut between characters."""
    if count_text(text) <= tokens:
        return text
    raw = text.encode("utf-8", "surrogatepass")[: max(0, tokens) * BYTES_PER_TOKEN]
    while raw:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raw = raw[:-1]
    return ""
