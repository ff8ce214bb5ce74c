"""Calls of the failover endpoint on the wire: what goes out, what comes back, and what never gets out."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from tests.scripted_groq import ANSWER, BODY, CANARY, Script, Server, always, hang, reply, serving
from vessel.upstream.openai import OpenAIUpstream
from vessel.upstream.outcome import Charge, Failure, Outcome, RateHeaders, Reason, Success, Usage

MODEL = "gpt-4o-mini"
KEY = "sk-canary-of-the-key"


def outcome_of(
    script: Script, *, key: str | None = KEY, deadline_s: float = 20, largest: int = 2**20
) -> tuple[Outcome, Server]:
    """Make one call against a script."""

    async def run() -> tuple[Outcome, Server]:
        async with serving(script) as server:
            upstream = OpenAIUpstream(key, f"{server.url}/v1", max_response_bytes=largest)
            try:
                return await upstream.call(MODEL, BODY, deadline_s=deadline_s, attempt="job_1/2"), server
            finally:
                await upstream.close()

    return asyncio.run(run())


def failure_of(script: Script, *, deadline_s: float = 20, largest: int = 2**20) -> Failure:
    """Make one call that has to fail; its text is ours."""
    outcome, _ = outcome_of(script, deadline_s=deadline_s, largest=largest)
    assert isinstance(outcome, Failure)
    assert CANARY not in outcome.message
    assert "Groq" not in outcome.message
    return outcome


def error(status: int, code: str | None = None, **headers: str) -> Script:
    """Answer with an error that quotes the prompt."""
    return always(reply(status, json.dumps({"error": {"message": CANARY, "code": code}}).encode(), **headers))


def test_a_call_goes_out_as_it_was_given_and_guards_against_loops() -> None:
    """Body, path and key arrive, and what a Vessel needs to recognise a call of another one."""
    outcome, server = outcome_of(always(reply(200, ANSWER, x_ratelimit_limit_requests="3", retry_after="0")))
    assert isinstance(outcome, Success)
    assert (outcome.body, outcome.usage, outcome.finish_reason) == (ANSWER, Usage(3, 2), "stop")
    [request] = server.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert json.loads(request.body) == BODY
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert (request.headers["x-vessel-hop"], request.headers["x-vessel-job-id"]) == ("1", "job_1")
    assert request.headers["x-vessel-attempt"] == "job_1/2"


def test_its_rate_figures_are_not_taken_for_groqs() -> None:
    """Its requests are per minute where Groq's are per day, and the limits that hold are our own."""
    outcome, _ = outcome_of(always(reply(200, ANSWER, x_ratelimit_limit_requests="3", x_ratelimit_limit_tokens="9")))
    assert outcome.headers == RateHeaders()
    text = "Rate limit reached on tokens per min (TPM): Limit 6000, Used 5034, Requested 1443."
    body = json.dumps({"error": {"message": text, "code": "rate_limit_exceeded"}}).encode()
    failure = failure_of(always(reply(429, body, retry_after="7")))
    assert (failure.reason, failure.retry_after_s, failure.limit_name) == (Reason.RATE_LIMITED, 7, None)


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (400, None, Reason.BAD_REQUEST),
        (400, "context_length_exceeded", Reason.CONTEXT_LENGTH),
        (401, "invalid_api_key", Reason.UNAUTHORIZED),
        (403, None, Reason.FORBIDDEN),
        (404, None, Reason.MODEL_GONE),
        (404, "model_not_found", Reason.MODEL_GONE),
        (429, "rate_limit_exceeded", Reason.RATE_LIMITED),
        (429, "insufficient_quota", Reason.SPEND_LIMIT),
        (500, None, Reason.SERVER_ERROR),
        (503, None, Reason.OVER_CAPACITY),
    ],
)
def test_a_status_has_its_reason_and_is_not_repeated(status: int, code: str | None, reason: Reason) -> None:
    """The SDK's own retries are off."""
    outcome, server = outcome_of(error(status, code, x_should_retry="true"))
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge, len(server.requests)) == (reason, Charge.NONE, 1)
    assert failure_of(error(status, code)).message


def test_a_redirect_is_not_followed() -> None:
    """It could lead back to a Vessel."""
    outcome, server = outcome_of(always(reply(307, b"", location="/v1/elsewhere")))
    assert isinstance(outcome, Failure)
    assert (outcome.reason, len(server.requests)) == (Reason.PROTOCOL_ERROR, 1)


def test_what_is_no_completion_is_no_result() -> None:
    """A page, silence, and more bytes than we hold."""
    assert failure_of(always(reply(200, b"<html>"))).reason is Reason.PROTOCOL_ERROR
    silent = failure_of(hang, deadline_s=0.5)
    assert (silent.reason, silent.charge) == (Reason.TIMEOUT, Charge.UNKNOWN)
    large = failure_of(always(reply(200, ANSWER)), largest=16)
    assert (large.reason, large.charge) == (Reason.RESPONSE_TOO_LARGE, Charge.UNKNOWN)


def test_nobody_there_costs_nothing() -> None:
    """No connection, no charge."""
    upstream = OpenAIUpstream(KEY, "http://127.0.0.1:1/v1")

    async def run() -> Outcome:
        outcome = await upstream.call(MODEL, BODY, deadline_s=5, attempt="job_1/1")
        await upstream.close()
        return outcome

    outcome = asyncio.run(run())
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge) == (Reason.CONNECT_FAILED, Charge.NONE)


def test_an_endpoint_without_keys_is_asked_all_the_same() -> None:
    """A server of one's own asks for none."""
    outcome, server = outcome_of(always(reply(200, ANSWER)), key=None)
    assert isinstance(outcome, Success)
    assert "sk-" not in server.requests[0].headers["authorization"]


def test_without_the_package_a_call_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is optional."""
    monkeypatch.setitem(sys.modules, "openai", None)
    failure = failure_of(always(reply(200, ANSWER)))
    assert failure.reason is Reason.CONNECT_FAILED
    assert "groq-vessel[failover]" in failure.message
    assert OpenAIUpstream(KEY).load() is False
