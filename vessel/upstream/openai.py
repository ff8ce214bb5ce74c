"""The only importer of openai: calls of the failover endpoint, one call in, one `Outcome` out.

The SDK builds, signs and sends the request, its retries off; it is imported when first needed, as it is an extra. Two
headers let a Vessel recognise such a call, should the endpoint lead to one after all.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from http import HTTPStatus
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter
from typing import TYPE_CHECKING, Any

import httpx

from vessel.errors import InvalidRequest
from vessel.upstream.answer import read_success
from vessel.upstream.broken import Broken, broken_off, lower_headers, reason_of
from vessel.upstream.classify import classify_status
from vessel.upstream.outcome import Failure, RateHeaders, Reason, Success
from vessel.upstream.transport import EXCHANGE, AiohttpClient, Exchange
from vessel.wire import encode_body

if TYPE_CHECKING:
    from types import ModuleType

    import openai

    from vessel.upstream.outcome import Outcome

OPENAI_URL = "https://api.openai.com/v1"
HOP_HEADER, JOB_HEADER = "x-vessel-hop", "x-vessel-job-id"
_NO_KEY = "none"
"""Stands for a key where the endpoint asks for none: the SDK insists on one."""

_QUOTA = "insufficient_quota"
_MESSAGES = {
    Reason.CONNECT_FAILED: "No connection to the failover endpoint; nothing was sent. Check OPENAI_BASE_URL.",
    Reason.CONNECTION_LOST: "The connection to the failover endpoint was cut before the answer was whole.",
    Reason.TIMEOUT: "The failover endpoint did not answer in time; the call was given up. It may have run there.",
    Reason.RESPONSE_TOO_LARGE: "The failover endpoint's answer is too large and was not read.",
    Reason.PROTOCOL_ERROR: "The failover endpoint's answer is no chat completion. Check OPENAI_BASE_URL.",
    Reason.MODEL_GONE: "The failover endpoint does not serve {model}. Check VESSEL_FAILOVER_MODEL.",
    Reason.OVER_CAPACITY: "The failover endpoint has no capacity for {model} now.",
    Reason.SERVER_ERROR: "The failover endpoint failed on its side (HTTP {status}).",
    Reason.BAD_REQUEST: "The failover endpoint refused the request (HTTP {status}{detail}).",
    Reason.UNPROCESSABLE: "The failover endpoint could not work with the request (HTTP {status}{detail}).",
    Reason.CONTEXT_LENGTH: "The prompt is longer than {model} at the failover endpoint can read.",
    Reason.UNAUTHORIZED: "The failover endpoint refused the API key. Put a valid one into OPENAI_API_KEY.",
    Reason.FORBIDDEN: "The failover endpoint refuses this organisation or network (HTTP {status}).",
    Reason.SPEND_LIMIT: "The failover endpoint's credit or spend limit is used up. Raise it there.",
    Reason.RATE_LIMITED: "The failover endpoint's rate limit for {model} is used up. Lower VESSEL_FAILOVER_RPM.",
    Reason.TOO_LARGE: "The request is larger than the failover endpoint accepts for {model}.",
}
NOT_INSTALLED = (
    "The failover endpoint cannot be called, because the package `openai` is not installed; nothing was sent. "
    "Install it with pip install 'groq-vessel[failover]'."
)


class OpenAIUpstream:
    """Call an OpenAI-compatible endpoint; one SDK client per event loop, made on first use and closed by `close()`."""

    def __init__(
        self,
        key: str | None,
        base_url: str | None = None,
        *,
        connect_timeout_s: float = 5.0,
        max_response_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        """Take the settings; nothing is imported or connected yet. `base_url` ends with the endpoint's `/v1`."""
        self._key = key or _NO_KEY
        # Given to the SDK always: left out, it would read OPENAI_BASE_URL behind the settings' back.
        self._base_url = base_url or OPENAI_URL
        self._connect_timeout_s = connect_timeout_s
        self._max_response_bytes = max_response_bytes
        self._clients: dict[asyncio.AbstractEventLoop, openai.AsyncOpenAI] = {}

    def load(self) -> bool:
        """Import the SDK ahead of the first call, as that takes half a second; tells whether it is installed."""
        return find_spec("openai") is not None and import_module("openai") is not None

    async def call(self, model: str, body: dict[str, Any], *, deadline_s: float, attempt: str) -> Outcome:
        """Make one chat completion within `deadline_s`; `attempt` is `job_id/number`.

        Raises only CancelledError, when the task is cancelled.
        """
        started = perf_counter()
        try:
            content = encode_body(body)
        except InvalidRequest as fault:
            return Failure(model, Reason.BAD_REQUEST, fault.message)
        outcome = await self._exchange(model, content, deadline_s, attempt)
        duration_ms = round((perf_counter() - started) * 1000)
        # The figures of its headers are those of another contract, per minute where Groq's are per day; the limits that
        # hold here are our own, so of all of them only the wait counts.
        headers = RateHeaders(retry_after_s=outcome.headers.retry_after_s)
        if isinstance(outcome, Success):
            return replace(outcome, headers=headers, duration_ms=duration_ms)
        return _in_its_name(replace(outcome, headers=headers, duration_ms=duration_ms))

    async def close(self) -> None:
        """Close the connections of the running loop; the next call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _exchange(self, model: str, content: bytes, deadline_s: float, attempt: str) -> Outcome:
        """Post the content; every exception ends here, as its text may hold a prompt."""
        exchange = Exchange()
        EXCHANGE.set(exchange)
        headers = {HOP_HEADER: "1", JOB_HEADER: attempt.partition("/")[0], "x-vessel-attempt": attempt}
        started = perf_counter()
        try:
            import openai  # noqa: PLC0415  an extra, and slow to import

            async with asyncio.timeout(deadline_s):
                answer = await self._client(openai).post(
                    "/chat/completions", cast_to=httpx.Response, content=content, options={"headers": headers}
                )
        except ImportError:
            return Failure(model, Reason.CONNECT_FAILED, NOT_INSTALLED, detail="ImportError")
        except TimeoutError:
            return _broken(model, broken_off(exchange, Reason.TIMEOUT, "TimeoutError"))
        except Exception as error:  # noqa: BLE001  whatever it is, the job needs an outcome and the text must not leave
            refused: Any = getattr(error, "response", None)  # an APIStatusError's
            if refused is None:
                cause = error.__cause__ or error
                return _broken(model, broken_off(exchange, reason_of(cause), type(cause).__name__))
            answer = refused
        duration_ms = round((perf_counter() - started) * 1000)
        if answer.is_success:
            return read_success(model, answer.content, lower_headers(answer), duration_ms, any_model=True)
        return classify_status(model, answer.status_code, lower_headers(answer), answer.content, duration_ms)

    def _client(self, sdk: ModuleType) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            for old in [old for old in self._clients if old.is_closed()]:
                del self._clients[old]
            client = self._clients[loop] = self._new_client(sdk)
        return client

    def _new_client(self, sdk: ModuleType) -> openai.AsyncOpenAI:
        # At DEBUG, which OPENAI_LOG or a root logger may ask for, the SDK writes whole prompts into the log.
        logging.getLogger("openai._base_client").setLevel(logging.INFO)
        made: openai.AsyncOpenAI = sdk.AsyncOpenAI(
            api_key=self._key,
            base_url=self._base_url,
            max_retries=0,
            timeout=None,
            # Without redirects: one could lead back to a Vessel.
            http_client=AiohttpClient(
                self._base_url,
                connect_timeout_s=self._connect_timeout_s,
                keepalive_s=30.0,
                max_connections=200,
                max_bytes=self._max_response_bytes,
            ),
        )
        return made


def _broken(model: str, broken: Broken) -> Failure:
    return Failure(model, broken.reason, "", status=broken.status, detail=broken.detail, charge=broken.charge)


def _in_its_name(failure: Failure) -> Failure:
    """Tell a failure in the endpoint's name, with a reason of its own where its codes differ from Groq's."""
    reason = failure.reason
    if failure.detail == _QUOTA:
        reason = Reason.SPEND_LIMIT
    elif failure.status == HTTPStatus.NOT_FOUND:  # some endpoints say so without OpenAI's code
        reason = Reason.MODEL_GONE
    if failure.detail == "ImportError":
        return failure
    detail = f", {failure.detail}" if failure.detail else ""
    message = _MESSAGES.get(reason, "The call to the failover endpoint did not work (HTTP {status}).")
    told = message.format(model=failure.model, status=failure.status, detail=detail)
    return replace(
        failure, reason=reason, message=told, limit_name=None, limit_value=None, limit_used=None, requested=None
    )
