"""What the console tells, from records to words: ways out, timelines, estimates, refusals, and a day's spending."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from vessel.api.cures import OTHERWISE, WAYS_OUT, way_out
from vessel.api.life import life
from vessel.api.overview import refusing
from vessel.api.own import JOBS_READ, OpenBatches, Own, batch_row
from vessel.api.spending import ENTRIES_AT_ONCE, Spending
from vessel.batches.model import Batch, BatchStatus
from vessel.client.following import JobEvent
from vessel.client.gates import GateInfo
from vessel.client.steps import Run, drive
from vessel.gate.view import Breaker, GateView, Level, untouched
from vessel.jobs.model import Attempt, Hop, Job
from vessel.settings import load_settings
from vessel.submit import Door
from vessel.upstream.outcome import Reason
from vessel.usage.sums import DAY_MS, HOUR_MS
from vessel.wire import JobState, Priority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.client.steps import Effect

NOON = 20_000 * DAY_MS + DAY_MS // 2
OURS = ("deadline", "max_wait", "attempts_exhausted", "poison_job", "stream_broken", "input_gone", "no_workers")
SECRET = "CANARY of prompt, answer and context"
JOB = Job(
    id=f"job_{'1' * 32}", state=JobState.FAILED, generation=4, tenant="t", priority=Priority.NORMAL, tier="power",
    model="m/large", hops=(Hop("m/large", "power"), Hop("m/small", "fast")), hop=0,
    policy={"context": {"x": SECRET}, "webhook": SECRET, "tags": {"team": "a"}}, reasons=("explicit",), created_at=NOON,
    updated_at=NOON, estimated_tokens=10, prompt_bytes=9, body=SECRET.encode(), response=SECRET.encode(),
    attempts=(Attempt(1, "m/large", "power", NOON, "host:1", "bad_request", 400, "Groq refuses it.",
                      reason="bad_request", duration_ms=120),),
    reason="bad_request", message="Groq refuses it.", finished_at=NOON + 300,
)  # fmt: skip


def event(name: str, state: JobState, detail: str = "", at: int = NOON) -> JobEvent:
    """Build a moment."""
    return JobEvent(f"{at}-0", name, state, 1, at, detail)


@pytest.mark.parametrize("reason", [*Reason, *OURS])
def test_every_reason_has_a_way_out(reason: str) -> None:
    """A sentence that says what to do; what is not known has one as well."""
    assert way_out(reason) in WAYS_OUT.values()
    assert way_out(reason).endswith(".")
    assert way_out("something new") == OTHERWISE


def test_a_timeline_tells_waits_and_attempts_and_nothing_private() -> None:
    """Each wait with its reason, each attempt with its model, the end; neither prompt, answer, context nor webhook."""
    told = life(JOB, [
        event("created", JobState.QUEUED, "power m/large"), event("parked", JobState.PARKED, "maintenance"),
        event("booked", JobState.RUNNING, "1500"), event("started", JobState.RUNNING, "1"),
        event("rescued", JobState.QUEUED), event("failed", JobState.FAILED, "1"),
    ], None)  # fmt: skip
    assert [step["title"] for step in told["timeline"]] == [
        "Accepted", "Waits until the maintenance is over", "Waits for its booked start", "Attempt 1",
        "Its worker was lost, so it waits again", "Failed",
    ]  # fmt: skip
    assert told["timeline"][2]["detail"] == "1.5 s"
    assert told["timeline"][3]["attempt"]["model"] == "m/large"
    assert told["policy"] == {"tags": {"team": "a"}}
    assert told["way_out"] == WAYS_OUT["bad_request"]
    assert SECRET not in json.dumps(told)


def batch(**more: Any) -> Batch:
    """Build a batch that runs."""
    given: dict[str, Any] = {
        "id": "batch_1", "tenant": "t", "status": BatchStatus.IN_PROGRESS, "file": "f", "endpoint": "/v1/x",
        "window": "24h", "metadata": {}, "created_at": NOON, "expires_at": NOON + DAY_MS, "total": 100,
        "counts": {"succeeded": 30, "failed": 10}, "left": 60, "groups": ((100, 50, 40),), "cost_usd": Decimal("0.5"),
    }  # fmt: skip
    return Batch(**given | more)


def test_a_finish_is_estimated_from_the_pace() -> None:
    """60 lines at 2 a second take half a minute; without a pace, or at the end, nothing is promised."""
    row = batch_row(batch(), NOON, 0.002)
    assert (row["finish_at"], row["per_minute"], row["failed"]) == ("2024-10-04T12:00:30.000Z", 120.0, 10)
    assert batch_row(batch(), NOON, 0.0)["finish_at"] is None
    ended = batch_row(batch(status=BatchStatus.COMPLETED, times=(("completed", NOON),)), NOON, 0.002)
    assert (ended["finish_at"], ended["ended_at"]) == (None, "2024-10-04T12:00:00.000Z")


def test_a_refusal_names_the_limit_and_the_time() -> None:
    """A limit that is used up, an open breaker and what Groq said to wait; a gate with room refuses nothing."""
    full = GateView(NOON, {"rpm": Level("rpm", 60, 60.0), "tpm": Level("tpm", 6000, 6000.0)})
    assert refusing(GateInfo("m", "power", full)) == []
    empty = GateView(NOON, {"tpm": Level("tpm", 6000, 100.0)}, model=Breaker("open", "503s", 4000), blocked_ms=2000,
                     blocked_why="tpm")  # fmt: skip
    told = refusing(GateInfo("m", "power", empty, next_tokens=1100))
    assert [(one["why"], one["again_s"]) for one in told] == [("tpm", 2.0), ("breaker", 4.0), ("tpm", 10.0)]
    assert told[-1]["text"] == "Tokens per minute are used up for the next job (about 1,100 tokens)."


def entry(at: int, number: int, outcome: str = "succeeded", cost: str = "0.000100000001", **more: str) -> Any:
    """Write an entry as Redis gives it."""
    row = (f'{{"model":"m","tokens":{{"input":10,"output":5}},"cost_usd":{cost},"tier":"power","tenant":"'
           f'{more.pop("tenant", "ann")}"}}')  # fmt: skip
    fields = {"outcome": outcome.encode(), "row": row.encode()} | {k: v.encode() for k, v in more.items()}
    return f"{at}-{number}", fields


class Ledger:
    """A stream of entries that is read by id, and the sums of hours that are over."""

    def __init__(self, *rows: tuple[str, Mapping[str, bytes]], sums: Mapping[bytes, bytes] | None = None) -> None:
        """Hold entries."""
        self.rows, self.sums, self.rolls = list(rows), dict(sums or {}), 0
        self.door = Door(load_settings({}, redis_url="redis://localhost"))

    def spending(self) -> Spending:
        """Begin at this ledger."""
        return Spending(self.door)

    def read(self, spending: Spending, now: int) -> dict[str, Any]:
        """Let the sums read on; give a tenant's day."""

        def perform(effect: Effect) -> Any:
            assert isinstance(effect, Run)
            return [call.parse(self._answer(call.command)) for call in effect.calls]

        drive(spending.read(now), perform)
        return spending.document("ann")

    def _answer(self, command: Sequence[Any]) -> Any:
        match command:
            case ("XRANGE", _, after, *_, count):
                later = [row for row in self.rows if _order(row[0]) > _order(str(after).removeprefix("("))]
                return [(i, {k.encode(): v for k, v in fields.items()}) for i, fields in later[:count]]
            case ("HSCAN", _, cursor, _, count):
                start, names = int(str(cursor)), list(self.sums)
                part = names[start : start + max(1, count // 25)]
                end = start + len(part)
                return [str(end if end < len(names) else 0).encode(), {name: self.sums[name] for name in part}]
            case ("HMGET", *_):
                return [b"%d" % self.rolls, None]
            case _:
                return None


def _order(entry_id: str) -> tuple[int, int]:
    at, _, number = entry_id.partition("-")
    return int(at), int(number)


def test_a_days_spending_is_exact_and_read_once() -> None:
    """Tokens and money by model and tenant; what was before midnight is not of today; unknown calls are told apart."""
    eleven = NOON // HOUR_MS - 1
    past = {f"{eleven}|{what}|ann|m|power|groq".encode(): b"%d" % n for what, n in (("n:succeeded", 3), ("pico", 5))}
    entries = (entry(NOON, 0), entry(NOON, 1, tenant="bob"), entry(NOON, 2, "unknown"))
    ledger = Ledger(entry(NOON - DAY_MS, 0), entry(NOON - 60_000, 0), *entries, sums=past)
    spending = ledger.spending()
    told = ledger.read(spending, NOON + 1000)
    assert told["total"] == {"calls": 5, "unknown": 1, "input_tokens": 20, "output_tokens": 10,
                             "cost_usd": 0.000200000007}  # fmt: skip
    assert told["models"][0]["series"] == {"11": 5e-12, "12": 0.000200000002}
    assert told["complete"]
    assert ledger.read(spending, NOON + 2000) == told
    assert spending.per_minute() == {"power": 2}
    assert spending.traces(NOON + 1000)["power"][-2:] == [1, 2]


def test_an_amended_entry_counts_once() -> None:
    """The guess goes when the answer comes after all."""
    ledger = Ledger(entry(NOON, 0, "unknown", "0.5"))
    spending = ledger.spending()
    assert ledger.read(spending, NOON)["total"]["cost_usd"] == 0.5
    ledger.rows.append(entry(NOON + 5, 0, cost="0.25", amends=f"{NOON}-0"))
    total = ledger.read(spending, NOON + 10)["total"]
    assert (total["calls"], total["unknown"], total["cost_usd"]) == (1, 0, 0.25)


def test_an_amended_entry_of_a_past_hour_reads_the_sums_again() -> None:
    """Its guess was in a sum that is Redis' to correct."""
    hour = f"{NOON // HOUR_MS - 1}|n:unknown|ann|m|power|groq".encode()
    ledger = Ledger(sums={hour: b"1"})
    spending = ledger.spending()
    assert ledger.read(spending, NOON)["total"]["calls"] == 1
    ledger.sums[hour] = b"0"
    ledger.rows.append(entry(NOON + 5, 0, amends=f"{NOON - 1000}-0"))
    ledger.read(spending, NOON + 1000)
    total = ledger.read(spending, NOON + 20_000)["total"]
    assert (total["calls"], total["unknown"]) == (1, 0)


def test_the_sums_of_past_hours_are_read_in_parts() -> None:
    """Nothing of them is told before all are known; what a sweep moves meanwhile is read again and counts once."""
    hour = NOON // HOUR_MS - 1
    ledger = Ledger(sums={f"{hour}|n:succeeded|ann|m{n}|power|groq".encode(): b"1" for n in range(5)})
    spending = ledger.spending()
    told = [ledger.read(spending, NOON)]
    ledger.rolls += 1
    told += [ledger.read(spending, NOON + n) for n in range(4)]
    assert [one["total"]["calls"] for one in told] == [0, 0, 0, 5, 5]
    assert [one["complete"] for one in told] == [False, False, False, True, True]


def test_a_new_day_begins_at_nothing() -> None:
    """At midnight (UTC) the sums start anew, and the calls of the last minute are still counted."""
    midnight = 20_001 * DAY_MS
    ledger = Ledger(entry(midnight - 5000, 0))
    spending = ledger.spending()
    assert ledger.read(spending, midnight - 1000)["total"]["calls"] == 1
    assert ledger.read(spending, midnight + 1000)["total"]["calls"] == 0
    assert spending.per_minute() == {"power": 1}


def test_a_long_ledger_is_read_in_parts() -> None:
    """A look reads a bounded part, and says so until it has read all."""
    ledger = Ledger(*(entry(NOON, number) for number in range(2 * ENTRIES_AT_ONCE + 1)))
    spending = ledger.spending()
    assert [ledger.read(spending, NOON)["complete"] for _ in range(3)] == [False, False, True]
    assert spending.document("ann")["total"]["calls"] == 2 * ENTRIES_AT_ONCE + 1


def test_a_job_that_goes_on_tells_no_way_out() -> None:
    """There is none to tell yet."""
    assert life(replace(JOB, state=JobState.QUEUED, reason="", message=""), [], None)["way_out"] is None


def test_a_gate_at_which_nothing_goes_on_fills_up_without_a_look() -> None:
    """Its limits are reckoned; one with a call in flight, a wait or a breaker that is not closed is not quiet."""
    assert untouched((60, 0, 6000, 0, 0, 0), NOON).limits["tpm"] == Level("tpm", 6000, 6000)
    view = GateView(NOON, {"tpm": Level("tpm", 6000, 1000.0), "rpm": Level("rpm", 60, 59.5)})
    later = view.later(NOON + 30_000)
    assert (later.now, later.limits["tpm"].left, later.limits["rpm"].left) == (NOON + 30_000, 4000.0, 60)
    assert view.quiet
    closings: tuple[dict[str, Any], ...] = (
        {"running": 1},
        {"fed": 1},
        {"bookings": 1},
        {"blocked_ms": 5},
        {"provider": Breaker("ramp")},
    )
    assert not any(replace(view, **more).quiet for more in closings)


def test_every_open_job_has_its_turn() -> None:
    """More of them than a look reads: none is passed over for those before it."""
    door = Door(load_settings({}, redis_url="redis://localhost"))
    own = Own(door, "t", OpenBatches(door))
    ids, asked = [f"job_{n:032x}" for n in range(3 * JOBS_READ)], list[str]()

    def perform(effect: Effect) -> Any:
        assert isinstance(effect, Run)
        asked.extend(str(call.command[1]).rpartition(":")[2] for call in effect.calls)
        return [replace(JOB, id=asked[-1], state=JobState.QUEUED) for _ in effect.calls]

    for _ in range(3):
        own._looks += 1
        drive(own._read_jobs(ids), perform)
    assert sorted(asked) == ids
