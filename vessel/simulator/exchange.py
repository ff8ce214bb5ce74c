"""One HTTP request and its answer over bare ASGI, with the headers that Groq puts on its answers."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

from vessel.simulator import problems

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from vessel.simulator.buckets import Gate
    from vessel.simulator.clock import Clock
    from vessel.simulator.connection import Protocol

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

EXTENSION = "vessel.simulator"
"""Under this name a server may put the connection into the scope's extensions."""
JSON = b"application/json"
EVENTS = b"text/event-stream"
MOST_BYTES = 64 * 1024 * 1024
_ALWAYS = [
    (b"server", b"cloudflare"),
    (b"cache-control", b"private, max-age=0, no-store, no-cache, must-revalidate"),
    (b"vary", b"Origin"),
    (b"via", b"1.1 google"),
    (b"x-groq-region", b"sim"),
]
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]
_bits = random.SystemRandom().getrandbits(64)
_ids = random.Random(_bits)  # noqa: S311  ids only have to differ


class ClientGone(Exception):
    """The client left before its request was whole."""


def new_request_id() -> str:
    """Make an id as Groq's: `req_` and a ULID, 48 bits of time and 80 random ones."""
    value = (time.time_ns() // 1_000_000) << 80 | _ids.getrandbits(80)
    return "req_" + "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


class Exchange:
    """A request being answered."""

    __slots__ = ("_clock", "_receive", "_send", "connection", "gate", "headers", "request_id")

    def __init__(self, scope: Scope, receive: Receive, send: Send, clock: Clock) -> None:
        """Take what the server gives."""
        self._receive, self._send, self._clock = receive, send, clock
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.connection: Protocol | None = (scope.get("extensions") or {}).get(EXTENSION)
        self.request_id = new_request_id()
        self.gate: Gate | None = None
        """Whose x-ratelimit headers the answer carries."""

    def header(self, name: bytes) -> str | None:
        """Return a request header."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def body(self) -> bytes:
        """Read the whole request body. Raises ClientGone, and Problem for a body that is too large."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        content: bytes = message.get("body", b"")
        if not message.get("more_body"):
            return content
        parts, size = [content], len(content)
        while message.get("more_body"):
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > MOST_BYTES:
                raise problems.too_large()
        return b"".join(parts)

    async def gone(self, timeout_s: float | None = None) -> None:
        """Wait until the client has left, or the time is over; the body must have been read."""

        async def left() -> None:
            while (await self._receive())["type"] != "http.disconnect":
                pass

        try:
            await asyncio.wait_for(left(), timeout_s)
        except TimeoutError:
            await self.finish()

    @property
    def client_left(self) -> bool:
        """Tell whether the client is known to be gone."""
        return self.connection is not None and self.connection.lost

    async def begin(
        self, status: int, content_type: bytes, length: int | None, *, retry_after: object = None, edge: bool = False
    ) -> None:
        """Send status and headers; a proxy at the edge knows nothing of limits and request ids."""
        head = [(b"content-type", content_type), *_ALWAYS]
        if length is not None:
            head.append((b"content-length", b"%d" % length))
        if not edge:
            head.append((b"x-request-id", self.request_id.encode()))
            if self.gate is not None:
                head += self.gate.headers(self._clock.now())
        if retry_after is not None:
            head.append((b"retry-after", str(retry_after).encode("latin-1", "replace")))
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def write(self, content: bytes, *, last: bool = False) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": content, "more_body": not last})

    async def answer(self, status: int, content: bytes, content_type: bytes = JSON) -> bool:
        """Send a whole answer; returns whether its last byte went to a client that was still there."""
        await self.begin(status, content_type, len(content))
        return await self.end(content)

    async def end(self, content: bytes = b"") -> bool:
        """Send the last of the body; returns whether its last byte went to a client that was still there."""
        if self.client_left:
            return False
        await self.write(content, last=True)
        return self.connection is None or await self.connection.flushed()

    async def problem(self, problem: problems.Problem) -> bool:
        """Send an error answer."""
        content = problem.content()
        content_type = problems.HTML.encode() if problem.from_edge else JSON
        await self.begin(
            problem.status, content_type, len(content), retry_after=problem.retry_after, edge=problem.from_edge
        )
        return await self.end(content)

    async def reset(self) -> None:
        """Cut the connection with a TCP reset. Raises ConnectionResetError on a server that has no connection."""
        if self.connection is None:
            raise ConnectionResetError("simulated reset")
        await asyncio.sleep(0)  # what was written before has to leave first
        self.connection.reset()
        await self.connection.closed()

    async def finish(self) -> None:
        """Close the connection in order, wherever the answer is."""
        if self.connection is not None:
            self.connection.finish()
            await self.connection.closed()
