"""A world whose ledger holds what workers would have written, and is read as reports do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.contract.world import World
from vessel.client.steps import Run, drive
from vessel.client.usage import EVERYTHING, Span, counted, report, sums_of
from vessel.jobs.steps import Ending, Final
from vessel.settings import load_settings
from vessel.submit import Door
from vessel.usage.sums import DAY_MS, HOUR_MS, Sum, summed
from vessel.wire import JobState

if TYPE_CHECKING:
    from vessel.client.steps import Effect, Steps
    from vessel.usage.report import Report

MODEL = "openai/gpt-oss-20b"


def row(cost: str = "0.0000375125", **more: Any) -> str:
    """Write a ledger row as workers do."""
    given = {"model": MODEL, "tokens": {"input": 300, "output": 50, "cached": 20}, "cost_usd": "@", "vessel": "groq",
             "request_id": None, "tier": "ultra_fast", "tenant": "t"} | more  # fmt: skip
    return json.dumps(given, separators=(",", ":")).replace('"@"', cost)


class Books(World):
    """A world with its door, whose ledger is read as reports do."""

    def __post_init__(self) -> None:
        """Open the door of the same keys."""
        super().__post_init__()
        self.door = Door(load_settings({}, namespace=self.keys.namespace))

    def ask(self, steps: Steps[Any]) -> Any:
        """Carry a verb to its end."""

        def perform(effect: Effect) -> Any:
            assert isinstance(effect, Run)
            return self.runner.run_all(effect.calls)

        return drive(steps, perform)

    def report(self, **options: Any) -> Report:
        """Report."""
        found: Report = self.ask(report(self.door, **options))
        return found

    def called(self, booked: str, label: str = JobState.SUCCEEDED, **more: Any) -> None:
        """Make a call that was charged."""
        held = self.started(**more)
        self.finish(held, (Ending(1, label, '{"status":200}', booked), Final(JobState.SUCCEEDED, valid=True)))

    def agree(self) -> Sum:
        """Compare sums with entries, by everything; returns the total."""
        now = self.now_ms()
        whole = Span((now // DAY_MS - 4) * DAY_MS, (now // HOUR_MS + 1) * HOUR_MS)
        first = int(self.client.hget(self.keys.ledger_log, "first_day") or 0)
        for by in ("model", "tier", "day", "tenant", "vessel", "hour", "tag"):
            kept = self.ask(sums_of(self.door, whole, by, first))
            assert summed(kept, by) == summed(self.ask(counted(self.door, [EVERYTHING], by)), by), by
        return self.report(since=0).total


def backdated(books: Books, *hours: float) -> None:
    """Book entries as if they had been written so many hours ago, oldest first, with the sums they would have left."""
    now, dated = books.now_ms(), []
    for ago in hours:
        books.called(row(tags={"age": str(ago)}))
        at = int(now - ago * HOUR_MS)
        dated.append((at, books.client.xrevrange(books.keys.ledger, count=1)[0][1]))
        for name in (books.keys.sums("sums"), books.keys.sums("tags")):
            for field, amount in books.client.hgetall(name).items():
                hour, _, rest = field.decode().partition("|")
                if int(hour) >= now // HOUR_MS and ago:
                    books.client.hdel(name, field)
                    books.client.hincrby(name, f"{at // HOUR_MS}|{rest}", amount)
    books.client.delete(books.keys.ledger)
    for at, fields in dated:
        books.client.xadd(books.keys.ledger, fields, id=f"{at}-0")
