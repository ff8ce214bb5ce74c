"""The whole way through the SDK and aiohttp: what goes out, what comes back, and what never gets out."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

import pytest

from tests.scripted_groq import (
    ANSWER,
    BODY,
    CANARY,
    KEY,
    MODEL,
    Request,
    Script,
    Server,
    always,
    call,
    calling,
    failure_of,
    hang,
    outcome_of,
    reply,
    serving,
)
from vessel.upstream.groq import GroqUpstream
from vessel.upstream.keys import KeySource
from vessel.upstream.outcome import Charge, Failure, Outcome, Reason, Success, Usage

if TYPE_CHECKING:
    from pathlib import Path


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
        (422, Reason.UNPROCESSABLE),
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
    }
    failure = failure_of(
        always(reply(429, json.dumps({"error": error}).encode(), X_Request_ID="req_5", Retry_After="5"))
    )
    assert (failure.limit_name, failure.limit_value, failure.requested) == ("tpm", 6000, 1443)
    assert failure.retry_after_s == pytest.approx(4.77)
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


def test_a_new_key_is_used_by_the_next_call_over_the_same_connection(tmp_path: Path) -> None:
    """A rotation costs neither a restart nor a handshake."""
    file = tmp_path / "key"
    file.write_text("gsk_one")

    async def run() -> list[str]:
        keys = KeySource(key_file=file)
        async with serving(always(reply(200, ANSWER))) as server, calling(server.url, keys) as upstream:
            assert isinstance(await call(upstream), Success)
            file.write_text("gsk_two")
            assert isinstance(await call(upstream), Success)
            assert server.connections == 1
            return [request.headers["authorization"] for request in server.requests]

    assert asyncio.run(run()) == ["Bearer gsk_one", "Bearer gsk_two"]


def test_without_a_key_nothing_is_sent(tmp_path: Path) -> None:
    """The job learns what is missing and how to set it."""

    async def run() -> tuple[Outcome, object, int]:
        keys = KeySource(key_file=tmp_path / "none")
        async with serving(always(reply(200, ANSWER))) as server, calling(server.url, keys) as upstream:
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

    assert asyncio.run(run()) == "https://api.groq.com"


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
        (hang, 1, Reason.TIMEOUT),
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
    for name in ("groq", "groq._base_client", "httpx", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    outcome, _ = outcome_of(script)
    for secret in (CANARY, KEY):
        assert secret not in caplog.text
        assert secret not in repr(outcome)
