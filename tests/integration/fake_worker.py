"""A worker in a thread, without Celery and upstream: it claims, starts and finishes jobs through the store."""

from __future__ import annotations

import json
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

from vessel.dispatch.queues import queues_of
from vessel.dispatch.ticket import parse
from vessel.gate.limiter import Charge
from vessel.jobs.steps import Ending, Feed, Final, Held, Start
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.script import Arg, load, word
from vessel.submit import Door, redis_url
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vessel.jobs.model import Job
    from vessel.settings import Settings

TURN_S = 0.02
ROW = json.dumps({"model": "openai/gpt-oss-20b", "tier": "power", "worker": "fake", "worst_nano_usd": 5})
UNLIMITED = (0, 10**6, 0, 0, 0, 0)
ENDED = json.dumps({"status": 200, "counted": True, "cost_nano_usd": 3})
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, "cached_tokens": 2, "reasoning_tokens": 1}


def said(text: str | None, **message: Any) -> dict[str, Any]:
    """Give a response that says a text."""
    return {"choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}]}


def echo(job: Job) -> Final:
    """Answer with the last message, in upper case."""
    return succeeded(job, said(str(job.request()["messages"][-1]["content"]).upper()))


def succeeded(job: Job, response: dict[str, Any]) -> Final:
    """End a job with a response."""
    fields: dict[str, str | bytes] = {
        "response": json.dumps(response).encode(),
        "usage": json.dumps(USAGE),
        "cost": format(Decimal("0.00000123"), "f"),
        "served_model": job.model,
        "served_tier": job.tier,
    }
    return Final(JobState.SUCCEEDED, fields, valid=True)


def failed(_job: Job) -> Final:
    """End a job without a result."""
    return Final(JobState.FAILED, {"reason": "bad_request", "message": "Groq refused it."})


def beat(runner: SyncRunner, door: Door, tiers: Sequence[str]) -> None:
    """Say that a worker of these tiers lives."""
    keys = [door.keys.live(tier) for tier in tiers]
    alive: dict[str, Arg] = {"worker": "fake", "silent_ms": 60_000, "slots_here": 10}
    runner.run(load("heartbeat").call({"slots": door.keys.slots}, alive, word, more_keys=keys))


class FakeWorker:
    """Serves some tiers while the `with` block lasts; `hold()` lets jobs start but not end."""

    def __init__(self, settings: Settings, tiers: Sequence[str], answer: Callable[[Job], Final] = echo) -> None:
        """Take what to serve; the thread starts with the block."""
        self.tiers, self.answer = tuple(tiers), answer
        self.door = Door(settings)
        self.started: list[str] = []
        self._url = redis_url(settings)
        self._go, self._stop = threading.Event(), threading.Event()
        self._go.set()
        self._running: list[Held] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        """Start, and be seen alive."""
        with connect(self._url) as client:
            self._beat(SyncRunner(client))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and be seen gone."""
        self._stop.set()
        self._thread.join()

    def hold(self) -> None:
        """Let jobs start but not end."""
        self._go.clear()

    def release(self) -> None:
        """Let them end."""
        self._go.set()

    def _serve(self) -> None:
        with connect(self._url) as client:
            runner = SyncRunner(client)
            queues = {self.door.keys.queue(name): name for name in queues_of(self.tiers)}
            while not self._stop.is_set():
                self._beat(runner)
                self._feed(runner, client)
                taken: Any = client.brpop(list(queues), timeout=TURN_S)
                if taken:
                    for job_id, generation in parse(taken[1]):
                        self._begin(runner, job_id, generation, queues[taken[0].decode()])
                self._end(runner)
            for tier in self.tiers:
                client.zrem(self.door.keys.live(tier), "fake")

    def _beat(self, runner: SyncRunner) -> None:
        beat(runner, self.door, self.tiers)

    def _feed(self, runner: SyncRunner, client: Any) -> None:
        """Give every job of the backlog its ticket."""
        for name in client.scan_iter(self.door.keys.backlog("*", "*")):
            for job_id in client.zrange(name, 0, -1):
                job = runner.run(self.door.store.peek(job_id.decode()))
                if job is not None:
                    runner.run(self.door.store.feed(job, self.door.store.gate(job, None), Feed(1)))

    def _begin(self, runner: SyncRunner, job_id: str, generation: int, queue: str) -> None:
        held = runner.run(self.door.store.claim(job_id, generation, queue, "fake/1"))
        if isinstance(held, Held):
            charge = Charge("fake", "fake", UNLIMITED, 0, 0)
            runner.run(self.door.store.start(held, Start(1, ROW, "{}", "fake", charge, book_ms=0)))
            self.started.append(job_id)
            self._running.append(held)

    def _end(self, runner: SyncRunner) -> None:
        if not self._running:
            return
        words = runner.run(self.door.store.renew(self._running))
        for held, answer in zip(list(self._running), words, strict=True):
            if answer == "cancel":
                self._finish(runner, held, Final(JobState.CANCELLED, {"reason": "cancelled", "message": "Cut."}))
            elif self._go.is_set():
                self._finish(runner, held, self.answer(held.job))

    def _finish(self, runner: SyncRunner, held: Held, final: Final) -> None:
        self._running.remove(held)
        label = "succeeded" if final.valid else "failed"
        runner.run(self.door.store.finish(held, Ending(1, label, ENDED), final))
