"""Every way a call can end, as data: `Success` or `Failure`, never an exception and never a prompt's text."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a call gave no result; the value is the stable label in attempts, metrics and messages."""

    RATE_LIMITED = "rate_limited"  # 429: the organisation's bucket is empty
    TOO_LARGE = "too_large"  # 413: one request above the limit; waiting never helps
    MODEL_GONE = "model_gone"  # 404 model_not_found, 400 model_decommissioned
    OVER_CAPACITY = "over_capacity"  # 503 over capacity or maintenance, 498 flex capacity
    SERVER_ERROR = "server_error"  # 500, 502, 504 and other 5xx, 408, 409
    BAD_REQUEST = "bad_request"  # 400 and 422 that no repeat can cure
    CONTEXT_LENGTH = "context_length_exceeded"  # 400 with that code: another model may have room
    TOOL_USE_FAILED = "tool_use_failed"  # 400: the model's own tool call was unusable; a repeat may help
    JSON_VALIDATE_FAILED = "json_validate_failed"  # 400: JSON mode output invalid; a repeat may help
    UNAUTHORIZED = "unauthorized"  # 401: the key is bad; every job would fail alike
    FORBIDDEN = "forbidden"  # 403: permission, or a network block
    SPEND_LIMIT = "spend_limit"  # 400 blocked_api_access
    DEPENDENCY_FAILED = "dependency_failed"  # 424
    CONNECT_FAILED = "connect_failed"  # no connection: nothing was sent
    CONNECTION_LOST = "connection_lost"  # cut after the request may have left
    TIMEOUT = "timeout"  # our own total deadline for one call passed
    PROTOCOL_ERROR = "upstream_protocol_error"  # 200 without a usable answer
    RESPONSE_TOO_LARGE = "response_too_large"  # more bytes than we are willing to hold
    CANCELLED = "cancelled"  # cut by us: cancel of the job, or a second TERM
    NO_KEY = "no_api_key"  # no key to call with
    LACKS_TOOLS = "lacks_tools"  # ours: what serves a hop today has not the built-in tools that were asked for
    UNPROCESSABLE = "unprocessable"  # 422: Groq suggests a repeat, as the model may have been wrong
    MAINTENANCE = "maintenance"  # the gate holds calls back: somebody said so
    BREAKER_OPEN = "breaker_open"  # the gate holds calls back: too many went wrong lately
    OVER_BUDGET = "over_budget"  # the gate holds calls back: a spend cap is reached


NEVER = "never"
"""The detail of OVER_BUDGET where a call could not fit its cap even if nothing else were spent."""


class Charge(StrEnum):
    """Whether the organisation pays for the call."""

    NONE = "none"  # refused or failed at the server: not billed (Groq docs/errors)
    KNOWN = "known"  # usage was reported
    UNKNOWN = "unknown"  # may be billed, no usage was seen: booked at the estimate


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call as the upstream reported them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Return prompt plus completion tokens."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class RateHeaders:
    """What the answer's headers say: requests are per DAY, tokens per MINUTE (Groq docs/rate-limits)."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests_s: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens_s: float | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Success:
    """A validated answer. `body` is the response exactly as it came over the wire (JSON bytes).

    `tools` counts the runs of built-in tools by the seed's names; `parts` are the tokens of each model behind a system.
    """

    model: str
    body: bytes = field(repr=False)
    usage: Usage
    request_id: str | None
    finish_reason: str
    headers: RateHeaders = RateHeaders()
    duration_ms: int = 0
    tools: tuple[tuple[str, int], ...] = ()
    parts: tuple[tuple[str, Usage], ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A call without a usable answer.

    `message` is ours and never holds prompt, answer or key. `detail` is a code of the upstream (`rate_limit_exceeded`)
    or an exception's class name. `limit_name` and `limit_value` come from a 429/413 text (tpm, rpm, tpd, rpd, otpm).
    """

    model: str
    reason: Reason
    message: str
    status: int | None = None
    detail: str | None = None
    retry_after_s: float | None = None
    charge: Charge = Charge.NONE
    usage: Usage | None = None
    request_id: str | None = None
    headers: RateHeaders = RateHeaders()
    limit_name: str | None = None
    limit_value: int | None = None
    limit_used: int | None = None
    requested: int | None = None
    duration_ms: int = 0


Outcome = Success | Failure

UNCOUNTED: frozenset[Reason] = frozenset(
    {
        Reason.RATE_LIMITED,
        Reason.MODEL_GONE,
        Reason.OVER_CAPACITY,
        Reason.CONNECT_FAILED,
        Reason.UNAUTHORIZED,
        Reason.NO_KEY,
        Reason.SPEND_LIMIT,
        Reason.FORBIDDEN,
        Reason.MAINTENANCE,
        Reason.BREAKER_OPEN,
        Reason.OVER_BUDGET,
    }
)
"""Reasons that are nobody's fault in this job: the attempt row is kept but does not count against `max_attempts`."""
