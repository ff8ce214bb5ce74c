"""Name the failure of an HTTP error of Groq: code first, then status, and the text only as a hint.

Sources: Groq docs/errors and the bodies seen in public issues (groq-facts 1.6, 1.8). Messages are our own words:
the upstream's text can hold parts of a prompt or an answer, so of it only known templates pass.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from vessel.upstream.headers import LimitText, parse_limit_text, rate_headers
from vessel.upstream.outcome import Charge, Failure, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.upstream.outcome import RateHeaders

_LONGEST_TEXT = 4000
_LONGEST_HINT = 300
_CANCELLED = 499  # Groq's own; so is 498, flex capacity

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
    422: Reason.UNPROCESSABLE,
    424: Reason.DEPENDENCY_FAILED,
    429: Reason.RATE_LIMITED,
    498: Reason.OVER_CAPACITY,
    _CANCELLED: Reason.CANCELLED,
    503: Reason.OVER_CAPACITY,
}
# Texts of answers that came without a code, by the statuses they were seen with.
_BY_TEXT: tuple[tuple[frozenset[int], re.Pattern[str], Reason], ...] = (
    (
        frozenset({400, 404}),
        re.compile(r"model `[^`]{1,200}` does not exist or you do not have access"),
        Reason.MODEL_GONE,
    ),
    (frozenset({400, 404}), re.compile(r"model `[^`]{1,200}` has been decommissioned"), Reason.MODEL_GONE),
    (
        frozenset({400}),
        re.compile(r"^(?:Failed to call a function|[Tt]ool call validation failed)"),
        Reason.TOOL_USE_FAILED,
    ),
    (frozenset({400}), re.compile(r"^Failed to (?:generate|validate) JSON"), Reason.JSON_VALIDATE_FAILED),
    (frozenset({400}), re.compile(r"^Please reduce the length of the messages"), Reason.CONTEXT_LENGTH),
    (frozenset({500, 502, 504}), re.compile(r"\bis currently over capacity\b"), Reason.OVER_CAPACITY),
)
_TOO_LARGE_TEXT = re.compile(r"^Request too large")

_WORD = r"[A-Za-z][\w.\[\]-]{0,60}"
_SAFE_TEXTS = (
    re.compile(rf"(?a)[`']?{_WORD}[`']? ?: (?:minimum|maximum) number of items is \d{{1,9}}"),
    re.compile(
        rf"(?a)[`']?{_WORD}[`']? ?: (?:value|number) must be (?:at most|at least|less than or equal to) [\d.]{{1,20}}"
    ),
    re.compile(rf"(?a)`{_WORD}` must be one of (?:`{_WORD}`(?:, or |, | or )?){{1,8}}"),
    re.compile(rf"(?a)This model does not support (?:response format|`?{_WORD}`?) ?(?:`{_WORD}`)?"),
    re.compile(rf"(?a)`{_WORD}` (?:is not supported with this model|must be at least \d{{1,9}})"),
    re.compile(
        rf"(?a)(?:'{_WORD}' : )?(?:for 'role:[a-z]{{1,20}}' the following must be satisfied\[\('{_WORD}' : )?"
        rf"property '{_WORD}' is (?:unsupported|missing)(?:\)\])?"
    ),
    re.compile(rf"(?a)`?{_WORD}`? does not support (?:streaming|tools|tool use)"),
    re.compile(
        rf"(?a)`{_WORD}` must be less than or equal to `?\d{{1,9}}`?"
        rf"(?:, the maximum value for `{_WORD}` is less than the `{_WORD}` for this model)?"
    ),
)
_TOKEN = re.compile(r"(?a)[A-Za-z][\w.\[\]-]{0,63}")
_REQUEST_ID = re.compile(r"(?a)[\w.:-]{1,128}")

_UNITS = {
    "tpm": "tokens per minute",
    "tpd": "tokens per day",
    "rpm": "requests per minute",
    "rpd": "requests per day",
    "itpm": "input tokens per minute",
    "otpm": "output tokens per minute",
}
_MESSAGES = {
    Reason.MODEL_GONE: "Groq does not serve {model} to this organisation. `vessel models` names its successor.",
    Reason.OVER_CAPACITY: "Groq has no capacity for {model} now. The call may work later, or on another model.",
    Reason.SERVER_ERROR: "Groq failed on its side (HTTP {status}). The same call may work later.",
    Reason.BAD_REQUEST: "Groq refused the request (HTTP {status}): {hint}. Change it; repeating does not help.",
    Reason.UNPROCESSABLE: "Groq could not work with the request (HTTP 422): {hint}. It suggests to ask again.",
    Reason.CONTEXT_LENGTH: "The prompt is longer than {model} can read. Shorten it, or use a model with more room.",
    Reason.TOOL_USE_FAILED: "{model} made a tool call that cannot be used. Asking again may help.",
    Reason.JSON_VALIDATE_FAILED: "{model} wrote no valid JSON. Asking again or raising max_completion_tokens may help.",
    Reason.UNAUTHORIZED: "Groq refused the API key. Put a valid one into GROQ_API_KEY or GROQ_API_KEY_FILE.",
    Reason.FORBIDDEN: "Groq refuses this organisation or network (HTTP {status}). Check permissions and proxies.",
    Reason.SPEND_LIMIT: "The spend limit at Groq is reached. Raise it in Groq's console; it takes 10-15 minutes.",
    Reason.DEPENDENCY_FAILED: "Something that Groq needed for the request failed, such as a remote tool (HTTP 424).",
    Reason.CANCELLED: "Groq reports the call as cancelled by the caller (HTTP 499).",
    Reason.PROTOCOL_ERROR: "Groq answered HTTP {status}, which its API never does. Check GROQ_BASE_URL and proxies.",
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
        charge=Charge.UNKNOWN if status == _CANCELLED else Charge.NONE,
        request_id=request_id({}, headers),
        headers=rate,
        retry_after_s=_wait(rate, limits) if reason is not Reason.TOO_LARGE else None,
        duration_ms=duration_ms,
    )
    if limits is None:
        return failure
    return replace(failure, limit_name=limits.limit_name, limit_value=limits.limit, limit_used=limits.used,
                   requested=limits.requested)  # fmt: skip


def _reason(status: int, problem: _Problem, limits: LimitText | None) -> Reason:
    known = _BY_CODE.get(problem.code or "")
    if known is Reason.RATE_LIMITED or (known is None and status in {413, 429}):
        return (
            Reason.TOO_LARGE
            if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or _never_fits(problem, limits)
            else Reason.RATE_LIMITED
        )
    if known is not None and status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return known
    for statuses, pattern, reason in _BY_TEXT:
        if status in statuses and pattern.search(problem.text):
            return reason
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Reason.SERVER_ERROR
    return Reason.BAD_REQUEST if status >= HTTPStatus.BAD_REQUEST else Reason.PROTOCOL_ERROR


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
    hint = (
        _safe_text(problem.text)
        or " ".join(filter(None, (problem.code, problem.param)))
        or "its text is not shown, since it may quote the prompt"
    )
    if reason is Reason.BAD_REQUEST and status == HTTPStatus.NOT_FOUND:
        hint = "there is no such address, check GROQ_BASE_URL"
    return _MESSAGES[reason].format(model=model, status=status, hint=hint)


def _limit_message(model: str, reason: Reason, limits: LimitText | None) -> str:
    value, name, wanted, wait = (
        (limits.limit, limits.limit_name, limits.requested, limits.wait_s) if limits else (None,) * 4
    )
    if reason is Reason.TOO_LARGE and limits is None:
        return (
            f"The request is larger than Groq accepts for {model}. Shorten the prompt or lower max_completion_tokens."
        )
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
    if len(stripped) > _LONGEST_HINT or "gsk_" in stripped:
        return None
    return stripped if any(pattern.fullmatch(stripped) for pattern in _SAFE_TEXTS) else None


def _problem(body: bytes) -> _Problem:
    if body.lstrip()[:1] != b"{":
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
        code=token(error.get("code")),
        param=token(error.get("param")),
        text=text[:_LONGEST_TEXT] if isinstance(text, str) else "",
    )


def says_why(code: object) -> bool:
    """Tell whether a code names its failure without a status, as inside a stream."""
    return isinstance(code, str) and code in _BY_CODE


def token(value: object) -> str | None:
    """Return a name that the upstream gave (a code, a parameter) when it is a plain one, which cannot hold a prompt."""
    return value if isinstance(value, str) and _TOKEN.fullmatch(value) and "gsk_" not in value else None


def request_id(answer: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    """Return `x_groq.id` of the answer, else the header; in a chat answer both are the same."""
    own = answer.get("x_groq")
    for value in (own.get("id") if isinstance(own, dict) else None, headers.get("x-request-id")):
        if isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            return value
    return None
