"""A streamed answer: read its events as they come, hand the pieces on, and gather the whole completion.

What a stream looks like, and the seven ways in which one breaks: groq-facts 1.4.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from vessel.upstream.answer import DECODER, read_success, same_model
from vessel.upstream.classify import classify_status, says_why
from vessel.upstream.outcome import Charge, Failure, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.upstream.outcome import Outcome

Take = Callable[[dict[str, Any], dict[str, Any]], None]
"""Is given what is the same in all chunks, and one piece: `delta`, and `logprobs` where there are any."""

CLOSING_S = 1.0
"""How long the connection may stay open after [DONE]."""

_INDEXED = ("tool_calls", "executed_tools")
_OWN = frozenset({"choices", "object", "usage", "x_groq"})
_ERROR_STATUSES = range(400, 600)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a stream may take at most, in seconds: as a whole, to its first token, and between two chunks."""

    total_s: float
    first_token_s: float
    idle_s: float


class StreamBrokenError(Exception):
    """The stream says something that is no part of an answer; the gathering knows what."""


class Gathering:
    """One streamed answer. `feed` takes its bytes, from inside the task that makes the call."""

    def __init__(self, model: str, pace: Pace, take: Take) -> None:
        """Expect nothing yet; `take` is called for every piece that is part of the answer."""
        self.model, self.pace, self._take = model, pace, take
        self.tokens = 0
        """Pieces handed on."""
        self.fed = False
        """Whether a stream came at all: a call may be answered otherwise."""
        self._limit: asyncio.Timeout | None = None
        self._until = 0.0
        self._rest = b""
        self._event, self._data = b"", list[bytes]()
        self._fault: tuple[str, dict[str, Any] | None, int] | None = None
        self._done = False
        self._same: dict[str, Any] = {}
        self._x_groq: dict[str, Any] = {}
        self._usage: Any = None
        self._finish: str | None = None
        self._message = _Message()

    def keep(self, limit: asyncio.Timeout) -> None:
        """Move this timeout on as the stream goes on."""
        now = asyncio.get_running_loop().time()
        self._limit, self._until = limit, now + self.pace.total_s
        limit.reschedule(min(self._until, now + self.pace.first_token_s))

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream. Raises StreamBrokenError, after which nothing more is of use."""
        self.fed = True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.removesuffix(b"\r"))

    @property
    def whole(self) -> bool:
        """Tell whether the answer has come to its end."""
        return self._done and self._finish is not None and self._fault is None

    def outcome(self, headers: Mapping[str, str], duration_ms: int) -> Outcome:
        """Say what came of a stream that has ended by itself, or broke inside; header names in lower case."""
        if self._fault is None and self._finish is not None:
            return read_success(self.model, self._completion(), headers, duration_ms)
        if self._fault is None:
            text = "Groq's stream ended before the answer was whole. The same call may work later."
            failure = Failure(self.model, Reason.CONNECTION_LOST, text, status=200, charge=Charge.UNKNOWN)
            return replace(failure, duration_ms=duration_ms)
        what, error, status = self._fault
        if error is None:
            text = f"Groq's stream went on {what}, so there is no result. The same call may work when it is repeated."
            failure = Failure(self.model, Reason.PROTOCOL_ERROR, text, status=200, duration_ms=duration_ms)
        else:
            body = json.dumps({"error": error}).encode()
            failure = classify_status(self.model, status, headers, body, duration_ms)
        return replace(failure, charge=Charge.UNKNOWN)  # it was generated, up to there

    def broken(self, failure: Failure) -> Failure:
        """Say more of a call that broke: how long nothing came, and that what was handed on may be billed."""
        if failure.reason is Reason.TIMEOUT:
            failure = replace(failure, message=self._silence())
        return replace(failure, charge=Charge.UNKNOWN) if self.tokens else failure

    def _silence(self) -> str:
        loop, pace = asyncio.get_running_loop(), self.pace
        if loop.time() >= self._until:
            return f"Groq's answer was not whole within {pace.total_s:g} s; the call was given up. It may be billed."
        waited = pace.idle_s if self.tokens else pace.first_token_s
        what = "went silent" if self.tokens else "gave no token"
        return f"Groq's stream {what} for {waited:g} s, so the call was given up. It may be billed."

    # --- events

    def _line(self, line: bytes) -> None:
        if not line:
            event, data = self._event, b"\n".join(self._data)
            self._event, self._data = b"", []
            if data and not self._done:
                self._event_of(event, data)
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"event:"):
            self._event = line[6:].strip()

    def _event_of(self, event: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self._done = True
            self._move(CLOSING_S)
            return
        try:
            chunk = DECODER.decode(data.decode())
        except (ValueError, RecursionError):
            self._break("with something that is not valid JSON")
        if not isinstance(chunk, dict):
            self._break("with JSON that is not an object")
        if event == b"error" or chunk.get("error"):
            self._error(chunk.get("error"))
        self._chunk(chunk)

    def _chunk(self, chunk: dict[str, Any]) -> None:
        served, own = chunk.get("model"), chunk.get("x_groq")
        if isinstance(served, str) and not same_model(self.model, served):
            self._break("in the name of another model than the one asked")
        if isinstance(own, dict):
            if own.get("error"):
                self._error({"message": str(own["error"])})
            self._x_groq |= own
        self._usage = chunk.get("usage") or (own.get("usage") if isinstance(own, dict) else None) or self._usage
        self._same |= {name: value for name, value in chunk.items() if name not in _OWN}
        choices = chunk.get("choices")
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            self._break("without choices")
        for choice in choices[:1]:
            self._choice(choice)
        self._move(self.pace.idle_s if self.tokens else None)

    def _choice(self, choice: dict[str, Any]) -> None:
        delta, finish = choice.get("delta"), choice.get("finish_reason")
        if not isinstance(delta, dict):
            self._break("without a delta")
        if isinstance(finish, str):
            self._finish = finish
        logprobs = choice.get("logprobs")
        self._message.add(delta, logprobs)
        # The role alone, or a first empty text, is no token yet: until one comes the job may still go elsewhere.
        if any(value for name, value in delta.items() if name != "role"):
            self.tokens += 1
            head = self._same | ({"x_groq": {"id": self._x_groq["id"]}} if "id" in self._x_groq else {})
            self._take(head, {"delta": delta} | ({"logprobs": logprobs} if logprobs else {}))

    def _move(self, gap_s: float | None) -> None:
        if self._limit is not None and gap_s is not None and not self._limit.expired():
            self._limit.reschedule(min(self._until, asyncio.get_running_loop().time() + gap_s))

    # --- faults

    def _break(self, what: str) -> NoReturn:
        self._fault = (what, None, 200)
        raise StreamBrokenError

    def _error(self, error: object) -> NoReturn:
        told = error if isinstance(error, dict) else {"message": str(error)}
        given, text = told.get("status_code"), told.get("message")
        status = 400 if says_why(told.get("code")) else 500
        if isinstance(text, str) and "over capacity" in text:
            status = 503
        if isinstance(given, int) and given in _ERROR_STATUSES:
            status = given
        self._fault = ("with an error", told, status)
        raise StreamBrokenError

    # --- the whole answer

    def _completion(self) -> bytes:
        """Write the answer as a call without a stream would have given it."""
        own = {name: value for name, value in self._x_groq.items() if name not in {"usage", "usage_breakdown"}}
        choice = {
            "index": 0,
            "message": self._message.whole(),
            "logprobs": self._message.logprobs(),
            "finish_reason": self._finish,
        }
        answer = self._same | {"object": "chat.completion", "choices": [choice], "usage": self._usage}
        if "usage_breakdown" in self._x_groq:
            answer["usage_breakdown"] = self._x_groq["usage_breakdown"]
        return json.dumps(answer | ({"x_groq": own} if own else {}), separators=(",", ":")).encode()


class _Message:
    """The deltas of one message, put together."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._others: dict[str, Any] = {}
        self._indexed: dict[str, dict[int, dict[str, Any]]] = {}
        self._logprobs: list[Any] = []

    def add(self, delta: Mapping[str, Any], logprobs: object) -> None:
        for name, value in delta.items():
            if name in _INDEXED and isinstance(value, list):
                for part in value:
                    self._add_part(name, part)
            elif name != "role" and isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
            elif isinstance(value, list) and isinstance(self._others.get(name), list):
                self._others[name] += value
            elif value is not None:
                self._others[name] = list(value) if isinstance(value, list) else value
        if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
            self._logprobs += logprobs["content"]

    def _add_part(self, name: str, part: object) -> None:
        """Put a tool call's part to those before it; its arguments come in pieces, its other fields as a whole."""
        if not isinstance(part, dict):
            return
        parts = self._indexed.setdefault(name, {})
        index = part.get("index")
        known = parts.setdefault(index if isinstance(index, int) else len(parts), {})
        for field, value in part.items():
            if field == "function" and isinstance(value, dict):
                function = known.setdefault("function", {"arguments": []})
                function["arguments"].append(str(value.get("arguments") or ""))
                function |= {key: some for key, some in value.items() if key != "arguments" and some is not None}
            elif value is not None:
                known[field] = value

    def whole(self) -> dict[str, Any]:
        texts = {name: "".join(parts) for name, parts in self._texts.items()}
        message = {"role": "assistant", "content": None} | self._others | texts
        for name, parts in self._indexed.items():
            message[name] = [_joined(part) for _, part in sorted(parts.items())]
        if message.get("tool_calls"):
            message["tool_calls"] = [{k: v for k, v in call.items() if k != "index"} for call in message["tool_calls"]]
            message["content"] = message["content"] or None
        return message

    def logprobs(self) -> dict[str, Any] | None:
        return {"content": self._logprobs} if self._logprobs else None


def _joined(part: dict[str, Any]) -> dict[str, Any]:
    function = part.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("arguments"), list):
        return part
    return part | {"function": function | {"arguments": "".join(function["arguments"])}}
