"""The ledger against the simulator's own count: to the token, through faults and kills, and rebuilt the same."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.judge import read_ledger
from tests.chaos.test_kill_campaign import Campaign, lift_limits, stack_for
from vessel.client.steps import Run, drive
from vessel.client.usage import report
from vessel.keyspace.script import command
from vessel.usage.log import UsageLog

if TYPE_CHECKING:
    from pathlib import Path

    from bench.stack import Stack
    from vessel.client.steps import Effect
    from vessel.usage.report import Report

FAULTS = (
    *("reset_before_headers", "reset_mid_body", "early_fin", "truncated_json", "missing_choices", "empty_choices"),
    *("html_200", "rate_limit", "over_capacity", "slow"),
)
"""Refused and not billed, billed and not heard, billed and useless; none that lies about its own usage."""

LANES = ("interactive", "normal", "batch")
ROTATED_AT = 30_000


class Books(Campaign):
    """Mixed jobs under faults, and what the books say of them."""

    def mixed(self, count: int) -> None:
        """Submit jobs of all tiers, lanes, some tenants and tags."""
        tiers = list(self.door.registry.tiers)
        availability = self.runner.run(self.door.availability())
        jobs = [
            self.door.prepare(
                {"messages": [{"role": "user", "content": f"Question {n}: " + "why? " * self.dice.randrange(40)}]},
                {
                    "tier": tiers[n % len(tiers)],
                    "priority": LANES[n % 3],
                    "max_attempts": 20,
                    "tags": {"n": str(n % 7)},
                },
                availability=availability,
                tenant=f"tenant{n % 3}",
            )
            for n in range(len(self.ids), len(self.ids) + count)
        ]
        self.runner.run_all(self.door.create_many(jobs))
        self.ids += [job.new.id for job in jobs]
        self.open.update(job.new.id for job in jobs)

    def await_some(self, part: float) -> None:
        """Wait until a part of the jobs has ended."""
        least = part * len(self.ids)
        self.stack.until(lambda: self.done() >= least, "some jobs to end", patience_s=300)

    def report(self, by: str = "model") -> Report:
        """Sum the ledger up."""

        def perform(effect: Effect) -> Any:
            assert isinstance(effect, Run)
            return self.runner.run_all(effect.calls)

        return drive(report(self.door, by=by), perform)

    def calls(self) -> list[dict[str, Any]]:
        """Read the simulator's log."""
        found: list[dict[str, Any]] = []
        since = 0
        while page := self.stack.ask(f"/_sim/calls?since={since}&limit=1000")["calls"]:
            found += page
            since = page[-1]["seq"]
        return found


def tokens(call: Any) -> tuple[int, int, int]:
    """Read the tokens of a simulator's call."""
    return call["prompt_tokens"], call["completion_tokens"], call["cached_tokens"]


def campaign(stack: Stack, count: int, kills: int) -> None:
    """Run mixed jobs with faults and kills, and compare all books."""
    lift_limits(stack)
    dice = random.Random(6)  # noqa: S311  repeatable on purpose
    rules = [{"kind": kind, "rate": 0.02, **({"delay_s": 0.3} if kind == "slow" else {})} for kind in FAULTS]
    stack.ask("/_sim/faults", {"rules": rules})
    books = Books(stack)
    books.start_workers()
    for part in range(kills + 1):
        books.mixed(count // (kills + 1) + (count % (kills + 1) if part == 0 else 0))
        if part < kills:
            books.await_some(dice.uniform(0.3, 0.8))
            books.kill_worker()
    stack.until(lambda: books.done() == count, "all jobs to end", patience_s=900)
    stack.until(lambda: stack.ask("/_sim/stats")["in_flight"] == 0, "all calls to end")
    compare(books)
    logs_agree(books)
    books.client.close()


def compare(books: Books) -> None:
    """Compare entries, sums and the simulator's log and counters, to the token."""
    stats, calls = books.stack.ask("/_sim/stats"), books.calls()
    ledger = read_ledger(books.stack.redis.url, books.stack.namespace)
    rows = {row["call"]: row for row in ledger}
    assert len(rows) == len(ledger), "a call has two entries"
    completed = {call["attempt"]: call for call in calls if call["completed"]}
    assert completed.keys() <= rows.keys(), "a billed call has no entry"
    known = {name: row for name, row in rows.items() if row["outcome"] != "unknown"}
    assert known.keys() <= completed.keys(), "an entry says that a call was answered that was not"
    for name, row in known.items():
        assert tuple(row["tokens"][part] for part in ("input", "output", "cached")) == tokens(completed[name]), name
    unheard = {call["attempt"] for call in calls if call["completed"] and not call["delivered"]}
    assert {rows[name]["outcome"] for name in unheard} <= {"unknown"}
    assert unheard, "no fault cut an answer"

    total = books.report().total
    lost = [sum(part) for part in zip(*(tokens(completed[n]) for n in completed.keys() - known.keys()), strict=True)]
    told = stats["tokens"]
    assert total.input_tokens - total.guessed_input_tokens == told["prompt"] - lost[0]
    assert total.output_tokens - total.guessed_output_tokens == told["completion"] - lost[1]
    assert total.cached_tokens - total.guessed_cached_tokens == told["cached"] - lost[2]
    assert (total.calls, total.unknown) == (len(rows), len(rows) - len(known))
    assert total.failed > 0
    for by in ("model", "tier", "day", "tenant", "tag"):
        found = books.report(by)
        assert sum(one.pico_usd for one in found.groups.values()) == total.pico_usd, by
        assert sum(one.calls for one in found.groups.values()) == total.calls, by


def logs_agree(books: Books) -> None:
    """Compare the log over all its files with what Redis gives again: the same bytes, each entry once."""
    log = UsageLog(books.settings.usage_log_path, books.door.keys.ledger)
    booked = books.runner.run(command("XLEN", books.door.keys.ledger, parse=int))

    def written() -> bytes:
        return b"".join(path.read_bytes() for path in [*log.archives(), log.path] if path.exists())

    books.stack.until(lambda: written().count(b"\n") >= booked, "the usage log")
    again = books.stack.folder / "again.jsonl"
    command_line = [sys.executable, "-m", "vessel.cli.main", "usage", "--rebuild-log", str(again)]
    for code in (0, 2):
        done = subprocess.run(command_line, env=books.stack.environment(), capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
    assert again.read_bytes() == written()
    assert log.archives(), "the log was never put aside"


@pytest.mark.timeout(240)
@pytest.mark.system
def test_the_ledger_is_right_to_the_token(tmp_path: Path) -> None:
    """200 mixed jobs with faults and a kill; `make test-system` runs 5,000 and three."""
    with stack_for(tmp_path, VESSEL_USAGE_LOG_MAX_BYTES=str(ROTATED_AT)) as stack:
        campaign(stack, 200, 1)


@pytest.mark.system
@pytest.mark.timeout(1800)
def test_the_ledger_is_right_to_the_token_after_5000_jobs(tmp_path: Path) -> None:
    """5,000 mixed jobs with faults and three kills of workers."""
    with stack_for(tmp_path, VESSEL_USAGE_LOG_MAX_BYTES=str(20 * ROTATED_AT)) as stack:
        campaign(stack, 5000, 3)
