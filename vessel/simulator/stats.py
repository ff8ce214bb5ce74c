"""What the simulator saw: the independent judge's log of calls, and counters over it."""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import IO, Any


@dataclass(slots=True)
class Call:
    """One request to chat completions. `delivered`: its last byte went to a client that was still there."""

    seq: int
    request_id: str
    model: str
    status: int = 0
    reason: str = ""
    digest: str = ""
    attempt: str = ""
    retry_count: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    delivered: bool = False
    user: str | None = None
    started_at: float = 0.0
    finished_at: float = 0.0


class Stats:
    """Counters and the log of calls."""

    def __init__(self, keep: int = 200_000, log: IO[str] | None = None) -> None:
        """Keep so many calls in memory; with a file, write each finished call as a line too."""
        self.calls: deque[Call] = deque(maxlen=keep)
        self.log = log
        self.in_flight = self.peak_in_flight = self.seq = 0

    def begin(self, request_id: str, model: str, now: float) -> Call:
        """Note that a request came in."""
        self.seq += 1
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        return Call(self.seq, request_id, model, started_at=now)

    def end(self, call: Call, now: float) -> None:
        """Note that it is over, however it ended."""
        self.in_flight -= 1
        call.finished_at = now
        self.calls.append(call)
        if self.log is not None:
            self.log.write(json.dumps(asdict(call)) + "\n")
            self.log.flush()

    def since(self, seq: int) -> list[dict[str, Any]]:
        """Return the calls after a number, in order of number."""
        return sorted((asdict(c) for c in self.calls if c.seq > seq), key=lambda c: c["seq"])

    def summary(self) -> dict[str, Any]:
        """Count everything the log holds."""
        done = [c for c in self.calls if c.status == 200]  # noqa: PLR2004  the HTTP status
        return {
            "calls": len(self.calls),
            "accepted": sum(c.status not in {429, 413} for c in self.calls),
            "refused": sum(c.status in {429, 413} for c in self.calls),
            "refused_by": dict(Counter(c.reason for c in self.calls if c.status in {429, 413})),
            "completed": len(done),
            "delivered": sum(c.delivered for c in done),
            "undelivered": sum(not c.delivered for c in done),
            "status": {str(k): v for k, v in Counter(c.status for c in self.calls).items()},
            "tokens": _tokens(done),
            "delivered_tokens": _tokens([c for c in done if c.delivered]),
            "by_model": {m: {"calls": n, **_tokens([c for c in done if c.model == m])}
                         for m, n in Counter(c.model for c in done).items()},
            "by_retry_count": {str(k): v for k, v in Counter(c.retry_count for c in self.calls).items()},
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
        }  # fmt: skip

    def reset(self) -> None:
        """Forget the calls; those in flight go on."""
        self.calls.clear()
        self.peak_in_flight = self.in_flight


def _tokens(calls: list[Call]) -> dict[str, int]:
    prompt, completion = sum(c.prompt_tokens for c in calls), sum(c.completion_tokens for c in calls)
    cached = sum(c.cached_tokens for c in calls)
    return {"prompt": prompt, "completion": completion, "total": prompt + completion, "cached": cached}
