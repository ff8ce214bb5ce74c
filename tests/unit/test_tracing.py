"""Trace contexts: read as W3C writes them, carried without OpenTelemetry, and nothing is paid while traces are off."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vessel.observe import tracing
from vessel.observe.tracing import SpanKind

GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("header", "read"),
    [
        (GOOD, GOOD),
        (f"  {GOOD.upper()} ", GOOD),
        (f"cc-{GOOD[3:]}-what-comes-later", f"cc-{GOOD[3:]}"),
        (f"ff-{GOOD[3:]}", ""),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", ""),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", ""),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", ""),
        ("canary", ""),
        ("", ""),
    ],
)
def test_a_header_is_read_as_w3c_writes_it(header: str, read: str) -> None:
    """Later versions are read as far as they are known; anything else is no context and is not carried."""
    assert tracing.read_header(header) == read


def test_a_context_is_carried_while_traces_are_off() -> None:
    """What came in goes into the job's record, so that a worker that traces goes on under it; blocks end theirs."""
    assert tracing.current() == ""
    with tracing.span("x", SpanKind.SERVER, {}, parent=GOOD) as span:
        assert tracing.current() == GOOD
        assert tracing.trace_id(tracing.current()) == "0af7651916cd43dd8448eb211c80319c"
        assert not span.recording
        span.set({"a": 1})
        span.rename("y")
        span.fail("z")
        with tracing.carrying(""):
            assert tracing.current() == ""
        assert tracing.current() == GOOD
    assert tracing.current() == ""


def test_nothing_of_opentelemetry_is_imported_while_traces_are_off() -> None:
    """Tracing loads none of it, and neither API nor executor nor client its traces; redis-py loads metrics."""
    code = (
        "import sys; from vessel.observe import tracing; from vessel.settings import load_settings;"
        "tracing.begin(load_settings({}), 'x'); tracing.current();"
        "print(sorted(m for m in sys.modules if m.startswith('opentelemetry')));"
        "import vessel.api.app, vessel.execute, vessel.client; from vessel.submit import Door; Door(load_settings({}));"
        "print(sorted(m for m in sys.modules if m.startswith(('opentelemetry.sdk.trace', 'opentelemetry.exporter'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_a_requests_id_is_known_while_it_is_served() -> None:
    """It goes into the records of the jobs that the request submits."""
    with tracing.serving("req_1"):
        assert tracing.current_request() == "req_1"
    assert tracing.current_request() == ""


IN_MEMORY = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from vessel.observe import tracing
from vessel.settings import load_settings
seen, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(seen))
trace.set_tracer_provider(provider)
tracing.begin(load_settings({"VESSEL_TRACING": "on"}), "x")
try:
    with provider.get_tracer("mine").start_as_current_span("mine") as mine:
        assert tracing.trace_id(tracing.current()) == f"{mine.get_span_context().trace_id:032x}"
        with tracing.span("theirs", tracing.SpanKind.CLIENT, {"a": 1, "b": None}):
            raise ValueError("canary")
except ValueError:
    pass
inner, outer = seen.get_finished_spans()
assert inner.parent.span_id == outer.context.span_id
assert dict(inner.attributes) == {"a": 1, "error.type": "ValueError"}, inner.attributes
assert inner.events == () and "canary" not in inner.to_json()
with tracing.span("remote", tracing.SpanKind.CONSUMER, {}, parent=sys.argv[1]):
    pass
assert f"{seen.get_finished_spans()[-1].context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
with tracing.span("unsampled", tracing.SpanKind.CONSUMER, {}, parent=sys.argv[1][:-1] + "0"):
    pass
assert len(seen.get_finished_spans()) == 3
"""


def test_spans_go_to_the_programs_own_provider_under_its_own_span() -> None:
    """A client inside a program that traces joins its trace; errors are told by class; a sampling choice is kept."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")
    done = subprocess.run([sys.executable, "-c", IN_MEMORY, GOOD], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
