"""What can happen between the socket and the answer, and whether it may have to be paid for (reliability F22-F25)."""

from __future__ import annotations

import asyncio
import gzip
import socket
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest

from tests.scripted_groq import (
    ANSWER,
    BODY,
    KEY,
    Request,
    Script,
    always,
    call,
    calling,
    failure_of,
    hang,
    outcome_of,
    reply,
    serving,
)
from tests.waiting import wait_until_async
from vessel.upstream.outcome import Charge, Failure, Outcome, Reason, Success
from vessel.upstream.transport import EXCHANGE, AiohttpClient, AnswerTooLargeError, Exchange, _unpack

if TYPE_CHECKING:
    from vessel.upstream.groq import GroqUpstream


def test_a_refused_connection_is_not_charged() -> None:
    """Nothing was sent, so nothing is booked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"

    async def run() -> Outcome:
        async with calling(url) as upstream:
            return await call(upstream)

    outcome = asyncio.run(run())
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge, outcome.detail) == (
        Reason.CONNECT_FAILED,
        Charge.NONE,
        "ClientConnectorError",
    )


def test_a_handshake_that_never_ends_is_a_failed_connection() -> None:
    """The connection's own bound ends it long before the deadline, and it is tried once."""

    async def run() -> tuple[Outcome, int]:
        async with serving(hang) as server:
            url = server.url.replace("http:", "https:")
            async with calling(url, connect_timeout_s=0.2) as upstream:
                return await call(upstream), server.connections

    outcome, connections = asyncio.run(run())
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge, connections) == (Reason.CONNECT_FAILED, Charge.NONE, 1)


def test_an_unknown_host_is_a_failed_connection() -> None:
    """A name that does not resolve sends nothing."""

    async def run() -> Outcome:
        async with calling("http://nowhere.invalid") as upstream:
            return await call(upstream)

    outcome = asyncio.run(run())
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge) == (Reason.CONNECT_FAILED, Charge.NONE)


async def _reset(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    return False


@pytest.mark.parametrize(
    ("script", "status"),
    [
        (_reset, None),
        (always(b"", keep=False), None),
        (always(b"HTTP/1.1 200 OK\r\ncontent-len", keep=False), None),
        (always(reply(200, ANSWER[:40], content_length="400"), keep=False), 200),
        (always(reply(200, b"5\r\n{", transfer_encoding="chunked"), keep=False), None),
    ],
)
def test_a_connection_cut_after_sending_may_have_to_be_paid(script: Script, status: int | None) -> None:
    """The call may have run, so it is not repeated here and is booked at the estimate."""
    outcome, server = outcome_of(script)
    assert isinstance(outcome, Failure)
    assert outcome.charge is Charge.UNKNOWN
    assert outcome.reason in {Reason.CONNECTION_LOST, Reason.PROTOCOL_ERROR}
    assert len(server.requests) == 1
    if status:
        assert (outcome.reason, outcome.status) == (Reason.CONNECTION_LOST, status)


def test_a_chunked_answer_that_breaks_off_is_lost() -> None:
    """The end of the chunks is what tells a whole answer."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    failure = failure_of(always(head + b"5\r\n{abcd\r\n", keep=False))
    assert (failure.reason, failure.charge, failure.status) == (Reason.CONNECTION_LOST, Charge.UNKNOWN, 200)


def test_a_request_cut_before_its_end_is_not_charged() -> None:
    """A server that never had the whole body cannot have run it."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async def run() -> Outcome:
        listener = await asyncio.start_server(cut, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        body = {**BODY, "messages": [{"role": "user", "content": "x" * 30_000_000}]}
        async with listener, calling(url) as upstream:
            return await call(upstream, body)

    outcome = asyncio.run(run())
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge) == (Reason.CONNECTION_LOST, Charge.NONE)


def test_what_is_not_http_is_a_protocol_error() -> None:
    """Something else listens there."""
    failure = failure_of(always(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", keep=False))
    assert (failure.reason, failure.charge) == (Reason.PROTOCOL_ERROR, Charge.UNKNOWN)


async def _drip(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(reply(200, b"", content_length="100000"))
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)  # the drip itself, not a wait


@pytest.mark.parametrize(
    ("script", "status"), [(hang, None), (always(reply(200, b"{", content_length="9")), 200), (_drip, 200)]
)
def test_the_deadline_bounds_the_whole_call(script: Script, status: int | None) -> None:
    """Silence, a head without a body and a drip all end; the connection is dropped and the call may be billed."""

    async def run() -> None:
        async with serving(script) as server, calling(server.url) as upstream:
            outcome = await call(upstream, deadline_s=1.5)
            assert isinstance(outcome, Failure)
            assert (outcome.reason, outcome.charge, outcome.status) == (Reason.TIMEOUT, Charge.UNKNOWN, status)
            assert "1.5 s" in outcome.message
            await asyncio.wait_for(server.gone.wait(), 10)

    asyncio.run(run())


def test_an_error_is_not_billed_even_when_its_body_never_ends() -> None:
    """Its status is known by then."""
    failure = failure_of(always(reply(503, b"{", content_length="9")), deadline_s=1.5)
    assert (failure.reason, failure.charge, failure.status) == (Reason.TIMEOUT, Charge.NONE, 503)


def test_a_wait_for_a_free_connection_is_inside_the_deadline() -> None:
    """And nothing was sent for the call that never got one."""

    async def run() -> tuple[Outcome, Outcome]:
        async with serving(hang) as server, calling(server.url, max_connections=1) as upstream:
            return await asyncio.gather(call(upstream, deadline_s=2), call(upstream, deadline_s=1.5))

    first, second = asyncio.run(run())
    assert isinstance(first, Failure)
    assert isinstance(second, Failure)
    assert (first.reason, first.charge) == (Reason.TIMEOUT, Charge.UNKNOWN)
    assert (second.reason, second.charge) == (Reason.CONNECT_FAILED, Charge.NONE)


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b" " * 70_000 + ANSWER),
        reply(200, gzip.compress(b" " * 10_000_000 + ANSWER), content_encoding="gzip"),
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + (b"8000\r\n" + b"x" * 0x8000 + b"\r\n") * 9,
    ],
)
def test_an_answer_beyond_the_cap_is_not_held(answer: bytes) -> None:
    """Neither as bytes on the wire nor unpacked from a bomb."""
    failure = failure_of(always(answer), max_response_bytes=65_536)
    assert (failure.reason, failure.charge, failure.status) == (Reason.RESPONSE_TOO_LARGE, Charge.UNKNOWN, 200)


def test_a_bomb_is_never_unpacked_whole() -> None:
    """The cap holds while unpacking, not after it."""
    bomb = gzip.compress(b"x" * 50_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(AnswerTooLargeError):
            _unpack(bomb, "gzip", 100_000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_packed_answer_is_unpacked() -> None:
    """The body that is kept is the JSON, whatever the transfer did to it."""
    outcome, server = outcome_of(always(reply(200, gzip.compress(ANSWER), content_encoding="gzip")))
    assert isinstance(outcome, Success)
    assert outcome.body == ANSWER
    assert server.requests[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "encoding"),
    [(b"no gzip", "gzip"), (gzip.compress(ANSWER)[:-9], "gzip"), (zlib.compress(ANSWER), "deflate"), (ANSWER, "br")],
)
def test_what_cannot_be_unpacked_is_a_protocol_error(body: bytes, encoding: str) -> None:
    """Only what was offered is accepted."""
    failure = failure_of(always(reply(200, body, content_encoding=encoding)))
    assert (failure.reason, failure.charge, failure.status) == (Reason.PROTOCOL_ERROR, Charge.UNKNOWN, 200)


@pytest.mark.parametrize(
    "answer",
    [
        reply(503, b"x" * 1_000_000),
        reply(503, gzip.compress(b"x" * 10_000_000), content_encoding="gzip"),
        reply(503, b"no gzip", content_encoding="gzip"),
        reply(503, b"cut", content_length="9"),
        reply(503, b"", content_encoding="gzip"),
    ],
)
def test_the_status_of_an_error_survives_its_body(answer: bytes) -> None:
    """A huge, broken or cut page of an error changes nothing about what it says."""
    failure = failure_of(always(answer, keep=False))
    assert (failure.reason, failure.status, failure.charge) == (Reason.OVER_CAPACITY, 503, Charge.NONE)


def test_a_cancelled_call_lets_go_of_its_connection() -> None:
    """The cancellation goes on to the caller, and the upstream sees the hang-up."""

    async def run() -> None:
        async with serving(hang) as server, calling(server.url) as upstream:
            task = asyncio.create_task(call(upstream))
            await asyncio.wait_for(server.arrived.wait(), 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(server.gone.wait(), 10)

    asyncio.run(run())


async def _left_by_the_server(upstream: GroqUpstream) -> bool:
    client = upstream._client(KEY)._client
    assert isinstance(client, AiohttpClient)
    connector = client._session.connector
    assert connector is not None
    return not any(protocol.is_connected() for kept in connector._conns.values() for protocol, _ in kept)


def test_a_connection_the_server_closed_is_not_used_again() -> None:
    """An idle connection that went away costs a new one and not a failure."""

    async def run() -> None:
        async with serving(always(reply(200, ANSWER), keep=False)) as server, calling(server.url) as upstream:
            for number in (1, 2, 3):
                assert isinstance(await call(upstream), Success)
                assert server.connections == number
                await wait_until_async(lambda: _left_by_the_server(upstream))

    asyncio.run(run())


def _client() -> AiohttpClient:
    return AiohttpClient("http://127.0.0.1:9", connect_timeout_s=1, keepalive_s=1, max_connections=1, max_bytes=100)


@pytest.mark.parametrize(("touched", "tries"), [(False, 2), (True, 1)])
def test_only_a_request_of_which_nothing_left_is_sent_again(
    monkeypatch: pytest.MonkeyPatch, *, touched: bool, tries: int
) -> None:
    """A pooled connection may turn out closed before the first byte; after it, a repeat could run twice."""
    seen: list[httpx.Request] = []

    async def broken(_self: AiohttpClient, request: httpx.Request, exchange: Exchange) -> httpx.Response:
        seen.append(request)
        exchange.touched = touched
        raise aiohttp.ClientOSError

    async def run() -> None:
        monkeypatch.setattr(AiohttpClient, "_send", broken)
        EXCHANGE.set(Exchange())
        client = _client()
        with pytest.raises(aiohttp.ClientOSError):
            await client.send(httpx.Request("POST", "http://127.0.0.1:9/", content=b"{}"))
        await client.aclose()

    asyncio.run(run())
    assert len(seen) == tries
