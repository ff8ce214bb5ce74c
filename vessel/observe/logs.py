"""Structured logs with fixed fields; a redaction processor is the second line behind not logging secrets at all."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import structlog

from vessel.errors import place_of

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_SECRETS = re.compile(
    r"(gsk_|sk-|vsl_|whsec_)[A-Za-z0-9_+/=\-]{4,}|(?i:bearer)\s+\S+|(?<=://)[^/\s:@]*:[^@/\s]+(?=@)",
)
_FORBIDDEN = frozenset({"prompt", "messages", "content", "completion", "answer", "response", "body", "api_key", "key"})
MASK = "[redacted]"


def redact_text(text: str) -> str:
    """Mask keys, bearer tokens and passwords in URLs."""
    return _SECRETS.sub(MASK, text)


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask what must not be logged, by field name and by shape, however deep it lies."""
    for name, value in event.items():
        event[name] = MASK if name in _FORBIDDEN else _redacted(value)
    return event


def _redacted(value: Any) -> Any:
    """Mask a value, part by part; an exception is shown by its class alone."""
    match value:
        case str():
            return redact_text(value)
        case None | int() | float():
            return value
        case Mapping():
            return {str(k): MASK if str(k) in _FORBIDDEN else _redacted(part) for k, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_redacted(part) for part in value]
        case _:
            return type(value).__name__ if isinstance(value, BaseException) else redact_text(str(value))


def error_class(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep an exception's class and place; its text may hold a prompt, an answer or a key."""
    info = event.pop("exc_info", None)
    event.pop("stack_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        if place := place_of(error):
            event["at"] = place
    return event


def _shared() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        error_class,
        redact,
    ]


def configure_logs(log_format: Literal["console", "json"] | None = None, level: str = "INFO") -> None:
    """Send structlog and stdlib records alike to stderr; console on a terminal, else one JSON object a line."""
    chosen = log_format or ("console" if sys.stderr.isatty() else "json")
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
        if chosen == "console"
        else structlog.processors.JSONRenderer()
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[*_shared(), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def get_logger(name: str) -> Any:
    """Return a structured logger; `event` names what happened, e.g. `job.parked`."""
    return structlog.get_logger(name)
