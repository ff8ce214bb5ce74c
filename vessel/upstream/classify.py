"""Turn what Groq answered into an `Outcome`: code first, then status, and the text only as a hint.

Sources: Groq docs/errors and the bodies seen in public issues (groq-facts 1.3, 1.6, 1.8). Messages are our own words:
the upstream's text can hold parts of a prompt or an answer, so of it only known templates pass.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from vessel.upstream.headers import LimitText, parse_limit_text, rate_headers
from vessel.upstream.outcome import Charge, Failure, Reason, Success, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.upstream.outcome import Outcome, RateHeaders

LARGEST_TOKENS = 10**9
_LONGEST_TEXT = 4000

_BY_CODE = {
    "model_not_found": Reason.MODEL_GONE,
    "model_decommissioned": Reason.MODEL_GONE,
    "model_terms_required": Reason.MODEL_GONE,  # 400 until an admin of the organisation accepts the model's terms
    "model_permission_blocked_org": Reason.MODEL_GONE,  # 403, although GET /models lists it
    "model_permission_blocked_project": Reason.MODEL_GONE,
    "organization_restricted": Reason.FORBIDDEN,  # 400 or 403
    "tool_use_failed": Reason.TOOL_USE_FAILED,
    "json_validate_failed": Reason.JSON_VALIDATE_FAILED,
    "context_length_exceeded": Reason.CONTEXT_LENGTH,
    "blocked_api_access": Reason.SPEND_LIMIT,
    "invalid_api_key": Reason.UNAUTHORIZED,
    "capacity_exceeded": Reason.OVER_CAPACITY,
    "rate_limit_exceeded": Reason.RATE_LIMITED,
}
_BY_STATUS = {
    401: Reason.UNAUTHORIZED,
    403: Reason.FORBIDDEN,
    408: Reason.SERVER_ERROR,
    409: Reason.SERVER_ERROR,
    413: Reason.TOO_LARGE,
    424: Reason.DEPENDENCY_FAILED,
    429: Reason.RATE_LIMITED,
    498: Reason.OVER_CAPACITY,
    499: Reason.CANCELLED,
    503: Reason.OVER_CAPACITY,
}
# Texts of answers that came without a code, by the statuses they were seen with.
_BY_TEXT: tuple[tuple[frozenset[int], re.Pattern[str], Reason], ...] = (
    (frozenset({400, 404}), re.compile(r"model `[^`]{1,200}` does not exist or you do not have access"), Reason.MODEL_GONE),
    (frozenset({400, 404}), re.compile(r"model `[^`]{1,200}` has been decommissioned"), Reason.MODEL_GONE),
    (frozenset({400}), re.compile(r"^(?:Failed to call a function|[Tt]ool call validation failed)"), Reason.TOOL_USE_FAILED),
    (frozenset({400}), re.compile(r"^Failed to (?:generate|validate) JSON"), Reason.JSON_VALIDATE_FAILED),
    (frozenset({400}), re.compile(r"^Please reduce the length of the messages"), Reason.CONTEXT_LENGTH),
    (frozenset({500, 502, 504}), re.compile(r"\bis currently over capacity\b"), Reason.OVER_CAPACITY),
)
_TOO_LARGE_TEXT = re.compile(r"^Request too large")

_WORD = r"[A-Za-z][\w.\[\]-]{0,60}"
_SAFE_TEXTS = (
    re.compile(rf"[`']?{_WORD}[`']? ?: (?:minimum|maximum) number of items is \d{{1,9}}"),
    re.compile(rf"[`']?{_WORD}[`']? ?: (?:value|number) must be (?:at most|at least|less than or equal to|one of) [\d.]{{1,20}}"),
    re.compile(rf"`{_WORD}` must be one of (?:`{_WORD}`(?:, or |, | or )?){{1,8}}"),
    re.compile(rf"This model does not support (?:response format|`?{_WORD}`?) ?(?:`{_WORD}`)?"),
    re.compile(rf"`?{_WORD}`? does not support (?:streaming|tools|tool use)"),
    re.compile(
        rf"`{_WORD}` must be less than or equal to `?\d{{1,9}}`?"
        rf"(?:, the maximum value for `{_WORD}` is less than the `{_WORD}` for this model)?"
    ),
)
_TOKEN = re.compile(r"[A-Za-z][\w.\[\]-]{0,63}")
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}")

_UNITS = {
    "tpm": "tokens per minute",
    "tpd": "tokens per day",
    "rpm": "requests per minute",
    "rpd": "requests per day",
    "itpm": "input tokens per minute",
    "otpm": "output tokens per minute",
}
_MESSAGES = {
    Reason.MODEL_GONE: "Groq does not serve {model} to this organisation (any more). Use its successor: `vessel models`.",
    Reason.OVER_CAPACITY: "Groq has no capacity for {model} at the moment. The same call may work later, or on another model.",
    Reason.SERVER_ERROR: "Groq failed on its side (HTTP {status}). The same call may work later.",
    Reason.BAD_REQUEST: "Groq refused the request (HTTP {status}): {hint}. Repeating it will not help; change the request.",
    Reason.CONTEXT_LENGTH: "The prompt is longer than the context window of {model}. Shorten it, or use a model with more room.",
    Reason.TOOL_USE_FAILED: "{model} made a tool call that cannot be used. Asking again may help.",
    Reason.JSON_VALIDATE_FAILED: "{model} did not produce valid JSON. Asking again, or a larger max_completion_tokens, may help.",
    Reason.UNAUTHORIZED: "Groq refused the API key. Put a valid one into GROQ_API_KEY or the file of GROQ_API_KEY_FILE.",
    Reason.FORBIDDEN: "Groq refuses this organisation or this network (HTTP {status}). Check permissions, proxy and firewall.",
    Reason.SPEND_LIMIT: "The organisation's spend limit at Groq is reached. Raise it in Groq's console; it takes 10-15 minutes.",
    Reason.DEPENDENCY_FAILED: "Something that Groq needed for this request failed, such as a remote tool (HTTP 424).",
    Reason.CANCELLED: "Groq reports the call as cancelled by the caller (HTTP 499).",
    Reason.PROTOCOL_ERROR: "Groq's address answered HTTP {status}, which the API never does. Check GROQ_BASE_URL and proxies.",
}


@dataclass(frozen=True, slots=True)
class _Problem:
    """The readable part of an error body; `text` may hold a prompt and never leaves this module."""

    code: str | None = None
    param: str | None = None
    text: str = ""


def classify_status(model: str, status: int, headers: Mapping[str, str], body: bytes, duration_ms: int) -> Failure:
    """Name the failure of an answer whose status is not 2xx; header names in lower case.

    Nothing is booked for it: Groq does not charge for errors (docs/errors), except for a 499, where nobody knows.
    """
    problem = _problem(body)
    rate = rate_headers(headers)
    limits = parse_limit_text(problem.text) if status in {413, 429} or problem.code == "rate_limit_exceeded" else None
    reason = _reason(status, problem, limits)
    failure = Failure(
        model=model,
        reason=reason,
        message=_message(model, status, reason, problem, limits),
        status=status,
        detail=problem.code,
        charge=Charge.UNKNOWN if status == 499 else Charge.NONE,
        request_id=_request_id(None, headers),
        headers=rate,
        retry_after_s=_wait(rate, limits) if reason is not Reason.TOO_LARGE else None,
        duration_ms=duration_ms,
    )
    if limits is None:
        return failure
    return replace(failure, limit_name=limits.limit_name, limit_value=limits.limit, requested=limits.requested)


def read_success(model: str, body: bytes, headers: Mapping[str, str], duration_ms: int) -> Outcome:
    """Check a 2xx answer and take its usage; the body is kept exactly as it came.

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
        finish_reason = _finish_reason(answer, model)
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
            request_id=_request_id(answer, headers),
            headers=rate,
            duration_ms=duration_ms,
        )
    return Success(model, body, usage, _request_id(answer, headers), finish_reason, rate, duration_ms)


class _UnusableError(Exception):
    """Our own words for what is wrong with an answer; they follow `Groq answered 200`."""


def _refuse(what: str) -> NoReturn:
    raise _UnusableError(what)


def _reason(status: int, problem: _Problem, limits: LimitText | None) -> Reason:
    known = _BY_CODE.get(problem.code or "")
    if known is Reason.RATE_LIMITED or (known is None and status in {413, 429}):
        return Reason.TOO_LARGE if status == 413 or _never_fits(problem, limits) else Reason.RATE_LIMITED
    if known is not None and status < 500:
        return known
    for statuses, pattern, reason in _BY_TEXT:
        if status in statuses and pattern.search(problem.text):
            return reason
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return Reason.SERVER_ERROR
    return Reason.BAD_REQUEST if status >= 400 else Reason.PROTOCOL_ERROR


def _never_fits(problem: _Problem, limits: LimitText | None) -> bool:
    if _TOO_LARGE_TEXT.match(problem.text):  # in 2024 this case came as a 429
        return True
    return limits is not None and bool(limits.limit and limits.requested and limits.requested > limits.limit)


def _wait(rate: RateHeaders, limits: LimitText | None) -> float | None:
    text, header = (limits.wait_s if limits else None), rate.retry_after_s
    if text is None or header is None:
        return header if text is None else text
    # The header is the text's wait rounded up to whole seconds; where they disagree by more, the longer one is obeyed.
    return text if text <= header < text + 1 else max(text, header)


def _message(model: str, status: int, reason: Reason, problem: _Problem, limits: LimitText | None) -> str:
    if reason in {Reason.RATE_LIMITED, Reason.TOO_LARGE}:
        return _limit_message(model, reason, limits)
    hint = _safe_text(problem.text) or " ".join(filter(None, (problem.code, problem.param))) or "no reason that may be shown"
    if reason is Reason.BAD_REQUEST and status == 404:
        hint = "there is no such address, check GROQ_BASE_URL"
    return _MESSAGES[reason].format(model=model, status=status, hint=hint)


def _limit_message(model: str, reason: Reason, limits: LimitText | None) -> str:
    value, name, wanted, wait = (limits.limit, limits.limit_name, limits.requested, limits.wait_s) if limits else (None,) * 4
    if reason is Reason.TOO_LARGE and limits is None:
        return f"The request is larger than Groq accepts for {model}. Shorten the prompt or lower max_completion_tokens."
    unit = _UNITS.get(name or "", name or "")
    limit = " ".join(filter(None, ("limit of" if value else "rate limit", str(value) if value else "", unit)))
    if reason is Reason.TOO_LARGE:
        size = f" of {wanted}" if wanted else ""
        return (
            f"One request{size} is above Groq's {limit} for {model}, so it can never be served there. "
            "Shorten the prompt or lower max_completion_tokens."
        )
    room = f"there is room again in {wait:.1f} s" if wait is not None else "there is room again later"
    return f"Groq's {limit} for {model} is used up; {room}."


def _safe_text(text: str) -> str | None:
    stripped = text.strip().rstrip(".")
    if len(stripped) > 300 or "gsk_" in stripped:
        return None
    return stripped if any(pattern.fullmatch(stripped) for pattern in _SAFE_TEXTS) else None


def _problem(body: bytes) -> _Problem:
    if not body.lstrip()[:1] == b"{":
        return _Problem()
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return _Problem()
    error = found.get("error")
    if not isinstance(error, dict):
        return _Problem(text=error[:_LONGEST_TEXT] if isinstance(error, str) else "")
    text = error.get("message")
    return _Problem(
        code=_token(error.get("code")),
        param=_token(error.get("param")),
        text=text[:_LONGEST_TEXT] if isinstance(text, str) else "",
    )


def _token(value: object) -> str | None:
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) and "gsk_" not in value else None


def _error_code(answer: dict[str, Any]) -> str | None:
    error = answer.get("error")
    return _token(error.get("code")) if isinstance(error, dict) else None


def _request_id(answer: dict[str, Any] | None, headers: Mapping[str, str]) -> str | None:
    own = answer.get("x_groq") if answer else None
    for value in (own.get("id") if isinstance(own, dict) else None, headers.get("x-request-id")):
        if isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return None


def _constant(_name: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


_DECODER = json.JSONDecoder(parse_constant=_constant)


def _answer(body: bytes) -> dict[str, Any]:
    if body.lstrip()[:1] == b"<":
        _refuse("with a page of HTML instead of JSON")
    try:
        answer = _DECODER.decode(body.decode())
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
    if isinstance(served, str) and not _same_model(model, served):
        _refuse("in the name of another model than the one asked")
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        _refuse("without choices")
    message, finish_reason = choices[0].get("message"), choices[0].get("finish_reason")
    if not isinstance(message, dict):
        _refuse("without a message")
    if not isinstance(finish_reason, str) or not _TOKEN.fullmatch(finish_reason):
        _refuse("without a finish_reason")
    content = message.get("content")
    if isinstance(content, str):
        return finish_reason
    # A budget that reasoning ate and a tool call leave no content; both are answers the caller has paid for.
    if content is not None or not (finish_reason == "length" or message.get("tool_calls") or message.get("function_call")):
        _refuse("without content")
    return finish_reason


def _same_model(asked: str, served: str) -> bool:
    """Compare ids; a served id may lack the owner or carry a dated version, and a system may name its inner model."""
    if served == asked or asked.endswith("/" + served) or asked.startswith("groq/compound"):
        return True
    return served.startswith(asked + "-") and served[len(asked) + 1 :][:1].isdigit()
