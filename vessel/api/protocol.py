"""The TCP connection below a request: uvicorn's protocol with bounds on headers and their pace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from vessel.api.faults import body, kind_of

if TYPE_CHECKING:
    import asyncio
    from asyncio import TimerHandle

MOST_URL, MOST_HEADERS, MOST_HEADER_COUNT = 8 * 1024, 32 * 1024, 100
HEADERS_S = 10.0
"""How long a request's headers may take, from the first byte of a connection or of its next request."""

_TEXTS = {
    400: ("invalid_http", "This is not an HTTP request that can be read."),
    408: ("request_timeout", "The request's headers did not arrive in time."),
    414: ("url_too_long", f"The address is longer than {MOST_URL // 1024} KiB."),
    431: ("headers_too_large", f"The headers are larger than {MOST_HEADERS // 1024} KiB or too many."),
}


class Refused(Exception):
    """A bound was passed; the parser stops."""


class Protocol(HttpToolsProtocol):
    """uvicorn's httptools protocol, bounded. What it refuses never reaches the app."""

    _refusal = 400
    _held = _count = _unread = 0
    _whole = True
    _timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin a connection; it may stay silent for as long as its headers may take."""
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """End it."""
        self._disarm()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._held = self._count = 0
        self._whole = False
        self._arm()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        super().on_url(url)
        if len(self.url) > MOST_URL:
            self._refuse(414)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._held += len(name) + len(value)
        self._count += 1
        if self._held > MOST_HEADERS or self._count > MOST_HEADER_COUNT:
            self._refuse(431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the app."""
        self._disarm()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that all of it is here."""
        self._whole = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Close a connection whose request was answered before all of it came: the rest could pass for another one."""
        super().on_response_complete()
        if not self._whole and not self.transport.is_closing():
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Read on; a header that has no end is bounded here, as the parser tells only whole ones."""
        super().data_received(data)
        if self._timer is None:
            return
        self._unread += len(data)
        if self._unread > MOST_URL + 2 * MOST_HEADERS:
            self._refusal = 431
            self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Answer what was refused, and close."""
        del msg
        self._disarm()
        if self.transport.is_closing():
            return
        code, text = _TEXTS[self._refusal]
        content = json.dumps(body(text, kind_of(self._refusal), code)).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(content)
        self.transport.write(STATUS_LINE[self._refusal] + head + content)
        self.transport.close()

    def _refuse(self, status: int) -> None:
        self._refusal = status
        raise Refused

    def _arm(self) -> None:
        self._disarm()
        self._unread = 0
        self._timer = self.loop.call_later(HEADERS_S, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._arm()  # an earlier request of the connection is still being answered
            return
        if self._whole:
            self.transport.close()
            return
        self._refusal = 408
        self.send_400_response("")
