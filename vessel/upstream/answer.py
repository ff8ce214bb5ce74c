"""Check a 2xx answer of Groq: a status says little, so what a caller needs of the body is looked for.

What a 200 may hold instead of a completion: groq-facts 1.3, 1.4 and 1.9.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from vessel.upstream.classify import request_id, token
from vessel.upstream.executed import LARGEST_TOKENS, tool_runs, usage_parts
from vessel.upstream.headers import rate_headers
from vessel.upstream.outcome import Charge, Failure, Reason, Success, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.upstream.outcome import Outcome


def read_success(
    model: str, body: bytes, headers: Mapping[str, str], duration_ms: int, *, any_model: bool = False
) -> Outcome:
    """Check a 2xx answer and take its usage; the body is kept exactly as it came.

    `any_model` lets it come in another model's name.

    An unusable answer whose usage can be read is charged as KNOWN, any other one as UNKNOWN: it was generated.
    """
    rate = rate_headers(headers)
    usage: Usage | None = None
    answer: dict[str, Any] = {}
    detail: str | None = None
    try:
        answer = _answer(body)
        detail = _error_code(answer)
        usage = _usage(answer)
        finish_reason = _finish_reason(answer, "" if any_model else model)
        if usage is None:
            _refuse("without usage")
    except _UnusableError as fault:
        return Failure(
            model=model,
            reason=Reason.PROTOCOL_ERROR,
            message=f"Groq answered 200 {fault}, so there is no result. The same call may work when it is repeated.",
            status=200,
            detail=detail,
            charge=Charge.UNKNOWN if usage is None else Charge.KNOWN,
            usage=usage,
            request_id=request_id(answer, headers),
            headers=rate,
            duration_ms=duration_ms,
        )
    return Success(
        model,
        body,
        usage,
        request_id(answer, headers),
        finish_reason,
        rate,
        duration_ms,
        tools=tool_runs(answer),
        parts=usage_parts(answer),
    )


class _UnusableError(Exception):
    """Our own words for what is wrong with an answer; they follow `Groq answered 200`."""


def _refuse(what: str) -> NoReturn:
    raise _UnusableError(what)


def _error_code(answer: dict[str, Any]) -> str | None:
    error = answer.get("error")
    return token(error.get("code")) if isinstance(error, dict) else None


def _constant(_name: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


DECODER = json.JSONDecoder(parse_constant=_constant)
"""Reads JSON as the standard has it."""


def _answer(body: bytes) -> dict[str, Any]:
    if body.lstrip()[:1] == b"<":
        _refuse("with a page of HTML instead of JSON")
    try:
        answer = DECODER.decode(body.decode())
    except (ValueError, RecursionError):
        _refuse("with something that is not valid JSON")
    if not isinstance(answer, dict):
        _refuse("with JSON that is not an object")
    return answer


def _usage(answer: dict[str, Any]) -> Usage | None:
    """Read `usage`, or `x_groq.usage` where a stream has it; None when there is none, refuse when it is absurd."""
    given = answer.get("usage")
    if given is None:
        own = answer.get("x_groq")
        given = own.get("usage") if isinstance(own, dict) else None
    if given is None or (isinstance(given, dict) and not {"prompt_tokens", "completion_tokens"} & given.keys()):
        return None
    prompt = _tokens(given.get("prompt_tokens")) if isinstance(given, dict) else None
    completion = _tokens(given.get("completion_tokens")) if isinstance(given, dict) else None
    if prompt is None or completion is None:
        _refuse("with a usage that cannot be true")
    # The details are optional and only lower the price; a bad one counts as absent and never exceeds its whole.
    cached = _detail(given, "prompt_tokens_details", "cached_tokens")
    reasoning = _detail(given, "completion_tokens_details", "reasoning_tokens")
    return Usage(prompt, completion, min(cached, prompt), min(reasoning, completion))


def _tokens(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= LARGEST_TOKENS else None


def _detail(usage: dict[str, Any], part: str, name: str) -> int:
    details = usage.get(part)
    return (_tokens(details.get(name)) if isinstance(details, dict) else None) or 0


def _finish_reason(answer: dict[str, Any], model: str) -> str:
    """Check the first choice and return why it ended; refuse an answer that no caller could use."""
    if answer.get("error"):
        _refuse("with an error inside")
    served = answer.get("model")
    if model and isinstance(served, str) and not same_model(model, served):
        _refuse("in the name of another model than the one asked")
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        _refuse("without choices")
    message, finish_reason = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        _refuse("without a message")
    if not isinstance(finish_reason, str) or not token(finish_reason):
        _refuse("without a finish_reason")
    content = message.get("content")
    if isinstance(content, str):
        return finish_reason
    # A budget that reasoning ate and a tool call leave no content; both are answers the caller has paid for.
    if content is not None or not (
        finish_reason == "length" or message.get("tool_calls") or message.get("function_call")
    ):
        _refuse("without content")
    return finish_reason


def same_model(asked: str, served: str) -> bool:
    """Compare ids; a served id may lack the owner or carry a dated version, and a system may name its inner model."""
    if served == asked or asked.endswith("/" + served) or asked.startswith("groq/compound"):
        return True
    return served.startswith(asked + "-") and served[len(asked) + 1 :][:1].isdigit()
