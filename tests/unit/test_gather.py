"""A stream of chunks becomes the completion that a call without a stream would have given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vessel.upstream.gather import Gathering, Pace, StreamBrokenError
from vessel.upstream.outcome import Charge, Failure, Reason, Success

MODEL = "openai/gpt-oss-20b"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
PACE = Pace(10, 5, 2)


def event(*, name: str = "", **chunk: Any) -> bytes:
    """Write one event of a stream."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(chunk)}\n\n".encode()


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """Write one chunk."""
    choice = {"index": 0, "delta": delta, "logprobs": more.pop("logprobs", None), "finish_reason": finish}
    same: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": MODEL}
    return event(**same | {"choices": [choice]} | more)


FIRST = chunk({"role": "assistant", "content": ""}, x_groq={"id": "req_1"})
LAST = chunk({}, "stop", x_groq={"id": "req_1", "usage": USAGE, "seed": 5})
DONE = b"data: [DONE]\n\n"


class Read:
    """What came of a stream."""

    def __init__(self, *parts: bytes, size: int = 0) -> None:
        """Feed parts, or the whole in slices of `size` bytes."""
        self.taken: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.gathering = Gathering(MODEL, PACE, lambda head, piece: self.taken.append((head, piece)))
        whole = b"".join(parts)
        slices = [whole[at : at + size] for at in range(0, len(whole), size)] if size else parts
        self.broke = False
        for part in slices:
            try:
                self.gathering.feed(part)
            except StreamBrokenError:
                self.broke = True
                break
        self.outcome = self.gathering.outcome({}, 1)

    @property
    def success(self) -> dict[str, Any]:
        """Read the gathered answer."""
        assert isinstance(self.outcome, Success), self.outcome
        found: dict[str, Any] = json.loads(self.outcome.body)
        return found

    @property
    def failure(self) -> Failure:
        """Give the failure."""
        assert isinstance(self.outcome, Failure)
        return self.outcome

    @property
    def deltas(self) -> list[dict[str, Any]]:
        """List what was handed on."""
        return [piece["delta"] for _, piece in self.taken]


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_text_is_gathered_however_the_bytes_come(size: int, line_end: bytes) -> None:
    """Events may be cut anywhere, also within a character, and lines may end in both ways."""
    parts = [
        FIRST,
        chunk({"reasoning": "hm"}),
        chunk({"content": "Hé"}),
        b": keep-alive\n\n",
        chunk({"content": "llo"}),
    ]
    read = Read(*(part.replace(b"\n", line_end) for part in (*parts, LAST, DONE)), size=size)

    assert read.deltas == [{"reasoning": "hm"}, {"content": "Hé"}, {"content": "llo"}]
    (choice,) = read.success["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Héllo", "reasoning": "hm"}
    assert (choice["finish_reason"], read.success["usage"]) == ("stop", USAGE)
    assert read.success["x_groq"] == {"id": "req_1", "seed": 5}
    assert (read.success["object"], read.success["id"]) == ("chat.completion", "chatcmpl-1")
    assert read.gathering.whole


def test_the_role_alone_is_no_token() -> None:
    """Until a token came nobody has seen anything, so the job may still go elsewhere."""
    assert Read(FIRST).gathering.tokens == 0
    assert Read(FIRST, chunk({"content": "a"})).gathering.tokens == 1


def test_what_is_the_same_in_all_chunks_goes_along() -> None:
    """Readers render chunks in the upstream's own name."""
    ((head, _),) = Read(FIRST, chunk({"content": "a"})).taken
    assert head == {"id": "chatcmpl-1", "created": 7, "model": MODEL, "x_groq": {"id": "req_1"}}


def test_tool_calls_come_in_pieces() -> None:
    """Name and id once, arguments bit by bit, several calls side by side."""

    def part(index: int, **fields: Any) -> bytes:
        return chunk({"tool_calls": [{"index": index} | fields]})

    read = Read(
        FIRST,
        part(0, id="a", type="function", function={"name": "f", "arguments": ""}),
        part(0, function={"arguments": '{"x"'}),
        part(1, id="b", type="function", function={"name": "g", "arguments": "{}"}),
        part(0, function={"arguments": ":1}"}),
        LAST.replace(b'"stop"', b'"tool_calls"'),
    )
    message = read.success["choices"][0]["message"]
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert message["content"] is None
    assert read.gathering.tokens == 4


def test_executed_tools_are_completed_and_logprobs_are_kept() -> None:
    """A built-in tool is told when it begins and again with its output."""
    read = Read(
        FIRST,
        chunk({"executed_tools": [{"index": 0, "type": "search", "arguments": "{}"}]}),
        chunk({"executed_tools": [{"index": 0, "output": "found"}]}),
        chunk({"content": "a"}, logprobs={"content": [{"token": "a"}]}),
        LAST,
    )
    (choice,) = read.success["choices"]
    assert choice["message"]["executed_tools"] == [{"index": 0, "type": "search", "arguments": "{}", "output": "found"}]
    assert choice["logprobs"] == {"content": [{"token": "a"}]}
    assert read.taken[-1][1]["logprobs"] == {"content": [{"token": "a"}]}


def test_usage_at_the_top_counts_too() -> None:
    """As with `stream_options`, in a chunk without choices."""
    top = event(id="chatcmpl-1", model=MODEL, choices=[], usage=USAGE)
    assert Read(FIRST, chunk({"content": "a"}), chunk({}, "stop"), top, DONE).success["usage"] == USAGE


def test_a_missing_done_is_forgiven_but_not_a_missing_finish() -> None:
    """Only a finish_reason says that the answer is whole (groq-facts 1.4)."""
    text = chunk({"content": "a"})
    assert Read(FIRST, text, LAST).success["choices"][0]["message"]["content"] == "a"
    for cut in (Read(FIRST, text), Read(FIRST, text, DONE)):
        assert (cut.failure.reason, cut.failure.charge) == (Reason.CONNECTION_LOST, Charge.UNKNOWN)
        assert not cut.gathering.whole


def test_an_answer_without_usage_is_no_result() -> None:
    """Nobody could say what it cost."""
    assert Read(FIRST, chunk({"content": "a"}), chunk({}, "stop"), DONE).failure.reason is Reason.PROTOCOL_ERROR


CAPACITY = {"id": "req_1", "error": "over capacity"}
FAULTS = [
    (
        event(name="error", error={"message": "x", "code": "tool_use_failed", "status_code": 400}),
        Reason.TOOL_USE_FAILED,
    ),
    (event(error={"message": "canary", "code": "json_validate_failed"}), Reason.JSON_VALIDATE_FAILED),
    (event(error={"message": "canary", "status_code": 503}), Reason.OVER_CAPACITY),
    (event(error="canary"), Reason.SERVER_ERROR),
    (event(name="error"), Reason.SERVER_ERROR),
    (chunk({}, x_groq=CAPACITY), Reason.OVER_CAPACITY),
    (chunk({}, x_groq={"error": "canary"}), Reason.SERVER_ERROR),
    (b'data: {"id": "chatcmpl-\n\n', Reason.PROTOCOL_ERROR),
    (b"data: [1]\n\n", Reason.PROTOCOL_ERROR),
    (b"data: NaN\n\n", Reason.PROTOCOL_ERROR),
    (b"data: \xff\n\n", Reason.PROTOCOL_ERROR),
    (b"data: " + b"[" * 100_000 + b"\n\n", Reason.PROTOCOL_ERROR),
    (event(choices=[{"delta": "text"}]), Reason.PROTOCOL_ERROR),
    (event(choices=["text"]), Reason.PROTOCOL_ERROR),
    (event(choices=None), Reason.PROTOCOL_ERROR),
    (event(model="llama-9", choices=[]), Reason.PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=range(len(FAULTS)))
def test_every_fault_inside_a_stream_is_named(fault: bytes, reason: Reason) -> None:
    """The first one ends the reading; it may be billed, and no text of the upstream is repeated."""
    read = Read(FIRST, chunk({"content": "a"}), fault, LAST, DONE)
    assert read.broke
    assert (read.failure.reason, read.failure.charge) == (reason, Charge.UNKNOWN)
    assert "canary" not in read.failure.message


def test_a_refusal_after_a_piece_may_be_billed() -> None:
    """What broke later is not free because the request would have been."""
    failure = Failure(MODEL, Reason.CONNECT_FAILED, "cut")
    assert Read(FIRST).gathering.broken(failure).charge is Charge.NONE
    assert Read(FIRST, chunk({"content": "a"})).gathering.broken(failure).charge is Charge.UNKNOWN
