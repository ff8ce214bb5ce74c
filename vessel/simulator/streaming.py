"""A streamed answer as Groq sends it - role, deltas, a last chunk with usage in `x_groq`, [DONE] - and its faults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.simulator import problems
from vessel.simulator.encoding import encode_text
from vessel.simulator.exchange import EVENTS

if TYPE_CHECKING:
    from vessel.simulator.clock import Clock
    from vessel.simulator.completion import Completion
    from vessel.simulator.exchange import Exchange
    from vessel.simulator.faults import Rule

DONE = b"data: [DONE]\n\n"
MOST_PIECES = 64
SHORTEST_PIECE = 12
COMMENT = b": keep-alive\n\n"
COMMENT_S = 0.5
DRIP_S = 0.7


def event(data: Any, name: str = "") -> bytes:
    """Write one server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {encode_text(data)}\n\n".encode()


def stream_error(problem: problems.Problem) -> dict[str, Any]:
    """Return an error as it stands inside a stream: with its status, since the HTTP status is 200 by then."""
    body = problem.body if isinstance(problem.body, dict) else problems.error(problem.body)
    return {"error": body["error"] | {"status_code": problem.status}}


@dataclass(frozen=True, slots=True)
class Script:
    """All that a stream says, and how long it takes over it."""

    same: dict[str, Any]
    request_id: str
    done: Completion
    usage: dict[str, Any] | None
    breakdown: dict[str, Any] | None
    seed: int
    include_usage: bool
    writing_s: float

    def chunk(self, delta: dict[str, Any], finish: str | None = None, x_groq: dict[str, Any] | None = None) -> bytes:
        """Write one chunk."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        chunk = self.same | {"choices": [choice]}
        return event(chunk | {"x_groq": x_groq} if x_groq is not None else chunk)

    def first(self) -> bytes:
        """Write the chunk that names the role."""
        return self.chunk({"role": "assistant", "content": ""}, x_groq={"id": self.request_id})

    def pieces(self) -> list[bytes]:
        """Write the chunks of reasoning, tools and content."""
        message, found = self.done.message, []
        found += [self.chunk({"reasoning": piece}) for piece in _pieces(message.get("reasoning"))]
        for run in message.get("executed_tools") or []:  # once as it begins, and whole when it has ended
            begun = {name: value for name, value in run.items() if name in {"index", "type", "name", "arguments"}}
            found += [self.chunk({"executed_tools": [part]}) for part in (begun, run)]
        for index, call in enumerate(message.get("tool_calls") or []):
            found.append(self.chunk({"tool_calls": [{"index": index} | call]}))
        found += [self.chunk({"content": piece}) for piece in _pieces(message.get("content"))]
        found += [self.chunk({"annotations": [note]}) for note in message.get("annotations") or []]
        return found

    def last(self) -> bytes:
        """Write the chunk with finish_reason and usage, and one with usage at its top where it was asked for."""
        x_groq: dict[str, Any] = {"id": self.request_id, "seed": self.seed}
        if self.usage is not None:
            x_groq["usage"] = self.usage
        if self.breakdown is not None:
            x_groq["usage_breakdown"] = self.breakdown
        found = self.chunk({}, self.done.finish_reason, x_groq)
        if self.include_usage:
            found += event(self.same | {"choices": [], "usage": self.usage})
        return found


def _pieces(text: str | None) -> list[str]:
    if not text:
        return []
    size = max(SHORTEST_PIECE, -(-len(text) // MOST_PIECES))
    return [text[at : at + size] for at in range(0, len(text), size)]


async def play(exchange: Exchange, script: Script, rule: Rule | None, clock: Clock) -> bool:
    """Send a stream, spoiled where a rule says so; returns whether it was delivered to its end."""
    await exchange.begin(200, EVENTS, None)
    pieces = script.pieces()
    pause = script.writing_s / max(1, len(pieces))
    if rule is not None and rule.kind == "stream_drip":
        pause = DRIP_S if rule.delay_s is None else rule.delay_s
    broken_at = min(rule.at, len(pieces)) if rule is not None else -1
    waiting = script.first()
    for index, piece in enumerate(pieces):
        if rule is not None and index == broken_at and _breaks(rule):
            break
        if pause > 0:
            await exchange.write(waiting)
            await clock.sleep(pause)
            waiting = b""
        waiting += piece
    if rule is not None and _breaks(rule):
        if waiting:
            await exchange.write(waiting)
        return await _break(exchange, script, rule, clock)
    return await exchange.end(waiting + script.last() + DONE)


def _breaks(rule: Rule) -> bool:
    return rule.kind.startswith("stream_") and rule.kind != "stream_drip"


async def _break(exchange: Exchange, script: Script, rule: Rule, clock: Clock) -> bool:
    broken = problems.tool_use_failed("<function=simulated") if rule.body is None else _given(rule.body)
    match rule.kind:
        case "stream_event_error":
            await exchange.end(event(stream_error(broken), "error"))
        case "stream_data_error":
            await exchange.end(event(stream_error(broken)))
        case "stream_x_groq_error":
            await exchange.end(script.chunk({}, None, {"id": script.request_id, "error": "over capacity"}) + DONE)
        case "stream_broken_json":
            await exchange.end(b'data: {"id": "chatcmpl-\n\n' + DONE)
        case "stream_no_done":
            await exchange.end()
        case "stream_early_fin":
            await exchange.finish()
        case "stream_reset":
            await exchange.reset()
        case "stream_comments":
            while not exchange.client_left:
                await exchange.write(COMMENT)
                await clock.sleep(COMMENT_S if rule.delay_s is None else rule.delay_s)
        case _:
            await exchange.gone()
    return False


def _given(body: Any) -> problems.Problem:
    return problems.Problem(400, body if isinstance(body, dict) else problems.error(str(body)), "stream_error")


async def play_failure(exchange: Exchange, script: Script, problem: problems.Problem) -> None:
    """Send a stream whose model fails: by then the status is 200, so the error is an event."""
    await exchange.begin(200, EVENTS, None)
    await exchange.end(script.first() + event(stream_error(problem), "error"))
