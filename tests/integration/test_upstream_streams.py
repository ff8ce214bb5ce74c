"""A streamed call against the simulator: pieces as they come, the whole answer at the end, each fault by its name."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.scripted_groq import Request, Script, Server, calling, reply, serving
from tests.simulated import KEY, MODEL, Process
from vessel.simulator import expected_text
from vessel.upstream.gather import Pace
from vessel.upstream.groq import GroqUpstream
from vessel.upstream.keys import KeySource
from vessel.upstream.outcome import Charge, Failure, Outcome, Reason, Success

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENT = Pace(20, 20, 20)
HURRIED = Pace(20, 0.2, 0.2)
MESSAGES = [{"role": "user", "content": "Tell me. <<tokens:60>>"}]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """Run the simulator of this file."""
    with Process(tmp_path_factory.mktemp("simulator")) as process:
        yield process


@pytest.fixture
def simulator(running: Process) -> Process:
    """Give it without faults."""
    return running.fresh()


def streamed(url: str, pace: Pace = PATIENT, **fields: Any) -> tuple[Outcome, list[str]]:
    """Make one streamed call; give its outcome and the texts handed on."""
    texts: list[str] = []

    def take(_head: dict[str, Any], piece: dict[str, Any]) -> None:
        texts.append(piece["delta"].get("content") or "")

    async def run() -> Outcome:
        upstream = GroqUpstream(KeySource(KEY), url)
        body = {"model": MODEL, "messages": MESSAGES} | fields
        try:
            return await upstream.stream(MODEL, body, pace=pace, attempt="job_1/1", take=take)
        finally:
            await upstream.close()

    return asyncio.run(run()), texts


def test_a_stream_gives_pieces_and_the_answer_that_a_plain_call_gives(simulator: Process) -> None:
    """Text, finish_reason, usage and request id are those of a completion; usage was not asked for."""
    outcome, texts = streamed(simulator.url)
    plain = simulator.chat(messages=MESSAGES)
    assert isinstance(outcome, Success)
    answer = json.loads(outcome.body)

    assert len(texts) > 10
    assert "".join(texts) == answer["choices"][0]["message"]["content"] == plain.choices[0].message.content
    assert expected_text(MESSAGES).startswith(texts[0])
    assert (outcome.usage.prompt_tokens, outcome.usage.completion_tokens) == (
        plain.usage.prompt_tokens,
        plain.usage.completion_tokens,
    )
    assert outcome.finish_reason == plain.choices[0].finish_reason
    assert (outcome.request_id or "").startswith("req_")
    assert outcome.headers.limit_requests
    assert set(plain.model_dump()) - {"usage_breakdown", "mcp_list_tools", "service_tier"} <= set(answer)
    assert [call["stream"] for call in simulator.calls()] == [True, False]


INSIDE = {
    "stream_event_error": Reason.TOOL_USE_FAILED,
    "stream_data_error": Reason.TOOL_USE_FAILED,
    "stream_x_groq_error": Reason.OVER_CAPACITY,
    "stream_broken_json": Reason.PROTOCOL_ERROR,
    "stream_no_done": Reason.CONNECTION_LOST,
    "stream_early_fin": Reason.CONNECTION_LOST,
    "stream_reset": Reason.CONNECTION_LOST,
    "stream_silence": Reason.TIMEOUT,
    "stream_comments": Reason.TIMEOUT,
}


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("kind", INSIDE)
def test_every_fault_in_mid_stream_is_named_and_may_be_billed(simulator: Process, kind: str, at: int) -> None:
    """Before and after the first token; comments are no sign of life."""
    simulator.fault(kind=kind, at=at, delay_s=0.01)
    outcome, texts = streamed(simulator.url, HURRIED if INSIDE[kind] is Reason.TIMEOUT else PATIENT)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge, len(texts)) == (INSIDE[kind], Charge.UNKNOWN, at)


BEFORE = {
    "rate_limit": (Reason.RATE_LIMITED, Charge.NONE),
    "over_capacity": (Reason.OVER_CAPACITY, Charge.NONE),
    "model_not_found": (Reason.MODEL_GONE, Charge.NONE),
    "reset_on_arrival": (Reason.CONNECTION_LOST, Charge.UNKNOWN),
    "reset_before_headers": (Reason.CONNECTION_LOST, Charge.UNKNOWN),
    "tool_use_failed": (Reason.TOOL_USE_FAILED, Charge.UNKNOWN),
}


@pytest.mark.parametrize("kind", BEFORE)
def test_what_fails_before_the_stream_is_what_it_is_without_one(simulator: Process, kind: str) -> None:
    """A status is read as ever."""
    simulator.fault(kind=kind)
    outcome, texts = streamed(simulator.url)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge) == BEFORE[kind]
    assert not texts


def test_a_drip_ends_with_the_whole_time(simulator: Process) -> None:
    """Pieces that keep coming do not move the total deadline."""
    simulator.fault(kind="stream_drip", delay_s=0.05)
    outcome, texts = streamed(simulator.url, Pace(0.4, 5, 5))
    assert isinstance(outcome, Failure)
    assert (outcome.reason, bool(texts)) == (Reason.TIMEOUT, True)
    assert "0.4 s" in outcome.message


# --- what no simulator does -------------------------------------------------------------------------------------------


def scripted(script: Script, pace: Pace = PATIENT, **settings: Any) -> tuple[Outcome, Server]:
    """Make one streamed call against a script."""

    async def run() -> tuple[Outcome, Server]:
        async with serving(script) as server, calling(server.url, **settings) as upstream:
            body = {"model": MODEL, "messages": MESSAGES}
            return await upstream.stream(MODEL, body, pace=pace, attempt="a", take=lambda *_: None), server

    return asyncio.run(run())


def chunk(text: str, finish: str | None = None, **more: Any) -> bytes:
    """Write one chunk."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'id': 'c', 'model': MODEL, 'choices': [choice]} | more)}\n\n".encode()


LAST = chunk("", "stop", x_groq={"usage": {"prompt_tokens": 1, "completion_tokens": 1}}) + b"data: [DONE]\n\n"
OPEN = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n"


def answering(*parts: bytes, stay: bool = False) -> Script:
    """Send parts; then close, or stay open until the client leaves."""

    async def script(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if stay:
            await reader.read()
        return False

    return script


def test_a_connection_that_stays_open_after_done_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is whole, whatever the server does with its connection."""
    monkeypatch.setattr("vessel.upstream.gather.CLOSING_S", 0.05)
    outcome, _ = scripted(answering(OPEN, chunk("a"), LAST, stay=True))
    assert isinstance(outcome, Success)


def test_a_packed_stream_is_unpacked_as_it_comes() -> None:
    """A proxy may pack what was asked for unpacked."""
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(chunk("a") + LAST) + packer.flush()
    head = OPEN.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    outcome, server = scripted(answering(head, packed[:20], packed[20:]))
    assert isinstance(outcome, Success)
    assert server.requests[0].headers["accept-encoding"] == "identity"
    assert json.loads(server.requests[0].body)["stream"] is True


def test_a_stream_that_never_ends_is_cut_by_its_size() -> None:
    """Its bytes are bounded as those of any answer."""
    outcome, _ = scripted(answering(OPEN, *[chunk("a" * 1000)] * 20, LAST), max_response_bytes=10_000)
    assert isinstance(outcome, Failure)
    assert (outcome.reason, outcome.charge) == (Reason.RESPONSE_TOO_LARGE, Charge.UNKNOWN)


def test_a_server_that_does_not_stream_is_believed() -> None:
    """A whole completion is an answer too; a page is none."""
    answer = {"model": MODEL, "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
    whole = json.dumps(answer | {"usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
    assert isinstance(scripted(answering(reply(200, whole)))[0], Success)
    page, _ = scripted(answering(reply(200, b"<html>", content_type="text/html")))
    assert isinstance(page, Failure)
    assert page.reason is Reason.PROTOCOL_ERROR
