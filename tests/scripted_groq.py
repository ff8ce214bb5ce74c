"""A server that answers exactly what a test says, and the call that the upstream tests make against it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from vessel.upstream.groq import GroqUpstream
from vessel.upstream.keys import KeySource
from vessel.upstream.outcome import Failure, Outcome

MODEL = "openai/gpt-oss-20b"
CANARY = "canary-of-the-prompt"
KEY = "gsk_canary_of_the_key"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": CANARY}], "max_completion_tokens": 16}
ANSWER = (
    b'{"id":"chatcmpl-1","model":"openai/gpt-oss-20b", "choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"\\u00e9"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_time":1.0e-2},'
    b'"x_groq":{"id":"req_1","seed":12345678901234567890}}'
)


@dataclass
class Request:
    """What one request brought: its line, headers in lower case, and body."""

    line: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


@dataclass
class Server:
    """A scripted server; `script` answers one request and says whether the connection stays open."""

    script: Script
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests and answer them until one side has enough."""
        self.connections += 1
        try:
            while True:
                request = await read_request(reader)
                self.requests.append(request)
                self.arrived.set()
                if not await self.script(request, reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Read one request with its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}
    return Request(line, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Write an answer with its length, unless a header says otherwise."""
    named = {"content_type": "application/json", "content_length": str(len(body))} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode() + body


def always(answer: bytes, *, keep: bool = True) -> Script:
    """Answer every request alike."""

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer)
        await writer.drain()
        return keep

    return script


async def hang(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> bool:
    """Answer nothing until the other side leaves."""
    await reader.read()
    return False


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    """Run a scripted server on a free port."""
    server = Server(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=64 * 2**20)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def calling(url: str, keys: KeySource | None = None, **settings: Any) -> AsyncIterator[GroqUpstream]:
    """Make an upstream and close it in the loop that used it."""
    upstream = GroqUpstream(keys or KeySource(KEY), url, **settings)
    try:
        yield upstream
    finally:
        await upstream.close()


def call(upstream: GroqUpstream, body: dict[str, Any] = BODY, deadline_s: float = 20) -> Coroutine[Any, Any, Outcome]:
    """Make the call that every test makes."""
    return upstream.call(MODEL, body, deadline_s=deadline_s, attempt="job_1.2")


def outcome_of(script: Script, *, deadline_s: float = 20, **settings: Any) -> tuple[Outcome, Server]:
    """Make one call against a script."""

    async def run() -> tuple[Outcome, Server]:
        async with serving(script) as server, calling(server.url, **settings) as upstream:
            return await call(upstream, deadline_s=deadline_s), server

    return asyncio.run(run())


def failure_of(script: Script, *, deadline_s: float = 20, **settings: Any) -> Failure:
    """Make one call that has to fail."""
    outcome, _ = outcome_of(script, deadline_s=deadline_s, **settings)
    assert isinstance(outcome, Failure)
    return outcome
