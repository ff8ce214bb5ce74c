"""One HTTP request and its answer over bare ASGI, with the headers Groq puts on every answer."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vessel.simulator.buckets import ModelLimits
    from vessel.simulator.validate import Fault

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_LINGER_OFF = struct.pack("ii", 1, 0)


def new_request_id() -> str:
    """Make a `req_` id as Groq's, a ULID: 48 bits of time, 80 random ones."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "req_" + "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))


class Exchange:
    """A request being answered. `gone` is set when its client has left."""

    def __init__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
        clock: Callable[[], float],
    ) -> None:
        """Take what the server gives."""
        self.scope, self._receive, self._send, self._clock = scope, receive, send, clock
        self.request_id = new_request_id()
        self.gone = asyncio.Event()
        self.limits: ModelLimits | None = None
        self.retry_after = ""
        self._watch: asyncio.Task[None] | None = None

    def header(self, name: bytes) -> str:
        """Return a request header, empty when absent."""
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == name), "")

    async def body(self) -> bytes:
        """Read the whole body, then watch for the client's leaving."""
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
                break
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        self._watch = asyncio.ensure_future(self._wait_gone())
        return b"".join(parts)

    async def _wait_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone.set()

    def finish(self) -> None:
        """Stop watching the client."""
        if self._watch is not None:
            self._watch.cancel()

    def _head(self, content_type: bytes, length: int | None) -> list[tuple[bytes, bytes]]:
        head = [(b"content-type", content_type), (b"x-request-id", self.request_id.encode()), (b"vary", b"Origin")]
        if length is not None:
            head.append((b"content-length", str(length).encode()))
        if self.limits is not None:
            head += self.limits.headers(self._clock())
        if self.retry_after:
            head.append((b"retry-after", self.retry_after.encode()))
        return head

    async def send(self, status: int, content: bytes, content_type: bytes = b"application/json") -> bool:
        """Send a whole answer; returns whether the client was still there after its last byte."""
        await self.part(status, len(content), content, content_type, last=True)
        return not self.gone.is_set() and not self.closing()

    async def part(
        self, status: int, length: int | None, content: bytes, content_type: bytes = b"application/json", *,
        last: bool = False,
    ) -> None:  # fmt: skip
        """Send the head and the beginning of a body."""
        head = self._head(content_type, length)
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": content, "more_body": not last})

    async def more(self, content: bytes, *, last: bool = False) -> bool:
        """Send more of a body; returns whether the client is still there."""
        if not self.gone.is_set():
            await self._send({"type": "http.response.body", "body": content, "more_body": not last})
        return not self.gone.is_set()

    async def json(self, status: int, body: Any) -> bool:
        """Send JSON."""
        return await self.send(status, json.dumps(body).encode())

    async def error(self, fault: Fault) -> bool:
        """Send an error answer."""
        return await self.json(fault.status, fault.body())

    def closing(self) -> bool:
        """Tell whether the connection is known to be closed."""
        transport = self.scope.get("simulator.transport")
        return bool(transport is not None and transport.is_closing())

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        self.gone.set()
        transport = self.scope.get("simulator.transport")
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
        transport.abort()
