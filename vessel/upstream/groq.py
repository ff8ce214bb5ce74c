"""The only importer of groq: one call in, one `Outcome` out, and no exception but a cancellation.

The SDK builds the request, signs it and maps the statuses; its retries are off, because a hidden retry runs past the
limiter. The body goes through it as bytes: its own models drop unknown fields and turn iterables into nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any

import groq
import httpx

from vessel.errors import InvalidRequest, NoKey
from vessel.upstream.answer import read_success
from vessel.upstream.broken import Broken, broken_off, lower_headers, reason_of
from vessel.upstream.classify import classify_status
from vessel.upstream.gather import Gathering, StreamBrokenError
from vessel.upstream.outcome import Failure, Reason
from vessel.upstream.transport import (
    EVENTS,
    EXCHANGE,
    AiohttpClient,
    Exchange,
)
from vessel.wire import encode_body

if TYPE_CHECKING:
    from vessel.upstream.gather import Pace, Take
    from vessel.upstream.keys import KeySource
    from vessel.upstream.outcome import Outcome

GROQ_URL = "https://api.groq.com"
_CHAT = "/openai/v1/chat/completions"
_MODELS = "/openai/v1/models"
UNAUTHORIZED = 401

_MESSAGES = {
    Reason.CONNECT_FAILED: "No connection to Groq; nothing was sent. Check the network, proxies and GROQ_BASE_URL.",
    Reason.CONNECTION_LOST: "The connection to Groq was cut before the answer was whole. The same call may work later.",
    Reason.TIMEOUT: "Groq did not answer within {deadline_s:g} s; the call was given up. It may have run at Groq.",
    Reason.RESPONSE_TOO_LARGE: "Groq's answer is over {max_mib} MiB and was not read. Lower max_completion_tokens.",
    Reason.PROTOCOL_ERROR: "Groq's answer is not valid HTTP or cannot be unpacked. Check GROQ_BASE_URL and proxies.",
}


class GroqUpstream:
    """Call Groq from any number of tasks; one SDK client per event loop, made on first use.

    `close()` has to be awaited in every loop that called. The key is asked for at each call, so a rotated key is used
    by the next one, over the same connections.
    """

    def __init__(
        self,
        keys: KeySource,
        base_url: str | None = None,
        *,
        connect_timeout_s: float = 5.0,
        max_response_bytes: int = 32 * 1024 * 1024,
        max_connections: int = 1000,
        keepalive_s: float = 30.0,
    ) -> None:
        """Take the settings; nothing is connected yet. `base_url` ends before `/openai/v1`."""
        self._keys = keys
        # Given to the SDK always: left out, it would read GROQ_BASE_URL behind the settings' back.
        self._base_url = base_url or GROQ_URL
        self._connect_timeout_s = connect_timeout_s
        self._max_response_bytes = max_response_bytes
        self._max_connections = max_connections
        self._keepalive_s = keepalive_s
        self._clients: dict[asyncio.AbstractEventLoop, groq.AsyncGroq] = {}

    async def call(self, model: str, body: dict[str, Any], *, deadline_s: float, attempt: str) -> Outcome:
        """Make one chat completion within `deadline_s`, the whole time from now to the last byte.

        `attempt` goes along as the header `x-vessel-attempt`. Raises only CancelledError, when the task is cancelled.
        """
        started = perf_counter()
        key = self._keys.current()
        if key is None:
            return Failure(model, Reason.NO_KEY, NoKey().message)
        try:
            content = encode_body(body)
        except InvalidRequest as fault:
            return Failure(model, Reason.BAD_REQUEST, fault.message)
        answer = await self._with_a_key(key, content, deadline_s, {"x-vessel-attempt": attempt})
        duration_ms = round((perf_counter() - started) * 1000)
        if isinstance(answer, Broken):
            return self._broken(model, answer, deadline_s, duration_ms)
        headers = lower_headers(answer)
        if answer.is_success:
            return read_success(model, answer.content, headers, duration_ms)
        return classify_status(model, answer.status_code, headers, answer.content, duration_ms)

    async def stream(self, model: str, body: dict[str, Any], *, pace: Pace, attempt: str, take: Take) -> Outcome:
        """Make one chat completion whose pieces are given to `take` as they come; a success holds the whole answer.

        `take` is called from the task of this call and must not wait. A failure after the first piece may be billed.
        Usage comes in the last chunk's `x_groq` without being asked for. Raises only CancelledError.
        """
        started = perf_counter()
        key = self._keys.current()
        if key is None:
            return Failure(model, Reason.NO_KEY, NoKey().message)
        try:
            content = encode_body(body | {"stream": True})
        except InvalidRequest as fault:
            return Failure(model, Reason.BAD_REQUEST, fault.message)
        gathering = Gathering(model, pace, take)
        # Unpacked at the server: what a compressor holds back would come late.
        headers = {"x-vessel-attempt": attempt, "accept": EVENTS, "accept-encoding": "identity"}
        answer = await self._with_a_key(key, content, pace.total_s, headers, gathering)
        return self._gathered(gathering, answer, round((perf_counter() - started) * 1000))

    def _gathered(self, gathering: Gathering, answer: httpx.Response | Broken, duration_ms: int) -> Outcome:
        model, pace = gathering.model, gathering.pace
        if isinstance(answer, Broken):
            if gathering.whole or answer.detail == StreamBrokenError.__name__:
                return gathering.outcome({}, duration_ms)
            return gathering.broken(self._broken(model, answer, pace.total_s, duration_ms))
        headers = lower_headers(answer)
        if not answer.is_success:
            return classify_status(model, answer.status_code, headers, answer.content, duration_ms)
        if not gathering.fed:
            return read_success(model, answer.content, headers, duration_ms)
        return gathering.outcome(headers, duration_ms)

    async def list_models(self, *, deadline_s: float = 10.0) -> tuple[dict[str, Any], ...] | Failure:
        """Return what `GET /models` lists for the key, as Groq spells it; a Failure has an empty `model`."""
        key = self._keys.current()
        if key is None:
            return Failure("", Reason.NO_KEY, NoKey().message)
        answer = await self._with_a_key(key, None, deadline_s, {})
        if isinstance(answer, Broken):
            return self._broken("", answer, deadline_s, 0)
        if not answer.is_success:
            return classify_status("", answer.status_code, lower_headers(answer), answer.content, 0)
        try:
            listed = json.loads(answer.content)["data"]
            return tuple(entry for entry in listed if isinstance(entry["id"], str))
        except (ValueError, LookupError, TypeError, RecursionError) as fault:
            message = (
                "Groq's list of models is not in the form that its API describes. Check GROQ_BASE_URL and proxies."
            )
            return Failure("", Reason.PROTOCOL_ERROR, message, status=200, detail=type(fault).__name__)

    async def close(self) -> None:
        """Close the connections of the running loop; the next call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    async def _with_a_key(
        self,
        key: str,
        content: bytes | None,
        deadline_s: float,
        headers: dict[str, str],
        gathering: Gathering | None = None,
    ) -> httpx.Response | Broken:
        """Make one exchange, and where the key is refused, which costs nothing, once more with each other key."""
        started = perf_counter()
        while True:
            left = max(0.0, deadline_s - (perf_counter() - started))
            answer = await self._exchange(key, content, left, headers, gathering)
            if isinstance(answer, Broken) or answer.status_code != UNAUTHORIZED:
                return answer
            other = self._keys.refuse(key)
            if other is None:
                return answer
            key = other

    async def _exchange(
        self,
        key: str,
        content: bytes | None,
        deadline_s: float,
        headers: dict[str, str],
        gathering: Gathering | None = None,
    ) -> httpx.Response | Broken:
        """Post the content, or get the models without one; every exception ends here, as its text may hold a prompt."""
        exchange = Exchange(touched=content is None)  # a request without a body leaves no trace of its way out
        EXCHANGE.set(exchange)
        try:
            async with asyncio.timeout(deadline_s) as limit:
                if gathering is not None:
                    exchange.feed = gathering.feed
                    gathering.keep(limit)
                client = self._client(key)
                if content is None:
                    return await client.get(_MODELS, cast_to=httpx.Response)
                return await client.post(_CHAT, cast_to=httpx.Response, content=content, options={"headers": headers})
        except groq.APIStatusError as error:
            return error.response
        except TimeoutError:
            return broken_off(exchange, Reason.TIMEOUT, "TimeoutError")
        except groq.APIConnectionError as error:
            cause = error.__cause__ or error
            return broken_off(exchange, reason_of(cause), type(cause).__name__)
        except Exception as error:  # noqa: BLE001  whatever it is, the job needs an outcome and the text must not leave
            return broken_off(exchange, Reason.CONNECTION_LOST, type(error).__name__)

    def _client(self, key: str) -> groq.AsyncGroq:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            for old in [old for old in self._clients if old.is_closed()]:
                del self._clients[old]
            client = self._clients[loop] = self._new_client(key)
        if client.api_key != key:
            # Read at each request, and no connection depends on it: calls in flight end with the old key.
            client.api_key = key
        return client

    def _new_client(self, key: str) -> groq.AsyncGroq:
        # At DEBUG, which GROQ_LOG or a root logger may ask for, the SDK writes whole prompts into the log.
        logging.getLogger("groq._base_client").setLevel(logging.INFO)
        return groq.AsyncGroq(
            api_key=key,
            base_url=self._base_url,
            max_retries=0,
            timeout=None,
            http_client=AiohttpClient(
                self._base_url,
                connect_timeout_s=self._connect_timeout_s,
                keepalive_s=self._keepalive_s,
                max_connections=self._max_connections,
                max_bytes=self._max_response_bytes,
            ),
        )

    def _broken(self, model: str, broken: Broken, deadline_s: float, duration_ms: int) -> Failure:
        message = _MESSAGES[broken.reason].format(deadline_s=deadline_s, max_mib=self._max_response_bytes // 2**20)
        return Failure(
            model,
            broken.reason,
            message,
            status=broken.status,
            detail=broken.detail,
            charge=broken.charge,
            duration_ms=duration_ms,
        )
