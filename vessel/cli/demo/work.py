"""The demonstration's work: a batch submitted at once, and a few calls by somebody who waits."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from vessel.cli.reading import request_line
from vessel.client import GroqClient, GroqCompound, JobFailed
from vessel.client.request import compose_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vessel.client import JobHandle, Result

INTERACTIVE: tuple[tuple[str, str], ...] = (
    ("query", "What is a lease in Redis?"),
    ("analyze", "Evaluate Portal Oradea's revenue potential over three years."),
    ("code", "Python function to parse CSV"),
    ("research", "EU agricultural funding 2026"),
)
LIVE_INTERACTIVE = INTERACTIVE[:1] + INTERACTIVE[2:3]
LIVE_CAP_USD = "0.005"


@dataclass(slots=True)
class Done:
    """One request with how it ended; `asked` is the model chosen when it was made."""

    label: str
    body: Mapping[str, Any]
    job_id: str
    asked: str
    tier: str
    ended: Result | JobFailed | None = None
    seconds: float | None = None
    steps: list[tuple[str, str]] = field(default_factory=list)
    """What happened on the way: events that sent it on or let it wait, with their reasons."""


def read_batch(name: str) -> list[dict[str, Any]]:
    """Read a file of requests that is shipped beside this module."""
    text = files("vessel.cli.demo").joinpath(name).read_text(encoding="utf-8")
    return [request_line(line) for line in text.splitlines() if line.strip()]


class Batch:
    """Requests submitted together; a thread follows their endings."""

    def __init__(self, client: GroqClient, requests: Sequence[dict[str, Any]]) -> None:
        """Submit."""
        self.client = client
        handles = client.submit_many(requests)
        self.done = [_begun(n, raw, h) for n, (raw, h) in enumerate(zip(requests, handles, strict=True), 1)]
        self.totals = Counter(one.tier for one in self.done)
        self._by_id = {one.job_id: one for one in self.done}
        self._thread = threading.Thread(target=self._follow, name="demo-batch", daemon=True)
        self._error: BaseException | None = None
        self._ended: Callable[[Done], None] = lambda _: None

    def start(self, ended: Callable[[Done], None]) -> None:
        """Follow the endings and call `ended` for each."""
        self._ended = ended
        self._thread.start()

    def finish(self) -> None:
        """Wait for the last ending. Raises what the following met."""
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _follow(self) -> None:
        try:
            for ended in self.client.wait(self._by_id, timeout=60):
                one = self._by_id[ended.job_id]
                one.ended = ended
                self._ended(one)
        except Exception as error:  # noqa: BLE001  raised again by finish, in the thread that waits for it
            self._error = error


def ask_meanwhile(client: GroqClient, calls: Sequence[tuple[str, str]], *, live: bool) -> list[Done]:
    """Ask one thing after the other as a person would, and take the time."""
    found = []
    for verb, prompt in calls:
        began = time.monotonic()
        ended: Result | JobFailed
        try:
            ended = _ask(client, verb, prompt, {"max_cost_usd": LIVE_CAP_USD} if live else {})
        except JobFailed as failed:
            ended = failed
        seconds = time.monotonic() - began
        job = client.job(ended.job_id)
        found.append(Done(verb, json.loads(job.body), job.id, job.hops[0].model, job.hops[0].tier, ended, seconds))
    return found


def look_back(client: GroqClient, done: Sequence[Done]) -> None:
    """Read what happened on the way to each result."""
    for one in done:
        one.steps = [(e.name, e.detail) for e in client.events(one.job_id) if e.name in {"requeued", "parked"}]


def _ask(client: GroqClient, verb: str, prompt: str, options: dict[str, Any]) -> Result:
    match verb:
        case "analyze":
            return client.analyze(prompt, timeout=30, **options)
        case "code":
            return client.generate_code(prompt, "python", timeout=30, **options)
        case "research":
            return GroqCompound(client=client).research(prompt, timeout=30, **options)
        case _:
            return client.query(prompt, timeout=30, **options)


def _begun(number: int, raw: dict[str, Any], handle: JobHandle) -> Done:
    return Done(f"line {number}", compose_line(raw).body, handle.id, handle.model, handle.tier)
