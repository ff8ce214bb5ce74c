"""A job's tokens as the SDKs read them: `chat.completion.chunk` documents in server-sent events.

Shapes as Groq's (groq-facts 1.4): a first chunk with the role and `x_groq.id`, deltas, a last one with finish_reason
and usage in `x_groq`, where asked for one more with usage at its top, then [DONE].
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any

from vessel.errors import JobFailed, VesselError
from vessel.watch.tokens import Ended, Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping

    from vessel.jobs.model import Job
    from vessel.watch.tokens import TokenEvent

MEDIA_TYPE = "text/event-stream"
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""What keeps proxies from holding a stream back."""

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n"
"""A comment without the empty line: after an event with an id the SDKs take one for an event without data."""
_TOP = ("id", "created", "model", "system_fingerprint", "service_tier")
_IN_MESSAGE_ONLY = frozenset({"role"})


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Tell whether a request asks for usage at the top of a last chunk (`stream_options.include_usage`)."""
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


class Chunks:
    """The chunks of one answer, made as its tokens come."""

    def __init__(self, *, include_usage: bool = False, begun: bool = False) -> None:
        """Start; `begun`: the client has had the first chunk before and only reads on."""
        self._include_usage, self._begun = include_usage, begun
        self._top: dict[str, Any] = {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": "chat.completion.chunk"}

    def of(self, tokens: Tokens) -> list[dict[str, Any]]:
        """Make the chunks of tokens that came together."""
        if tokens.head is not None:
            self._know(tokens.head)
        found = [self._chunk(piece["delta"], logprobs=piece.get("logprobs")) for piece in tokens.pieces]
        return [*self._first(_mapping((tokens.head or {}).get("x_groq"))), *found]

    def last(self, ended: Ended) -> list[dict[str, Any]]:
        """Make the chunks that end the answer; before them the whole of one that was not streamed."""
        answer = _answer(ended.job)
        self._know(answer)
        choice = _choice(answer)
        own = _mapping(answer.get("x_groq"))
        found = []
        if not ended.streamed:
            found = [*self._first(own), *(self._chunk(delta) for delta in _deltas(_mapping(choice.get("message"))))]
        usage = answer.get("usage")
        x_groq = own | {"usage": usage}
        if "usage_breakdown" in answer:
            x_groq["usage_breakdown"] = answer["usage_breakdown"]
        found.append(self._chunk({}, finish=str(choice.get("finish_reason") or "stop")) | {"x_groq": x_groq})
        if self._include_usage:
            found.append(self._top | {"choices": [], "usage": usage})
        return found

    def _know(self, head: Mapping[str, Any]) -> None:
        self._top |= {name: head[name] for name in _TOP if head.get(name) is not None}

    def _first(self, x_groq: dict[str, Any]) -> list[dict[str, Any]]:
        if self._begun:
            return []
        self._begun = True
        first = self._chunk({"role": "assistant", "content": ""})
        return [first | ({"x_groq": {"id": x_groq["id"]}} if "id" in x_groq else {})]

    def _chunk(self, delta: Mapping[str, Any], *, finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        return self._top | {"choices": [choice]}


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Split a whole message as a stream would have: each field in a delta of its own, tool calls with their index."""
    for name, value in message.items():
        if name in _IN_MESSAGE_ONLY or not value:
            continue
        if name == "tool_calls" and isinstance(value, list):
            value = [{"index": at} | call for at, call in enumerate(value) if isinstance(call, dict)]  # noqa: PLW2901  the same with indices
        yield {name: value}


def _answer(job: Job) -> dict[str, Any]:
    return _mapping(json.loads(job.response or b"{}"))


def _choice(answer: Mapping[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    return _mapping(choices[0]) if isinstance(choices, list) and choices else {}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# --- events


def sse(document: object, *, event_id: str = "", name: str = "") -> bytes:
    """Write one event; a client that was cut off may go on after its id (`Last-Event-ID`)."""
    head = (f"id: {event_id}\n" if event_id else "") + (f"event: {name}\n" if name else "")
    return f"{head}data: {json.dumps(document, separators=(',', ':'))}\n\n".encode()


def error_event(error: VesselError) -> bytes:
    """Write the event that ends a stream without a result; both SDKs raise their APIError for it."""
    code = error.reason if isinstance(error, JobFailed) else error.code
    body = {"message": error.message, "type": "server_error", "code": code, "param": error.param}
    return sse({"error": body}, name="error")


def _events(documents: list[dict[str, Any]], event_id: str) -> bytes:
    """Write documents that share an id, which only the last one bears: whoever has not read it reads them all again."""
    last = len(documents) - 1
    return b"".join(sse(one, event_id=event_id if at == last else "") for at, one in enumerate(documents))


async def stream_response(
    events: AsyncIterator[TokenEvent], *, include_usage: bool = False, begun: bool = False
) -> AsyncGenerator[bytes]:
    """Yield the body of a streamed answer: chunks, comments while nothing comes, [DONE] or an error event.

    `events` are `watch.readers`'; closing this closes them, and with them a reader is gone.
    """
    chunks = Chunks(include_usage=include_usage, begun=begun)
    try:
        async for event in events:
            if event is None:
                yield KEEP_ALIVE
            elif isinstance(event, Tokens):
                yield _events(chunks.of(event), event.id)
            else:
                yield _events(chunks.last(event), "") + DONE
    except VesselError as error:
        yield error_event(error)
    finally:
        if (close := getattr(events, "aclose", None)) is not None:
            await close()


async def after_first(events: AsyncGenerator[TokenEvent], patience_s: float) -> AsyncGenerator[TokenEvent]:
    """Wait for the first event before a response begins, so that a failure until then has a status of its own.

    Raises what the events raise before the first of them (JobFailed, JobNotFound). After `patience_s` the response has
    to begin all the same: clients give up on one without a byte.
    """
    first = asyncio.ensure_future(anext(events))
    try:
        await asyncio.wait({first}, timeout=patience_s)
    except asyncio.CancelledError:
        first.cancel()
        raise
    if first.done() and first.exception() is not None:
        first.result()
    return _resumed(first, events)


async def _resumed(first: asyncio.Future[TokenEvent], events: AsyncGenerator[TokenEvent]) -> AsyncGenerator[TokenEvent]:
    try:
        while not first.done():
            await asyncio.wait({first}, timeout=1.0)
            if not first.done():
                yield None
        yield first.result()
        async for event in events:
            yield event
    finally:
        if not first.done():
            first.cancel()
            await asyncio.wait({first})
        await events.aclose()
