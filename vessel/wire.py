"""The OpenAI-shaped request with Vessel's policy beside it, and the closed sets of the outer surface.

Own pydantic models, because the SDKs' TypedDicts lose data when validated (ecosystem.md 1). They only check: what is
stored and sent is the caller's own body, so unknown fields and number spellings survive.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from vessel.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails


class JobState(StrEnum):
    """Where a job stands; the last four are terminal and never left."""

    QUEUED = "queued"
    RUNNING = "running"
    PARKED = "parked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})


class Priority(StrEnum):
    """The lane a job waits in."""

    INTERACTIVE = "interactive"
    NORMAL = "normal"
    BATCH = "batch"


class TaskType(StrEnum):
    """What the prompt is for; decides the tier unless something more explicit does."""

    CLASSIFICATION = "classification"
    EXTRACTION = "extraction"
    QA = "qa"
    TECHNICAL_QA = "technical_qa"
    CODING = "coding"
    GENERAL = "general"
    STRATEGIC_ANALYSIS = "strategic_analysis"
    DEEP_REASONING = "deep_reasoning"
    RESEARCH = "research"
    REALTIME = "realtime"


class SpeedPriority(StrEnum):
    """How much the caller prefers speed over the task's own tier."""

    BALANCED = "balanced"
    FAST = "fast"
    MAXIMUM = "maximum"


class OnOutage(StrEnum):
    """What a job does when its models cannot be reached."""

    QUEUE = "queue"
    FAILOVER = "failover"
    FAIL = "fail"


BuiltinTool = Literal["web_search", "code_execution", "visit_website", "browser_automation", "wolfram_alpha"]
"""The built-in tools by the seed's names, and Groq's where the seed has none."""

BUILTIN_NAMES: Mapping[str, BuiltinTool] = {
    "web_search": "web_search",
    "browser_search": "web_search",
    "code_execution": "code_execution",
    "code_interpreter": "code_execution",
    "visit_website": "visit_website",
    "browser_automation": "browser_automation",
    "wolfram_alpha": "wolfram_alpha",
}
"""Every name that a caller may give a built-in tool, and which one it means."""


def builtin_tool(name: object) -> object:
    """Return the tool that a name means, and what is no text as it is; raise ValueError for an unknown name."""
    if not isinstance(name, str) or name in BUILTIN_NAMES:
        return BUILTIN_NAMES[name] if isinstance(name, str) else name
    raise ValueError(f"there is no such built-in tool; there are {', '.join(BUILTIN_NAMES)}")


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
LONGEST_S = 366 * 86400
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration_s(text: str | float) -> float:
    """Read `90`, `"90s"`, `"2h"` or `"1h30m"` as seconds. Raise ValueError for anything else, zero and below."""
    if isinstance(text, bool):
        raise ValueError("a duration is a number of seconds or a text like 90s, 15m, 2h")  # noqa: TRY004  pydantic turns only ValueError into a field error
    if isinstance(text, (int, float)):
        total = float(min(text, LONGEST_S + 1))
    else:
        parts = _DURATION.findall(text.strip())
        if not parts or "".join(n + u for n, u in parts) != re.sub(r"\s+", "", text):
            raise ValueError("a duration is a number of seconds or a text like 90s, 15m, 2h")
        total = sum(float(n) * _SECONDS[u or "s"] for n, u in parts)
    if not (math.isfinite(total) and 0 < total <= LONGEST_S):
        raise ValueError("a duration lies above 0 and at most 366 days")
    return total


LONGEST_NAME = 64
"""How much of a field's name is repeated in an error."""

Seconds = Annotated[float, Field(gt=0)]
MOST_COST_USD = Decimal(1_000_000)
"""A higher cap bounds nothing, and one like 1e999999 cannot be counted in nano-USD."""

PICO = -12
"""The exponent of the unit, 10^-12 USD, in which scripts add money up."""


Labels = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]], Field(max_length=16)
]


class Policy(BaseModel):
    """The `vessel` object of a request: how the job is to be served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tier: Annotated[str, Field(max_length=64)] | None = None
    task_type: TaskType | None = None
    speed_priority: SpeedPriority = SpeedPriority.BALANCED
    priority: Priority = Priority.NORMAL
    deadline: Seconds | None = None
    on_outage: OnOutage = OnOutage.QUEUE
    fallback: Literal["chain", "none"] | tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = "chain"
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=20)] = 5
    max_wait: Seconds | None = None
    max_cost_usd: Annotated[Decimal, Field(gt=0, le=MOST_COST_USD)] | None = None
    context: dict[str, Any] = Field(default_factory=dict)
    builtin_tools: tuple[Annotated[BuiltinTool, BeforeValidator(builtin_tool)], ...] = ()
    idempotency_key: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")] | None = None
    webhook: Annotated[str, Field(max_length=2048)] | None = None
    tags: Labels = Field(default_factory=dict)

    @field_validator("deadline", "max_wait", mode="before")
    @classmethod
    def _seconds(cls, value: object) -> object:
        return parse_duration_s(value) if isinstance(value, (str, int, float)) else value

    @field_validator("max_cost_usd", mode="before")
    @classmethod
    def _exact(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value


class Message(BaseModel):
    """One chat message; parts and tool calls are passed on as they are."""

    model_config = ConfigDict(frozen=True, extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    tool_calls: list[dict[str, Any]] | None = None
    content: Annotated[str | list[dict[str, Any]] | None, Field(validate_default=True)] = None

    @field_validator("content")
    @classmethod
    def _present(cls, content: object, info: ValidationInfo) -> object:
        if content is None and not info.data.get("tool_calls"):
            raise ValueError("a message has content or tool_calls")
        return content


Number = Annotated[float, Field(strict=True)]


class ChatRequest(BaseModel):
    """An OpenAI chat-completions body; unknown fields are allowed and passed on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=10_000)]
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    max_completion_tokens: Annotated[int, Field(strict=True, ge=1)] | None = None
    max_tokens: Annotated[int, Field(strict=True, ge=1)] | None = None
    n: Annotated[int, Field(strict=True, ge=1, le=1)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(strict=True)] | None = None
    stream: StrictBool | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    metadata: Labels | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Literal["none", "default", "low", "medium", "high"] | None = None
    user: str | None = None

    @field_validator("tool_choice")
    @classmethod
    def _sent(cls, choice: object, info: ValidationInfo) -> object:
        if isinstance(choice, dict) and choice.get("type") == "function":
            named = (tool.get("function") for tool in [choice, *(info.data.get("tools") or ())])
            wanted, *sent = [one.get("name") if isinstance(one, dict) else None for one in named]
            if wanted is None or wanted not in sent:
                raise ValueError("it names no function of `tools`")
        return choice


@dataclass(frozen=True, slots=True)
class Submission:
    """A checked request: the body's exact bytes without `vessel`, its parsed form, and the policy."""

    body: bytes
    request: ChatRequest
    policy: Policy


def _place(error: ErrorDetails, given: object) -> str:
    """Name where a fault is in what was given; pydantic's names for the branches of a union are left out."""
    known: list[str] = []
    for part in error["loc"]:
        if isinstance(given, Mapping) and (part in given or error["type"] in {"missing", "value_error"}):
            given = given.get(part)
        elif isinstance(given, (list, tuple)) and isinstance(part, int) and part < len(given):
            given = given[part]
        else:
            break
        known.append(str(part)[:LONGEST_NAME])
    return ".".join(known)


def _fault(error: ValidationError, given: object, prefix: str = "") -> InvalidRequest:
    """Tell the first fault; where a value may be of several kinds, why it is none of them."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    place = _place(errors[0], given)
    about = [e for e in errors if f"{_place(e, given)}.".startswith(f"{place}.")] if place else errors[:1]
    told = dict.fromkeys(str(e["msg"]).removeprefix("Value error, ") for e in about[:3])
    param = ".".join(filter(None, [prefix, place]))
    return InvalidRequest(f"{param or 'body'}: {'; or: '.join(told)}.", param=param or None)


def _half_pair(value: object, place: str = "") -> str | None:
    """Find the place of a text with half a surrogate pair in it."""
    if isinstance(value, str):
        return place if any("\ud800" <= char <= "\udfff" for char in value) else None
    inner: Iterable[tuple[object, object]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, (list, tuple)):
        inner = enumerate(value)
    found = (_half_pair(item, f"{place}.{name}".lstrip(".")) for name, item in inner)
    return next((path for path in found if path is not None), None)


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Write a body as UTF-8 JSON; big integers and float spellings of Python survive a round trip.

    Raises InvalidRequest for NaN, infinities, lone surrogates and values JSON has no form for.
    """
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        place = _half_pair(body)
        text = "half a surrogate pair, which is not valid Unicode."
        raise InvalidRequest(f"{place or 'The body'} holds {text}", param=place) from None
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest(
            "The body holds a value that JSON cannot carry (NaN, infinity, too deep, or not a JSON type)."
        ) from None


def check_submission(body: Mapping[str, Any], policy: Mapping[str, Any] | Policy | None = None) -> Submission:
    """Check a chat-completions body and its policy (the `vessel` object, or given apart).

    Raises InvalidRequest naming the first fault and its parameter; values are never echoed.
    """
    if not isinstance(body, Mapping):
        raise InvalidRequest("The body is not a JSON object.")
    plain = {key: value for key, value in body.items() if key != "vessel"}
    given = body.get("vessel") if policy is None else policy
    try:
        request = ChatRequest.model_validate(plain)
    except ValidationError as error:
        raise _fault(error, plain) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    return Submission(encode_body(plain), request, _check_policy({} if given is None else given))


def _check_policy(given: object) -> Policy:
    try:
        policy = given if isinstance(given, Policy) else Policy.model_validate(given)
        encode_body(policy.context)
    except ValidationError as error:
        raise _fault(error, given, "vessel") from None
    except InvalidRequest:
        raise InvalidRequest("vessel.context holds a value that JSON cannot carry.", param="vessel.context") from None
    return policy
