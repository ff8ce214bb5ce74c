"""The TCP connection below a request: uvicorn's protocol, open to the faults that cut it."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vessel.simulator.exchange import EXTENSION

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from typing import Any

_RST_ON_CLOSE = struct.pack("ii", 1, 0)
_LOOK_S = 0.002


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol, which hands itself to the app in the scope's extensions."""

    lost = False
    failed = False
    ended: asyncio.Event

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin a connection."""
        self.ended = asyncio.Event()
        super().connection_made(transport)

    def on_message_begin(self) -> None:
        """Put this connection into the scope of the request that begins."""
        super().on_message_begin()
        scope: MutableMapping[str, Any] = self.scope  # type: ignore[assignment]  # a TypedDict without our extension
        scope["extensions"] = {EXTENSION: self}

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the client is gone; an error means that something was not written."""
        self.lost, self.failed = True, exc is not None
        self.ended.set()
        super().connection_lost(exc)

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        sock: socket.socket | None = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST_ON_CLOSE)
        self.transport.abort()

    def finish(self) -> None:
        """Close the connection in order: what is written arrives, then the end."""
        self.transport.close()

    async def closed(self) -> None:
        """Wait until the connection is gone on this side."""
        await self.ended.wait()

    async def flushed(self) -> bool:
        """Wait until all that was written has left; returns whether it did."""
        await asyncio.sleep(0)
        while not self.lost:
            if not self.transport.get_write_buffer_size():
                return True
            await asyncio.sleep(_LOOK_S)
        return not self.failed
