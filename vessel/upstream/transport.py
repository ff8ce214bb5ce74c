"""The sockets below the groq SDK: aiohttp in place of httpx' own pool, whose cost grows with idle connections.

httpx-aiohttp does the same, but maps "nothing was sent" and "the answer was lost" to one exception, reads without a
bound, and costs a third more per call. This one records in an `Exchange` how far a request came, so that the caller
knows whether the organisation may have to pay for it.
"""

from __future__ import annotations

import urllib.request
import zlib
from contextvars import ContextVar
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httpx
from aiohttp.payload import Payload

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.http import StreamWriter

LONGEST_ERROR_BODY = 64 * 1024
EVENTS = "text/event-stream"
_PIECE = 256 * 1024
_GZIP = frozenset({"gzip", "x-gzip"})


class AnswerTooLargeError(Exception):
    """More bytes than we are willing to hold."""


class AnswerUnreadableError(Exception):
    """The body's encoding is broken or unknown."""


@dataclass(slots=True)
class Exchange:
    """How far one request came; the transport writes it, and it holds after a cancelled call too.

    `touched`: some bytes may have left. `sent`: all may have, so the server may have acted on them; before that it
    cannot, as it never had the whole body. `status`: the answer's, once its head was read. `feed` is given the body of
    a stream of events as it comes, which then is not kept; what it raises ends the call.
    """

    touched: bool = False
    sent: bool = False
    status: int | None = None
    feed: Callable[[bytes], None] | None = None


EXCHANGE: ContextVar[Exchange] = ContextVar("vessel_upstream_exchange")


class _Body(Payload):
    """A request body that records its progress in the exchange."""

    def __init__(self, content: bytes, exchange: Exchange) -> None:
        super().__init__(content, content_type="application/json")
        self._size = len(content)
        self._exchange = exchange

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        transport = cast("StreamWriter", writer).transport
        if transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("the connection was closed before the request")
        # Marked before the bytes go, because a write that fails may have handed them over first.
        self._exchange.touched = True
        for start in range(0, len(self._value), _PIECE):
            self._exchange.sent = start + _PIECE >= len(self._value)
            await writer.write(memoryview(self._value)[start : start + _PIECE])

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        del content_length  # always the body's own
        await self.write(writer)


class AiohttpClient(httpx.AsyncClient):
    """What the SDK takes as its `http_client`: one aiohttp session, one request at a time, no redirects, no cookies.

    Of httpx it keeps the building of requests and the shape of responses. Lives in the event loop it was made in.
    """

    def __init__(
        self, base_url: str, *, connect_timeout_s: float, keepalive_s: float, max_connections: int, max_bytes: int
    ) -> None:
        """Make the session; must run inside the loop that will use it."""
        super().__init__(transport=_NoTransport(), headers={"accept-encoding": "gzip"}, trust_env=False)
        self._proxy = _proxy(base_url)
        self._max_bytes = max_bytes
        context: ssl.SSLContext | bool = httpx.create_ssl_context() if base_url.startswith("https:") else True
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=keepalive_s, ssl=context),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
        )

    async def send(self, request: httpx.Request, **_kwargs: Any) -> httpx.Response:
        """Send once; once more when the pooled connection turned out closed before a single byte was written."""
        exchange = EXCHANGE.get(None) or Exchange()
        try:
            return await self._send(request, exchange)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise
        except aiohttp.ClientConnectionError:
            if exchange.touched:
                raise
        return await self._send(request, exchange)

    async def aclose(self) -> None:
        """Close every connection; calls still in flight fail."""
        await self._session.close()
        await super().aclose()

    async def _send(self, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        content = request.content
        async with self._session.request(
            request.method,
            str(request.url),
            headers=request.headers,
            data=_Body(content, exchange) if content else None,
            allow_redirects=False,
            proxy=self._proxy,
        ) as answer:
            exchange.touched = exchange.sent = True
            exchange.status = answer.status
            if exchange.feed is not None and answer.ok and answer.content_type == EVENTS:
                await _pour(answer, exchange.feed, self._max_bytes)
                body = b""
            else:
                body = await _read(answer, self._max_bytes)
            headers = [header for header in answer.raw_headers if header[0].lower() != b"content-encoding"]
        return httpx.Response(answer.status, headers=headers, content=body, request=request)


class _NoTransport(httpx.AsyncBaseTransport):
    """Stands where httpx would build its own pool; never called, as `send` goes to aiohttp."""


async def _pour(answer: aiohttp.ClientResponse, feed: Callable[[bytes], None], limit: int) -> None:
    """Hand a body on as it comes, unpacked, under the cap."""
    encoding = answer.headers.get("content-encoding", "identity").lower()
    if encoding not in {"identity", *_GZIP}:
        raise AnswerUnreadableError
    unpacker = zlib.decompressobj(wbits=31) if encoding in _GZIP else None
    async for piece in answer.content.iter_any():
        try:
            data = unpacker.decompress(piece, limit + 1) if unpacker else piece
        except zlib.error:
            raise AnswerUnreadableError from None
        limit -= len(data)
        if limit < 0:
            raise AnswerTooLargeError
        feed(data)


async def _read(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read the body under the cap, unpacked; of an error as much as can be had, because its status says enough."""
    is_error = answer.status >= HTTPStatus.BAD_REQUEST
    limit = LONGEST_ERROR_BODY if is_error else max_bytes
    encoding = answer.headers.get("content-encoding", "identity").lower()
    body = bytearray()
    try:
        await _fill(body, answer, limit)
        return _unpack(bytes(body), encoding, limit)
    except (aiohttp.ClientError, AnswerTooLargeError, AnswerUnreadableError):
        answer.close()
        if not is_error:
            raise
    return bytes(body) if encoding == "identity" else b""


async def _fill(body: bytearray, answer: aiohttp.ClientResponse, limit: int) -> None:
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > limit:
            raise AnswerTooLargeError


def _unpack(packed: bytes, encoding: str, limit: int) -> bytes:
    if encoding == "identity" or not packed:
        return packed
    if encoding not in _GZIP:
        raise AnswerUnreadableError
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(packed, limit + 1)
    except zlib.error:
        raise AnswerUnreadableError from None
    if len(unpacked) > limit:
        raise AnswerTooLargeError
    if not unpacker.eof:
        raise AnswerUnreadableError
    return unpacked


def _proxy(base_url: str) -> str | None:
    """Return the proxy that the environment names for this address (HTTPS_PROXY, ALL_PROXY, NO_PROXY)."""
    url = httpx.URL(base_url)
    if urllib.request.proxy_bypass(url.host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(url.scheme) or proxies.get("all")
