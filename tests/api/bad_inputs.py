"""Requests that must be answered by a 4xx with OpenAI's body, whatever they hold. A bug gets a row here.

Each row: a name, the method, the path, what is sent (a value as JSON, bytes as they are), headers, and the statuses
that are right for it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

CHAT, JOBS = "/v1/chat/completions", "/v1/jobs"
HI: dict[str, Any] = {"role": "user", "content": "hi"}
NO_OBJECTS: tuple[Any, ...] = (1, "x", [], True)
GOOD: dict[str, Any] = {"model": "auto", "messages": [HI]}
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Bad:
    """A request, and what may answer it."""

    name: str
    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    statuses: tuple[int, ...] = (400,)
    param: str | None = None

    @property
    def content(self) -> bytes | None:
        """The bytes to send."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body
        return json.dumps(self.body).encode()


def chat(name: str, body: Any, param: str | None = None, **more: Any) -> Bad:
    """Build a chat request."""
    return Bad(name, "POST", CHAT, body, JSON | more.pop("headers", {}), param=param, **more)


def field_(name: str, value: Any, param: str | None = None) -> Bad:
    """Build a chat request with one field that is wrong."""
    return chat(f"{name}={str(value)[:30]}", GOOD | {name: value}, param or name)


def fields(name: str, values: tuple[Any, ...]) -> list[Bad]:
    """Build one for each value."""
    return [field_(name, value) for value in values]


def policies(name: str, values: tuple[Any, ...]) -> list[Bad]:
    """Build one for each value of a policy's field."""
    return [policy(name, value) for value in values]


def policy(name: str, value: Any, **more: Any) -> Bad:
    """Build a chat request with one field of its policy that is wrong."""
    return chat(f"vessel.{name}={str(value)[:30]}", GOOD | {"vessel": {name: value}}, f"vessel.{name}", **more)


def message(name: str, value: Any, param: str | None = None) -> Bad:
    """Build a chat request with one bad message."""
    return chat(f"message {name}", GOOD | {"messages": [HI, value]}, param)


NOT_JSON = [
    chat(name, raw)
    for name, raw in {
        "empty": b"",
        "blank": b" \r\n\t ",
        "null": b"null",
        "array": b"[]",
        "string": b'"x"',
        "number": b"1",
        "true": b"true",
        "cut": b'{"model":',
        "cut in a string": b'{"model":"au',
        "two documents": b"{}{}",
        "trailing comma": b'{"model":"auto",}',
        "single quotes": b"{'model':'auto'}",
        "comment": b'{"model":"auto"/*x*/}',
        "NaN": b'{"model":"auto","messages":[{"role":"user","content":"x"}],"temperature":NaN}',
        "Infinity": b'{"temperature":Infinity}',
        "-Infinity": b'{"temperature":-Infinity}',
        "1e999": json.dumps(GOOD)[:-1].encode() + b',"temperature":1e999}',
        "an integer of 5,000 digits": b'{"seed":' + b"9" * 5000 + b"}",
        "5,000 levels": b"[" * 5000 + b"]" * 5000,
        "5,000 levels of objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
        "100,000 levels": b"[" * 100_000,
        "65 levels": b'{"a":' + b"[" * 65 + b"]" * 65 + b"}",
        "a bad byte": b'{"model":"\xff"}',
        "a cut character": b'{"model":"\xe2\x82"}',
        "an overlong character": b'{"model":"\xc0\xaf"}',
        "UTF-16": json.dumps(GOOD).encode("utf-16"),
        "UTF-32": json.dumps(GOOD).encode("utf-32"),
        "a byte order mark": b"\xef\xbb\xbf" + json.dumps(GOOD).encode(),
        "a control character": b'{"model":"a\x01"}',
        "a name twice": b'{"model":"a","model":"b"}',
        "a name twice inside": b'{"messages":[{"role":"user","role":"system","content":"x"}]}',
        "binary": bytes(range(256)),
        "XML": b"<a/>",
        "a form": b"model=auto&messages=x",
    }.items()
]

FIELDS = [
    *fields(
        "model",
        (
            None,
            1,
            "",
            [],
            {},
            True,
            "x" * 10_000,
        ),
    ),
    *fields(
        "messages",
        (
            None,
            [],
            "hi",
            1,
            {},
            {"role": "user"},
            [HI] * 10_001,
        ),
    ),
    chat("model missing", {"messages": [HI]}, "model"),
    chat("messages missing", {"model": "auto"}, "messages"),
    *fields(
        "temperature",
        (
            -0.1,
            2.1,
            "hot",
            "1",
            True,
            [],
            {},
        ),
    ),
    *fields(
        "top_p",
        (
            0,
            -1,
            1.1,
            "1",
            False,
        ),
    ),
    *fields(
        "max_completion_tokens",
        (
            0,
            -1,
            1.5,
            "10",
            True,
            [],
            10**9,
        ),
    ),
    *fields(
        "max_tokens",
        (
            0,
            -1,
            1.5,
            "10",
            True,
            10**9,
        ),
    ),
    *fields(
        "n",
        (
            0,
            2,
            1000,
            "1",
            1.0,
            True,
        ),
    ),
    field_("stop", ["a", "b", "c", "d", "e"]),
    *fields(
        "stop",
        (
            1,
            {},
            [1],
            [[]],
        ),
    ),
    *fields(
        "seed",
        (
            "x",
            1.5,
            True,
            [],
        ),
    ),
    *fields(
        "stream",
        (
            "yes",
            1,
            0,
            [],
            {},
        ),
    ),
    *fields(
        "tools",
        (
            "x",
            {},
            [1],
            ["f"],
            [{}] * 129,
        ),
    ),
    *fields(
        "tool_choice",
        (
            1,
            [],
            True,
            "zz",
            {"type": "function", "function": {"name": "not sent"}},
            {"type": "function", "function": {}},
            {"type": "function"},
            {"type": "function", "function": "f"},
        ),
    ),
    *fields(
        "metadata",
        (
            1,
            [],
            {f"k{n}": "v" for n in range(17)},
            {"k" * 65: "v"},
            {"k": "v" * 513},
            {"k": {"deeper": "v"}},
            {"k": 1},
        ),
    ),
    *fields(
        "response_format",
        (
            "json",
            1,
            [],
        ),
    ),
    *fields(
        "reasoning_effort",
        (
            "much",
            1,
            [],
            True,
        ),
    ),
    *fields(
        "user",
        (
            1,
            [],
            {},
        ),
    ),
]

MESSAGES = [
    message("null", None),
    message("text", "hi"),
    message("empty", {}),
    message("unknown role", {"role": "boss", "content": "x"}, "messages.1.role"),
    message("role number", {"role": 1, "content": "x"}, "messages.1.role"),
    message("role missing", {"content": "x"}, "messages.1.role"),
    message("no content", {"role": "user"}, "messages.1.content"),
    message("null content", {"role": "assistant", "content": None}, "messages.1.content"),
    message("number", {"role": "user", "content": 1}, "messages.1.content"),
    message("object", {"role": "user", "content": {"text": "x"}}, "messages.1.content"),
    message("texts for parts", {"role": "user", "content": ["x"]}),
    message("tool calls no list", {"role": "assistant", "tool_calls": "x"}),
    message("tool calls no objects", {"role": "assistant", "tool_calls": [1]}),
    message("half a pair", {"role": "user", "content": "\ud800"}, "messages.1.content"),
    message("half a pair in a part", {"role": "user", "content": [{"type": "text", "text": "\udfff"}]}),
    message("half a pair as a name", {"role": "user", "content": "x", "\ud800": 1}),
]

BODIES = [*NOT_JSON, *FIELDS, *MESSAGES]
