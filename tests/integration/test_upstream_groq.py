"""The whole way through the SDK and aiohttp, against servers that answer exactly what a test says."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest

from vessel.upstream.groq import GroqUpstream
from vessel.upstream.keys import KeySource
from vessel.upstream.outcome import Charge, Failure, Outcome, Reason, Success, Usage
from vessel.upstream.transport import EXCHANGE, AiohttpClient, Exchange

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "openai/gpt-oss-20b"
CANARY = "canary-of-the-prompt"
KEY = "gsk_canary_of_the_key"
BODY = {"model": MODEL, "messages": [{"role": "user", "content": CANARY}], "max_completion_tokens": 16}
ANSWER = (
    b'{"id":"chatcmpl-1","model":"openai/gpt-oss-20b", "choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"\\u00e9"},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_time":1.0e-2},'
    b'"x_groq":{"id":"req_1","seed":12345678901234567890}}'
)


@dataclass
class Request:
    """What one request brought: its line, headers in lower case, and body."""

    line: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


@dataclass
class Server:
    """A scripted server; `script` answers one request and says whether the connection stays open."""

    script: Script
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests and answer them until one side has enough."""
        self.connections += 1
        try:
            while True:
                request = await read_request(reader)
                self.requests.append(request)
                self.arrived.set()
                if not await self.script(request, reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.gone.set()
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Request:
    """Read one request with its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in rest)}
    return Request(line, headers, await reader.readexactly(int(headers.get("content-length", "0"))))


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    """Write an answer with its length, unless a header says otherwise."""
    named = {"content_type": "application/json", "content_length": str(len(body))} | headers
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode() + body


def always(answer: bytes, *, keep: bool = True) -> Script:
    """Answer every request alike."""

    async def script(_request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        writer.write(answer)
        await writer.drain()
        return keep

    return script


async def hang(_request: Request, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> bool:
    """Answer nothing until the other side leaves."""
    await reader.read()
    return False


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[Server]:
    """Run a scripted server on a free port."""
    server = Server(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=64 * 2**20)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def calling(url: str, keys: KeySource | None = None, **settings: Any) -> AsyncIterator[GroqUpstream]:
    """Make an upstream and close it in the loop that used it."""
    upstream = GroqUpstream(keys or KeySource(KEY), url, **settings)
    try:
        yield upstream
    finally:
        await upstream.close()


def call(upstream: GroqUpstream, body: dict[str, Any] = BODY, deadline_s: float = 20) -> Coroutine[Any, Any, Outcome]:
    """Make the call that every test makes."""
    return upstream.call(MODEL, body, deadline_s=deadline_s, attempt="job_1.2")


def outcome_of(script: Script, *, deadline_s: float = 20, **settings: Any) -> tuple[Outcome, Server]:
    """Make one call against a script."""

    async def run() -> tuple[Outcome, Server]:
        async with serving(script) as server, calling(server.url, **settings) as upstream:
            return await call(upstream, deadline_s=deadline_s), server

    return asyncio.run(run())


def failure_of(script: Script, *, deadline_s: float = 20, **settings: Any) -> Failure:
    """Make one call that has to fail."""
    outcome, _ = outcome_of(script, deadline_s=deadline_s, **settings)
    assert isinstance(outcome, Failure)
    return outcome


def test_a_call_goes_out_as_it_was_given_and_comes_back_as_it_was_sent() -> None:
    """Body, path, key and attempt arrive; the answer's bytes are untouched; nothing is sent twice."""
    outcome, server = outcome_of(always(reply(200, ANSWER, x_ratelimit_remaining_tokens="77", retry_after="0")))
    assert isinstance(outcome, Success)
    assert outcome.body == ANSWER
    assert (outcome.usage, outcome.request_id, outcome.finish_reason) == (Usage(3, 2), "req_1", "stop")
    assert outcome.headers.remaining_tokens == 77
    [request] = server.requests
    assert request.line == "POST /openai/v1/chat/completions HTTP/1.1"
    assert json.loads(request.body) == BODY
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-vessel-attempt"] == "job_1.2"
    assert request.headers["x-stainless-retry-count"] == "0"
    assert request.headers["user-agent"].startswith("AsyncGroq/Python")
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("size", [1_000, 100_000, 3_000_000])
def test_prompts_of_every_size_arrive_whole(size: int) -> None:
    """Beyond the socket's buffer too, with characters of several bytes and without a warning."""
    body = {**BODY, "messages": [{"role": "user", "content": "\u00e9\U0001f600\\\x00" * (size // 8)}], "seed": 10**30}

    async def run() -> None:
        async with serving(always(reply(200, ANSWER))) as server, calling(server.url) as upstream:
            assert isinstance(await call(upstream, body), Success)
            assert json.loads(server.requests[0].body) == body

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, Reason.BAD_REQUEST),
        (401, Reason.UNAUTHORIZED),
        (403, Reason.FORBIDDEN),
        (404, Reason.BAD_REQUEST),
        (408, Reason.SERVER_ERROR),
        (409, Reason.SERVER_ERROR),
        (413, Reason.TOO_LARGE),
        (422, Reason.BAD_REQUEST),
        (424, Reason.DEPENDENCY_FAILED),
        (429, Reason.RATE_LIMITED),
        (498, Reason.OVER_CAPACITY),
        (499, Reason.CANCELLED),
        (500, Reason.SERVER_ERROR),
        (502, Reason.SERVER_ERROR),
        (503, Reason.OVER_CAPACITY),
        (504, Reason.SERVER_ERROR),
    ],
)
def test_no_status_is_ever_repeated_by_the_sdk(status: int, reason: Reason) -> None:
    """Retries belong to the job, where the limiter sees them; `x-should-retry` does not change that."""
    outcome, server = outcome_of(
        always(reply(status, b'{"error":{"message":"x"}}', x_should_retry="true", retry_after="1"))
    )
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.status) == (reason, status)
    assert len(server.requests) == 1


def test_the_error_table_is_read_from_the_wire() -> None:
    """Code, limit and request id come through the SDK's exception."""
    error = {
        "message": "Rate limit reached on tokens per minute (TPM): Limit 6000, Used 5034, Requested 1443.",
        "code": "rate_limit_exceeded",
    }  # noqa: E501
    failure = failure_of(
        always(reply(429, json.dumps({"error": error}).encode(), X_Request_ID="req_5", Retry_After="5"))
    )
    assert (failure.retry_after_s, failure.limit_name, failure.limit_value) == (pytest.approx(4.77), "tpm", 6000)
    assert (failure.request_id, failure.detail, failure.charge) == ("req_5", "rate_limit_exceeded", Charge.NONE)


def test_a_redirect_is_not_followed() -> None:
    """The key and the prompt go to the configured address or nowhere."""
    outcome, server = outcome_of(always(reply(307, b"", location="/elsewhere")))
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.status, len(server.requests)) == (Reason.PROTOCOL_ERROR, 307, 1)


def test_a_page_of_html_is_no_result() -> None:
    """The SDK alone would return it as a str."""
    failure = failure_of(always(reply(200, b"<html>hi</html>", content_type="text/html")))
    assert (failure.reason, failure.charge) == (Reason.PROTOCOL_ERROR, Charge.UNKNOWN)


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
            async with calling(server.url.replace("http:", "https:"), connect_timeout_s=0.2) as upstream:
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
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "status"), [(hang, None), (always(reply(200, b"{", content_length="9")), 200), (_drip, 200)]
)
def test_the_deadline_bounds_the_whole_call(script: Script, status: int | None) -> None:
    """Silence, a head without a body and a drip all end; the connection is dropped and the call may be billed."""

    async def run() -> None:
        async with serving(script) as server, calling(server.url) as upstream:
            outcome = await call(upstream, deadline_s=0.3)
            assert isinstance(outcome, Failure)
            assert (outcome.reason, outcome.charge, outcome.status) == (Reason.TIMEOUT, Charge.UNKNOWN, status)
            assert "0.3 s" in outcome.message
            await asyncio.wait_for(server.gone.wait(), 10)

    asyncio.run(run())


def test_an_error_is_not_billed_even_when_its_body_never_ends() -> None:
    """Its status is known by then."""
    failure = failure_of(always(reply(503, b"{", content_length="9")), deadline_s=0.3)
    assert (failure.reason, failure.charge, failure.status) == (Reason.TIMEOUT, Charge.NONE, 503)


def test_a_wait_for_a_free_connection_is_inside_the_deadline() -> None:
    """And nothing was sent for the call that never got one."""

    async def run() -> list[Outcome]:
        async with serving(hang) as server, calling(server.url, max_connections=1) as upstream:
            return await asyncio.gather(call(upstream, deadline_s=0.6), call(upstream, deadline_s=0.3))

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


def test_a_new_key_is_used_by_the_next_call_over_the_same_connection(tmp_path: Path) -> None:
    """A rotation costs neither a restart nor a handshake."""
    file = tmp_path / "key"
    file.write_text("gsk_one")

    async def run() -> list[str]:
        async with serving(always(reply(200, ANSWER))) as server:
            async with calling(server.url, KeySource(key_file=file)) as upstream:
                assert isinstance(await call(upstream), Success)
                file.write_text("gsk_two")
                assert isinstance(await call(upstream), Success)
                assert server.connections == 1
                return [request.headers["authorization"] for request in server.requests]

    assert asyncio.run(run()) == ["Bearer gsk_one", "Bearer gsk_two"]


def test_without_a_key_nothing_is_sent(tmp_path: Path) -> None:
    """The job learns what is missing and how to set it."""

    async def run() -> tuple[Outcome, object, int]:
        async with serving(always(reply(200, ANSWER))) as server:
            async with calling(server.url, KeySource(key_file=tmp_path / "none")) as upstream:
                return await call(upstream), await upstream.list_models(), server.connections

    outcome, listed, connections = asyncio.run(run())
    assert isinstance(outcome, Failure)
    assert isinstance(listed, Failure)
    assert (outcome.reason, outcome.charge, listed.reason, connections) == (
        Reason.NO_KEY,
        Charge.NONE,
        Reason.NO_KEY,
        0,
    )
    assert "GROQ_API_KEY" in outcome.message


def test_a_body_that_json_cannot_carry_is_a_bad_request() -> None:
    """It is refused here, in words that hold nothing of it."""

    async def run() -> Outcome:
        async with calling("http://127.0.0.1:9") as upstream:
            return await call(upstream, {**BODY, "x": float("nan")})

    outcome = asyncio.run(run())
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge) == (Reason.BAD_REQUEST, Charge.NONE)


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


def test_a_connection_the_server_closed_is_not_used_again() -> None:
    """An idle connection that went away costs a new one and not a failure."""

    async def run() -> None:
        async with serving(always(reply(200, ANSWER), keep=False)) as server, calling(server.url) as upstream:
            for number in (1, 2, 3):
                assert isinstance(await call(upstream), Success)
                assert server.connections == number

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


def test_one_upstream_serves_one_loop_after_the_other() -> None:
    """An SDK client kept across loops fails every second call."""
    upstream = GroqUpstream(KeySource(KEY), None)

    async def run() -> Outcome:
        async with serving(always(reply(200, ANSWER))) as server:
            upstream._base_url = server.url
            outcome = await call(upstream)
            await upstream.close()
            return outcome

    assert [isinstance(asyncio.run(run()), Success) for _ in range(3)] == [True, True, True]


def test_the_address_is_the_settings_and_not_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK would read GROQ_BASE_URL by itself where none is given."""
    monkeypatch.setenv("GROQ_BASE_URL", "http://127.0.0.1:9")

    async def run() -> str:
        async with calling("") as upstream:
            return str(upstream._client(KEY).base_url)

    assert asyncio.run(run()) == "https://api.groq.com/"


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that only have a proxy work, and NO_PROXY is obeyed."""

    async def run(no_proxy: str) -> tuple[Outcome, Server]:
        async with serving(always(reply(200, ANSWER))) as proxy:
            monkeypatch.setenv("http_proxy", proxy.url)
            monkeypatch.setenv("no_proxy", no_proxy)
            async with calling("http://groq.invalid") as upstream:
                return await call(upstream), proxy

    outcome, proxy = asyncio.run(run(""))
    assert isinstance(outcome, Success)
    assert proxy.requests[0].line == "POST http://groq.invalid/openai/v1/chat/completions HTTP/1.1"
    outcome, proxy = asyncio.run(run("groq.invalid"))
    assert isinstance(outcome, Failure)
    assert proxy.requests == []


def test_the_models_of_the_key_are_listed_as_groq_spells_them() -> None:
    """Unknown fields stay: prices and features are among them."""
    data = [{"id": MODEL, "active": True, "pricing": {"prompt": "0.000000075"}}, {"id": "whisper-large-v3"}, {"id": 7}]

    async def run() -> None:
        listing = reply(200, json.dumps({"object": "list", "data": data}).encode())
        async with serving(always(listing)) as server, calling(server.url) as upstream:
            assert await upstream.list_models() == tuple(data[:2])
            assert server.requests[0].line == "GET /openai/v1/models HTTP/1.1"
            assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("script", "deadline_s", "reason"),
    [
        (always(reply(401, b'{"error":{"message":"Invalid API Key"}}')), 20, Reason.UNAUTHORIZED),
        (always(reply(200, b"<html>")), 20, Reason.PROTOCOL_ERROR),
        (always(reply(200, b'{"data":[1]}')), 20, Reason.PROTOCOL_ERROR),
        (always(reply(200, b"[]")), 20, Reason.PROTOCOL_ERROR),
        (always(b"", keep=False), 20, Reason.CONNECTION_LOST),
        (hang, 0.2, Reason.TIMEOUT),
    ],
)
def test_a_list_that_cannot_be_had_is_a_failure(script: Script, deadline_s: float, reason: Reason) -> None:
    """Listing models never raises either and never costs anything."""

    async def run() -> object:
        async with serving(script) as server, calling(server.url) as upstream:
            return await upstream.list_models(deadline_s=deadline_s)

    failure = asyncio.run(run())
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.charge) == (reason, Charge.NONE)


def test_a_hundred_calls_at_once_each_get_their_own_answer() -> None:
    """Connections are shared and answers are not."""

    async def echo(request: Request, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        content = json.loads(request.body)["messages"][0]["content"]
        answer = json.loads(ANSWER)
        answer["choices"][0]["message"]["content"] = content
        writer.write(reply(200, json.dumps(answer).encode()))
        return True

    async def one(upstream: GroqUpstream, number: int) -> None:
        outcome = await call(upstream, {**BODY, "messages": [{"role": "user", "content": f"number {number}"}]})
        assert isinstance(outcome, Success)
        assert json.loads(outcome.body)["choices"][0]["message"]["content"] == f"number {number}"

    async def run() -> None:
        async with serving(echo) as server, calling(server.url, max_connections=20) as upstream:
            await asyncio.gather(*(one(upstream, number) for number in range(100)))
            assert server.connections <= 20

    asyncio.run(run())


FAULTS: list[Script] = [
    always(reply(200, ANSWER)),
    always(reply(400, json.dumps({"error": {"message": f"bad: {CANARY}", "code": f"{CANARY} x"}}).encode())),
    always(reply(200, f'{{"error":{{"message":"{CANARY}"}}}}'.encode())),
    always(b"", keep=False),
    always(reply(200, CANARY.encode())),
    always(f"{CANARY}\r\n\r\n".encode(), keep=False),
    always(reply(200, b"{", content_length="9"), keep=False),
]


@pytest.mark.parametrize("script", FAULTS)
def test_neither_prompt_nor_key_is_in_any_log_or_outcome(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    """Not even when every logger is turned up to DEBUG, where the SDK would write whole requests."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("groq").setLevel(logging.DEBUG)
    outcome, _ = outcome_of(script)
    for secret in (CANARY, KEY):
        assert secret not in caplog.text
        assert secret not in repr(outcome)
