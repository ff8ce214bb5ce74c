"""One POST to a receiver, to no other machine than the one that was checked.

A name is looked up once for each connection; all its addresses are checked, and one of those is connected to, with the
name for TLS and Host. So a name that leads elsewhere at a second look (DNS rebinding) gains nothing. Whatever connects
is checked once more where its socket is made. No redirect is followed, and no proxy of the environment is used.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from vessel import __version__
from vessel.errors import InvalidRequest
from vessel.notify.addresses import check_url, may_go_to
from vessel.notify.backoff import Outcome, Trouble, trouble_of
from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TOTAL_S = 15.0
BODY_S = 2.0
BODY_BYTES = 4096
"""Of a receiver's answer only the status counts; so much is read that the connection may serve again."""

LOOKUPS = 16
AGENT = f"vessel-webhooks/{__version__}"

log = get_logger(__name__)
Found = tuple[int, str]
"""A family and an address."""


class AddressRefused(Exception):
    """The receiver's name leads where nothing may be sent."""


def look_up(host: str, port: int) -> list[Found]:
    """Ask the machine's resolver for all addresses of a name. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [(family, str(where[0])) for family, _, _, _, where in found]


class CheckedResolver(AbstractResolver):
    """Looks names up in threads of its own, so that a slow name server holds nothing else of the process up."""

    def __init__(self, lookup: Callable[[str, int], list[Found]], *, allow_private: bool) -> None:
        """Take what looks names up."""
        self._lookup, self._allow_private = lookup, allow_private
        self._threads = ThreadPoolExecutor(LOOKUPS, "vessel-webhook-dns")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises AddressRefused when one of them is not allowed, OSError for none."""
        del family
        found = await asyncio.get_running_loop().run_in_executor(self._threads, self._lookup, host, port)
        if not found:
            raise OSError(None, "no address")
        _check_all([address for _, address in found], allow_private=self._allow_private)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=kind,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, address in dict.fromkeys(found)
        ]

    async def close(self) -> None:
        """Let go of the threads; one that still asks is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _check_all(addresses: Sequence[str], *, allow_private: bool) -> None:
    for address in addresses:
        try:
            allowed = may_go_to(ip_address(address), allow_private=allow_private)
        except ValueError:
            allowed = False
        if not allowed:
            raise AddressRefused


class Sender:
    """Holds the connections to receivers."""

    def __init__(self, *, allow_private: bool = False, lookup: Callable[[str, int], list[Found]] = look_up) -> None:
        """Open nothing yet; must be made where a loop runs."""
        self._allow_private = allow_private

        def guarded(address: tuple[Any, ...]) -> socket.socket:
            family, kind, proto, _, where = address
            _check_all([str(where[0])], allow_private=allow_private)
            return socket.socket(family, kind, proto)

        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(lookup, allow_private=allow_private),
            use_dns_cache=False,
            limit=0,
            keepalive_timeout=10,
            socket_factory=guarded,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=TOTAL_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            raise_for_status=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def post(self, url: str, payload: bytes, signature: Mapping[str, str]) -> Outcome:
        """Send a message once; never raises but when cancelled."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        trouble, status, retry_after = await self._try(url, payload, signature)
        return Outcome(trouble, status, retry_after, round((loop.time() - began) * 1000))

    async def _try(
        self, url: str, payload: bytes, signature: Mapping[str, str]
    ) -> tuple[Trouble, int | None, float | None]:
        given = {"content-type": "application/json", "user-agent": AGENT, "accept-encoding": "identity", **signature}
        try:
            # Again, as the setting may have changed since it was accepted.
            plain = check_url(url, allow_private=self._allow_private)
            async with self._session.post(plain, data=payload, headers=given, allow_redirects=False) as answer:
                await _drain(answer)
                return trouble_of(answer.status), answer.status, _seconds(answer.headers.get("retry-after"))
        except InvalidRequest:
            return Trouble.ADDRESS_REFUSED, None, None
        except Exception as error:  # noqa: BLE001  whatever a receiver does, it is its own trouble
            return _trouble(error), None, None


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read a little of the body; what is longer or slow costs its connection, not its success."""
    with suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with asyncio.timeout(BODY_S):
            left = BODY_BYTES
            while left > 0 and (piece := await answer.content.read(left)):
                left -= len(piece)
    if not answer.content.at_eof():
        answer.close()


def _trouble(error: BaseException) -> Trouble:
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, AddressRefused):
            return Trouble.ADDRESS_REFUSED
        seen = seen.__cause__ or seen.__context__
    match error:
        case TimeoutError():
            return Trouble.TIMEOUT
        case aiohttp.ClientConnectorDNSError():
            return Trouble.DNS
        case aiohttp.ClientSSLError() | aiohttp.ClientConnectorCertificateError():
            return Trouble.TLS
        case aiohttp.ClientConnectionError() | OSError():
            return Trouble.CONNECTION
        case _:
            log.debug("webhook.odd_answer", error=type(error).__name__)
            return Trouble.PROTOCOL


def _seconds(text: str | None) -> float | None:
    """Read Retry-After, seconds or a date; None where it is neither."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        at = parsedate_to_datetime(text)
        return max(0.0, (at - datetime.now(at.tzinfo)).total_seconds())
    except (ValueError, TypeError):
        return None
