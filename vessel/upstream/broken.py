"""Calls that brought no answer to read: why, and whether they may be billed all the same."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

from vessel.upstream.outcome import Charge, Reason
from vessel.upstream.transport import AnswerTooLargeError, AnswerUnreadableError

if TYPE_CHECKING:
    import httpx

    from vessel.upstream.transport import Exchange


@dataclass(frozen=True, slots=True)
class Broken:
    """A call that brought no answer to read."""

    reason: Reason
    detail: str
    charge: Charge
    status: int | None


def broken_off(exchange: Exchange, reason: Reason, detail: str) -> Broken:
    """Say what became of a call without an answer: how far its request came tells whether it may be billed."""
    if not exchange.touched:
        reason = Reason.CONNECT_FAILED
    # A server that never had the whole body cannot have run it, and an error is not billed (docs/errors).
    free = not exchange.sent or (exchange.status or 0) >= HTTPStatus.BAD_REQUEST
    return Broken(reason, detail, Charge.NONE if free else Charge.UNKNOWN, exchange.status)


def reason_of(cause: BaseException) -> Reason:
    """Name the failure behind a transport's exception."""
    match cause:
        case AnswerTooLargeError():
            return Reason.RESPONSE_TOO_LARGE
        case AnswerUnreadableError() | aiohttp.ClientResponseError():
            return Reason.PROTOCOL_ERROR
        case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError():
            return Reason.CONNECT_FAILED
        case _:
            return Reason.CONNECTION_LOST


def lower_headers(answer: httpx.Response) -> dict[str, str]:
    """Return an answer's headers, names in lower case."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers.raw}
