"""The server over streamable HTTP, as an ASGI application that starts with its first request."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from vessel.mcp.catalog import Visitor
    from vessel.mcp.server import VesselServer

MOST_BODY = 20 * 1024 * 1024
"""As REST takes; the SDK would end at 4 MiB."""
GONE: Message = {"type": "http.disconnect"}


class Http:
    """Serves one server's requests. Origin, Host and keys are checked by who mounts it.

    A dropped connection ends the calls it carried: also those of 2025-11-25, where nobody could read their results, as
    nothing is kept to be sent again. Open streams that only wait end when `closing` is set.
    """

    def __init__(self, server: VesselServer, closing: asyncio.Event, **options: Any) -> None:
        """Serve nothing yet; `options` are those of the SDK's session manager."""
        self._manager = StreamableHTTPSessionManager(server, max_request_body_size=MOST_BODY, **options)
        self._closing, self._stop = closing, asyncio.Event()
        self._holding: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the sessions' task group, in a task of its own: it has to be left by the task that entered it."""
        ready = asyncio.get_running_loop().create_future()

        async def hold() -> None:
            async with self._manager.run():
                ready.set_result(None)
                await self._stop.wait()

        self._holding = asyncio.ensure_future(hold())
        await asyncio.wait({self._holding, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._holding

    async def stop(self) -> None:
        """End all sessions; calls under way are cancelled, and so are their jobs."""
        self._stop.set()
        if self._holding is not None:
            with contextlib.suppress(Exception):
                await self._holding

    async def serve(self, visitor: Visitor, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of somebody who may."""
        gone = asyncio.Event()
        waits = scope["method"] == "GET"

        async def watched() -> Message:
            message = await (self._or_closing(receive) if waits else receive())
            if message["type"] == "http.disconnect":
                gone.set()
            return message

        # The SDK lets only the credential that opened a session use it.
        token = AccessToken(token="", client_id=visitor.tenant, scopes=[])
        inner = {**scope, "user": AuthenticatedUser(token), "vessel.visitor": replace(visitor, gone=gone)}
        # RFC 9110 5.5: white space around a value is none of it; uvicorn's httptools leaves that behind it.
        inner["headers"] = [(name, value.strip(b" \t")) for name, value in scope["headers"]]
        await self._manager.handle_request(inner, watched, send)

    async def _or_closing(self, receive: Receive) -> Message:
        """Read on, or tell that the client has left once this process is to end."""
        reading, closing = asyncio.ensure_future(receive()), asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else GONE
        finally:
            reading.cancel()
            closing.cancel()
