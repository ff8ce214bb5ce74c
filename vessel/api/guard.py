"""What a request must pass before anything reads it: its host, its size, its pace; and the id it gets."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import time
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers, MutableHeaders

from vessel.api.faults import BodyTooLarge, TooSlow, answer
from vessel.errors import InvalidRequest, VesselError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from vessel.settings import Settings

MOST_BODY = 20 * 1024 * 1024
"""Of a JSON request; Groq takes images of 4 MB in it (docs/vision)."""
MOST_UPLOAD = 110 * 1024 * 1024
"""Of a multipart upload: a file of 100 MB and what is around it."""
BODY_S, UPLOAD_S, GAP_S = 30.0, 900.0, 15.0
"""How long a body may take in all, an upload, and any silence within one."""
DISCARD_S = 2.0
"""How long the rest of a refused body is read and dropped, as a client that still sends reads no answer."""

LOCAL_NAMES = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "testserver"})


class Guard:
    """An ASGI middleware in front of everything. Errors that it meets while a body is read replace any other answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        """Take the names under which we may be called."""
        self.app = app
        self.names = LOCAL_NAMES | {settings.api_host.lower(), socket.gethostname().lower()}
        self.names |= set(filter(None, settings.api_hosts.lower().split(",")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        scope.setdefault("state", {})["request_id"] = request_id = f"req_{secrets.token_hex(13)}"
        reading = Reading(scope, headers, receive)
        sending = Sending(scope, send, reading, request_id)
        try:
            self._check_host(headers)
            reading.check_length()
        except VesselError as error:
            await reading.discard()
            await answer(error, {"connection": "close"})(scope, receive, sending.plain)
            return
        if scope["method"] == "HEAD":
            await _Head(sending.send).run(self.app, scope)
            return
        await self.app(scope, reading.receive, sending.send)

    def _check_host(self, headers: Headers) -> None:
        """Refuse names that are not ours: a page could have its own name lead here (DNS rebinding).

        An address cannot be rebound, so any passes.
        """
        given = headers.getlist("host")
        name = _host_name(given[0]) if len(given) == 1 else ""
        if name in self.names or "*" in self.names:
            return
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return
        raise InvalidRequest(
            "Vessel does not answer to this host name. Call it by its address, or add the name to VESSEL_API_HOSTS.",
            param="host",
        )


def _host_name(given: str) -> str:
    name = given.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


class Reading:
    """The body as it comes: counted and timed."""

    def __init__(self, scope: Scope, headers: Headers, receive: Receive) -> None:
        """Begin; nothing is read yet."""
        upload = headers.get("content-type", "").lower().startswith("multipart/form-data")
        self.most, self.patience = (MOST_UPLOAD, UPLOAD_S) if upload else (MOST_BODY, BODY_S)
        self.refused: VesselError | None = None
        self._headers, self._receive = headers, receive
        self._until, self._read = time.monotonic() + self.patience, 0
        self._whole = self._dropped = False
        # Such a request is whole from the beginning, though the app may still ask for the end of its body.
        self._bodiless = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        self._path = scope["path"]

    def check_length(self) -> None:
        """Refuse by the announced length. Raises BodyTooLarge."""
        given = self._headers.get("content-length", "0")
        if not given.isdecimal() or int(given[:20]) > self.most:
            raise self._too_large()

    async def receive(self) -> Message:
        """Read on; once the body is whole this waits for the client to leave."""
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, min(GAP_S, self._until - time.monotonic()))):
                message = await self._receive()
        except TimeoutError:
            self.refused, self._dropped = TooSlow(), True
            raise self.refused from None
        self._read += len(message.get("body", b""))
        self._whole = message["type"] != "http.request" or not message.get("more_body", False)
        if self._read > self.most:
            self.refused = self._too_large()
            await self.discard()
            raise self.refused
        return message

    async def drained(self) -> bool:
        """Tell whether the connection can take another request; what the app left unread is dropped before."""
        if not (self._whole or self._bodiless or self._dropped):
            await self.discard()
        return self._whole or self._bodiless

    async def discard(self) -> None:
        """Drop what still comes for a moment."""
        self._dropped = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_S):
                while not self._whole:
                    message = await self._receive()
                    self._whole = message["type"] != "http.request" or not message.get("more_body", False)

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self.most // (1024 * 1024)} MiB; nothing was accepted.")


class Sending:
    """The answer as it goes: with its request's id, and replaced where the body was refused while it was read."""

    def __init__(self, scope: Scope, send: Send, reading: Reading, request_id: str) -> None:
        """Take where to send."""
        self._scope, self._send, self._reading, self._id = scope, send, reading, request_id
        self._replaced = False

    async def send(self, message: Message) -> None:
        """Send on what the app sends."""
        refused = self._reading.refused
        if refused is None:
            await self.plain(message)
        elif message["type"] == "http.response.start":
            self._replaced = True
            await answer(refused)(self._scope, _nothing, self.plain)
        elif not self._replaced:
            await self.plain(message)

    async def plain(self, message: Message) -> None:
        """Send with our headers."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["x-request-id"] = self._id
            headers.setdefault("cache-control", "no-store")
            headers.setdefault("x-content-type-options", "nosniff")
            if not await self._reading.drained():
                headers["connection"] = "close"  # else a client's next request would meet a closed connection
        await self._send(message)


class _Head:
    """A HEAD request answered as a GET without its body; what would stream on is ended after its headers."""

    def __init__(self, send: Send) -> None:
        self._send, self._told = send, asyncio.Event()

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        # From 2.4 on a stream would not listen for its client to leave, which is how it is ended here.
        asgi = {**scope.get("asgi", {}), "spec_version": "2.3"}
        await app({**scope, "method": "GET", "asgi": asgi}, self._receive, self._begin)

    async def _begin(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send(message)
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            self._told.set()

    async def _receive(self) -> Message:
        await self._told.wait()
        return await _nothing()


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}
