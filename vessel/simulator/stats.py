"""What the simulator saw: the log of calls, which judges others, and counters over it."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from vessel.simulator.encoding import encode_text

if TYPE_CHECKING:
    from typing import IO


@dataclass(slots=True)
class Call:
    """One request to chat completions.

    `completed`: the model computed the whole answer, which Groq bills even when nobody hears it. `delivered`: the last
    byte of what was sent went to a client that was still there. `status` is 0 where no HTTP answer was begun and 499
    where the client left before the model began. `seq` is given at the end, so a log is in order of ending.
    """

    request_id: str
    started_at: float
    seq: int = 0
    model: str = ""
    org: str = ""
    status: int = 0
    reason: str = ""
    fault: str | None = None
    digest: str | None = None
    stream: bool = False
    accepted: bool = False
    completed: bool = False
    delivered: bool = False
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    retry_count: int = 0
    attempt: str | None = None
    user: str | None = None
    finished_at: float = 0.0

    def record(self) -> dict[str, Any]:
        """Return the call as the log shows it."""
        return {name: getattr(self, name) for name in _SHOWN}


_SHOWN = (
    "seq", "request_id", "model", "org", "status", "reason", "fault", "digest", "stream", "accepted", "completed",
    "delivered", "prompt_tokens", "completion_tokens", "cached_tokens", "retry_count", "attempt", "user", "started_at",
    "finished_at",
)  # fmt: skip


@dataclass(slots=True)
class Tally:
    """Counters over calls, of one model or of all."""

    calls: int = 0
    accepted: int = 0
    refused: int = 0
    completed: int = 0
    delivered: int = 0
    computed: list[int] = field(default_factory=lambda: [0, 0, 0])
    heard: list[int] = field(default_factory=lambda: [0, 0, 0])
    status: Counter[int] = field(default_factory=Counter)

    def count(self, call: Call) -> None:
        """Add a call that is over."""
        self.calls += 1
        self.accepted += call.accepted
        self.status[call.status] += 1
        if call.status in {429, 413}:
            self.refused += 1
        if not call.completed:
            return
        self.completed += 1
        figures = (call.prompt_tokens, call.completion_tokens, call.cached_tokens)
        for sums in (self.computed, self.heard) if call.delivered else (self.computed,):
            for index, figure in enumerate(figures):
                sums[index] += figure
        self.delivered += call.delivered

    def summary(self) -> dict[str, Any]:
        """Return the counters by name."""
        return {
            "calls": self.calls,
            "accepted": self.accepted,
            "refused": self.refused,
            "completed": self.completed,
            "delivered": self.delivered,
            "undelivered": self.completed - self.delivered,
            "status": {str(status): count for status, count in sorted(self.status.items())},
            "tokens": _named(self.computed),
            "delivered_tokens": _named(self.heard),
        }


def _named(figures: list[int]) -> dict[str, int]:
    prompt, completion, cached = figures
    return {"prompt": prompt, "completion": completion, "total": prompt + completion, "cached": cached}


class Stats:
    """The counters and the log; both only know calls that are over, but for those in flight."""

    def __init__(self, keep: int = 200_000, log: IO[str] | None = None) -> None:
        """Keep so many calls in memory; with a file, write each as a line too, at once."""
        self._calls: deque[Call] = deque(maxlen=keep)
        self._log = log
        self.seq = 0
        self.in_flight = 0
        self._clear()

    def _clear(self) -> None:
        self.peak_in_flight = self.in_flight
        self.all = Tally()
        self.by_model: dict[str, Tally] = {}
        self.by_retry_count: Counter[int] = Counter()
        self.refused_by: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def begin(self, request_id: str, now: float) -> Call:
        """Note that a call came in."""
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        return Call(request_id, now)

    def end(self, call: Call, now: float) -> None:
        """Note that it is over, however it ended."""
        self.seq += 1
        call.seq, call.finished_at = self.seq, now
        self.in_flight -= 1
        self._calls.append(call)
        self.all.count(call)
        tally = self.by_model.get(call.model)
        if tally is None:
            tally = self.by_model[call.model] = Tally()
        tally.count(call)
        self.by_retry_count[call.retry_count] += 1
        if call.status in {429, 413}:
            self.refused_by[call.reason] += 1
        if call.fault is not None:
            self.faults[call.fault] += 1
        if self._log is not None:
            self._log.write(encode_text(call.record()) + "\n")
            self._log.flush()

    def since(self, seq: int, most: int | None = None) -> list[dict[str, Any]]:
        """Return the calls that ended after call `seq`, oldest first."""
        if not self._calls:
            return []
        start = max(0, seq + 1 - self._calls[0].seq)
        stop = None if most is None else start + most
        return [call.record() for call in islice(self._calls, start, stop)]

    @property
    def oldest(self) -> int:
        """Return the number of the oldest call that is still kept, 0 when none."""
        return self._calls[0].seq if self._calls else 0

    def summary(self) -> dict[str, Any]:
        """Return all counters."""
        return self.all.summary() | {
            "refused_by": dict(self.refused_by),
            "faults": dict(self.faults),
            "by_model": {model: tally.summary() for model, tally in self.by_model.items()},
            "by_retry_count": {str(count): calls for count, calls in sorted(self.by_retry_count.items())},
            "in_flight": self.in_flight,
            "peak_in_flight": self.peak_in_flight,
            "last_seq": self.seq,
        }

    def reset(self) -> None:
        """Forget the calls that are over; those in flight go on, and numbers go on."""
        self._calls.clear()
        self._clear()
