"""The simulator's streams through the groq SDK: whole ones, and every way in which they break."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import groq
import httpx
import pytest

from tests.simulated import GREETING, MODEL, Process
from vessel.simulator import expected_text

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Run one simulator for this file."""
    with Process(tmp_path_factory.mktemp("simulator")) as running:
        yield running


@pytest.fixture
def sim(process: Process) -> Process:
    """Give the simulator as it was at its start."""
    return process.fresh()


def test_the_sdk_reads_a_stream(sim: Process) -> None:
    """The pieces make the text; the last chunk has the usage."""
    chunks = sim.stream()
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected_text(GREETING)
    assert (chunks[-1].choices[0].finish_reason, chunks[-1].usage) == ("stop", None)
    assert (
        chunks[-1].x_groq.usage.total_tokens == sim.last_call()["prompt_tokens"] + sim.last_call()["completion_tokens"]
    )
    assert sim.last_call()["delivered"]


@pytest.mark.parametrize("kind", ["stream_event_error", "stream_data_error"])
def test_an_error_inside_a_stream_is_a_bare_api_error(sim: Process, kind: str) -> None:
    """No status on it, and its body is the inner object."""
    sim.fault(kind=kind)
    with pytest.raises(groq.APIError) as caught:
        sim.stream()
    assert not isinstance(caught.value, groq.APIStatusError)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["code"] == "tool_use_failed"


def test_an_x_groq_error_ends_a_stream_in_silence(sim: Process) -> None:
    """Only who looks sees it."""
    sim.fault(kind="stream_x_groq_error")
    assert [chunk.x_groq.error for chunk in sim.stream() if chunk.x_groq and chunk.x_groq.error] == ["over capacity"]


def test_a_stream_without_done_ends_in_silence(sim: Process) -> None:
    """Only the missing finish_reason tells."""
    sim.fault(kind="stream_no_done")
    assert [chunk.choices[0].finish_reason for chunk in sim.stream()] == [None] * 3


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("stream_reset", httpx.ReadError),
        ("stream_early_fin", httpx.RemoteProtocolError),
        ("stream_broken_json", json.JSONDecodeError),
        ("stream_silence", httpx.ReadTimeout),
    ],
)
def test_a_broken_stream_leaks_raw_errors(sim: Process, kind: str, error: type[Exception]) -> None:
    """After the first chunk nothing is wrapped; the log knows that it was not delivered."""
    sim.fault(kind=kind)
    with pytest.raises(error):
        sim.stream(timeout=0.4)
    call = sim.last_call()
    assert (call["status"], call["completed"], call["delivered"], call["stream"]) == (200, False, False, True)


def test_comments_keep_a_stream_open_for_ever(sim: Process) -> None:
    """A read timeout does not help against comments; an own deadline does."""
    sim.fault(kind="stream_comments", delay_s=0.05)
    with sim.client(timeout=0.3) as sdk:
        chunks = sdk.chat.completions.create(model=MODEL, messages=GREETING, stream=True)
        with closing(chunks.response) as response:
            seen = b""
            for part in response.iter_raw():
                seen += part
                if seen.count(b": keep-alive") == 10:
                    break
    assert not sim.last_call()["delivered"]


def test_a_dripping_stream_arrives_whole(sim: Process) -> None:
    """Slow is not broken."""
    sim.fault(kind="stream_drip", delay_s=0.02)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in sim.stream()) == expected_text(GREETING)
    assert (sim.last_call()["completed"], sim.last_call()["delivered"]) == (True, True)


def test_a_streamed_tool_failure_is_an_event(sim: Process) -> None:
    """The status is 200 by then."""
    sim.fault(kind="tool_use_failed")
    with pytest.raises(groq.APIError, match="Failed to call a function"):
        sim.stream()


def test_a_client_that_leaves_a_stream_is_computed_to_the_end(sim: Process) -> None:
    """The rest of the stream is generated and billed."""
    sim.ask("latency", {"ms": 500})
    with sim.client() as sdk:
        chunks = sdk.chat.completions.create(model=MODEL, messages=GREETING, stream=True)
        next(iter(chunks))
        chunks.close()
    call = sim.last_call()
    assert (call["completed"], call["delivered"]) == (True, False)
