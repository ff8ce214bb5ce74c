"""A streamed answer as Groq sends it, and the ways in which a stream breaks (groq-facts 1.4)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vessel.simulator.exchange import Exchange
    from vessel.simulator.faults import Rule
    from vessel.simulator.reply import Answer
    from vessel.simulator.stats import Call
    from vessel.simulator.world import Simulation

PIECE = 24
_ERROR = {"message": "Failed to call a function.", "type": "invalid_request_error", "code": "tool_use_failed",
          "failed_generation": "", "status_code": 400}  # fmt: skip


def _event(data: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data)}\n\n".encode()


class _Chunks:
    """Builds the chunks of one stream."""

    def __init__(self, exchange: Exchange, model: str, created: int) -> None:
        """Keep what is the same on all of them."""
        self.same = {"id": f"chatcmpl-{exchange.request_id[4:]}", "object": "chat.completion.chunk",
                     "created": created, "model": model, "system_fingerprint": "fp_simulator"}  # fmt: skip

    def chunk(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        """Write one chunk."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event(self.same | {"choices": [choice]} | more)


async def stream(
    sim: Simulation, exchange: Exchange, call: Call, answer: Answer, rule: Rule | None, model: str
) -> None:
    """Send an answer piece by piece; a fault strikes after the first piece."""
    chunks = _Chunks(exchange, model, int(sim.clock()))
    call.status, call.completion_tokens = 200, answer.completion_tokens
    await sim.sleep(answer.queue_s + answer.prompt_s)
    first = chunks.chunk({"role": "assistant", "content": ""}, x_groq={"id": exchange.request_id})
    await exchange.part(200, None, first, b"text/event-stream")
    text = answer.message.get("content") or ""
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    for index, piece in enumerate(pieces):
        await sim.sleep(answer.completion_s / max(1, len(pieces)))
        await exchange.more(chunks.chunk({"content": piece}))
        if index == 0 and rule is not None and await _broken(rule, exchange, chunks):
            call.reason = rule.kind
            return
    usage = {"id": exchange.request_id, "usage": answer.usage()}
    await exchange.more(chunks.chunk({}, answer.finish_reason, x_groq=usage))
    done = b"" if rule is not None and rule.kind == "stream_no_done" else b"data: [DONE]\n\n"
    call.delivered = await exchange.more(done, last=True) and rule is None


async def _broken(rule: Rule, exchange: Exchange, chunks: _Chunks) -> bool:
    """Break the stream; returns whether it is over."""
    match rule.kind:
        case "stream_event_error":
            await exchange.more(_event({"error": _ERROR}, "error"), last=True)
        case "stream_data_error":
            await exchange.more(_event({"error": _ERROR}), last=True)
        case "stream_x_groq_error":
            await exchange.more(chunks.chunk({}, None, x_groq={"error": "internal error"}), last=True)
        case "stream_broken_json":
            await exchange.more(b'data: {"id": "chatcmpl-\n\n', last=True)
        case "stream_reset" | "reset_mid_body":
            await asyncio.sleep(0)
            exchange.reset()
        case "stream_silence":
            await exchange.gone.wait()
        case _:
            return False
    return True
