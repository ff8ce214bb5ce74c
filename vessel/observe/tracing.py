"""Traces: one from the submission of a job to its result, across processes, without a word of what was said.

A job's record carries W3C's `traceparent`. Who submits writes it, a worker goes on under it. Without VESSEL_TRACING an
incoming one is carried all the same, for logs and for workers that trace; OpenTelemetry is imported only with it. The
names of attributes are those of OpenTelemetry's GenAI conventions, which are still in development: all are here.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vessel.settings import Settings

OPERATION, PROVIDER = "gen_ai.operation.name", "gen_ai.provider.name"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
REQUEST_MAX_TOKENS, REQUEST_STREAM = "gen_ai.request.max_tokens", "gen_ai.request.stream"
REQUEST_NUMBERS: Mapping[str, str] = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
"""Fields of a request whose values are numbers, by their attribute."""
RESPONSE_ID, FINISH_REASONS = "gen_ai.response.id", "gen_ai.response.finish_reasons"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHED_TOKENS, REASONING_TOKENS = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.reasoning.output_tokens"
SERVER_ADDRESS, SERVER_PORT, ERROR_TYPE = "server.address", "server.port", "error.type"
HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS = "http.request.method", "http.route", "http.response.status_code"
JOB, BATCH, TIER, STATE = "vessel.job.id", "vessel.batch.id", "vessel.tier", "vessel.job.state"
ATTEMPT, PRIORITY, REQUEST, REASON = "vessel.attempt", "vessel.priority", "vessel.request.id", "vessel.reason"

_HEADER = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_CARRIED: ContextVar[str] = ContextVar("traceparent", default="")
_REQUEST: ContextVar[str] = ContextVar("request_id", default="")

CLIENT = "vessel-client"
CLIENT_PATIENCE_S = 2.0


class SpanKind(StrEnum):
    """What a span's side of a call is; the values are the names OpenTelemetry has for them."""

    SERVER = "SERVER"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"
    CLIENT = "CLIENT"


class Span:
    """A span that is being recorded, or none."""

    def __init__(self, recorded: Any = None) -> None:
        """Stand for OpenTelemetry's span; without one nothing is done."""
        self._recorded = recorded

    @property
    def recording(self) -> bool:
        """Tell whether anything is kept of what is set."""
        return self._recorded is not None and bool(self._recorded.is_recording())

    def set(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes; those without a value are left out."""
        if self._recorded is not None:
            self._recorded.set_attributes({name: value for name, value in attributes.items() if value is not None})

    def rename(self, name: str) -> None:
        """Give it the name that is known by now."""
        if self._recorded is not None:
            self._recorded.update_name(name)

    def fail(self, kind: str) -> None:
        """Mark it as failed, by a class or a reason and never by a message."""
        if self._recorded is not None:
            from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415  only where traces are on

            self._recorded.set_attribute(ERROR_TYPE, kind)
            self._recorded.set_status(Status(StatusCode.ERROR))


NOTHING = Span()


class _Tracing:
    """The tracer of this process, once it is on."""

    tracer: Any = None
    tried = False


def begin(settings: Settings, service: str) -> None:
    """Turn traces on for this process where the settings ask for it; the first call decides.

    A provider that the program has set up itself is used; otherwise one of our own sends to where OTEL_EXPORTER_OTLP_*
    says, and nothing global is changed.
    """
    if not settings.tracing or _Tracing.tried:
        return
    _Tracing.tried = True
    try:
        from opentelemetry import trace  # noqa: PLC0415  an extra

        provider = trace.get_tracer_provider()
        if isinstance(provider, trace.ProxyTracerProvider):
            provider = _own_provider(service)
    except ImportError:
        from vessel.observe.logs import get_logger  # noqa: PLC0415  a client that says nothing needs no structlog

        get_logger(__name__).warning(
            "tracing.not_installed", then="pip install 'groq-vessel[otel]'; nothing is traced without it"
        )
        return
    _Tracing.tracer = provider.get_tracer("vessel")


def _own_provider(service: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  an extra
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  the same
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  the same
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  the same

    named = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": service}
    provider = TracerProvider(resource=Resource.create(named))
    # A command must not wait long at its end for a collector that does not answer, nor print what it has no place for.
    quick = service == CLIENT and not any(name.endswith("_TIMEOUT") for name in os.environ if name.startswith("OTEL_"))
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=CLIENT_PATIENCE_S if quick else None)))
    return provider


def read_header(text: str) -> str:
    """Return a `traceparent` header in the form that is carried; an empty text for one that is none."""
    found = _HEADER.match(text.strip().lower())
    return found[0] if found else ""


def current() -> str:
    """Return the `traceparent` under which this code runs; empty where there is none."""
    carried = _CARRIED.get()
    if carried or _Tracing.tracer is None:
        return carried
    from opentelemetry import trace  # noqa: PLC0415  only where traces are on

    return _written(trace.get_current_span().get_span_context())


def trace_id(traceparent: str) -> str:
    """Return the trace's id, as logs show it."""
    return traceparent[3:35]


def current_request() -> str:
    """Return the id of the REST request under which this code runs; empty elsewhere."""
    return _REQUEST.get()


@contextmanager
def serving(request_id: str) -> Iterator[None]:
    """Run a block for a REST request."""
    token = _REQUEST.set(request_id)
    try:
        yield
    finally:
        _REQUEST.reset(token)


@contextmanager
def carrying(traceparent: str) -> Iterator[None]:
    """Run a block under what came from elsewhere."""
    token = _CARRIED.set(traceparent)
    try:
        yield
    finally:
        _CARRIED.reset(token)


@contextmanager
def span(name: str, kind: SpanKind, attributes: Mapping[str, Any], *, parent: str = "") -> Iterator[Span]:
    """Record a block as a span under `parent`, or under the one it runs in. What it raises is told by class alone."""
    tracer = _Tracing.tracer
    if tracer is None:
        with carrying(parent or _CARRIED.get()):
            yield NOTHING
        return
    from opentelemetry import trace  # noqa: PLC0415  only where traces are on

    above = parent or _CARRIED.get()
    context = trace.set_span_in_context(trace.NonRecordingSpan(_read(above))) if above else None
    given = {key: value for key, value in attributes.items() if value is not None}
    with tracer.start_as_current_span(
        name, context, getattr(trace.SpanKind, kind), given, record_exception=False, set_status_on_exception=False
    ) as recorded:
        found = Span(recorded)
        with carrying(_written(recorded.get_span_context())):
            try:
                yield found
            except BaseException as error:
                found.fail(type(error).__name__)
                raise


def _read(traceparent: str) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415  only where traces are on

    _, trace, parent, flags = traceparent.split("-")
    return SpanContext(int(trace, 16), int(parent, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _written(context: Any) -> str:
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
