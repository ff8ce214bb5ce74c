"""The sums that are kept with the ledger say what its entries say, through amendments, rolls and trimming."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.books import Books, backdated, row
from tests.contract.world import ROW, charge
from vessel.client.steps import Run, drive
from vessel.client.usage import Span, counted, report
from vessel.jobs.steps import ORPHANED, UNKNOWN, Ending, Final, Start, Wait
from vessel.maintain.accounts import Accountant
from vessel.settings import load_settings
from vessel.submit import Door
from vessel.usage.sums import DAY_MS, HOUR_MS, summed
from vessel.wire import JobState

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.client.steps import Effect
    from vessel.keyspace.connect import AsyncRunner

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


@pytest.fixture
def books(redis_client: Any) -> Books:
    """Give an empty server."""
    return Books(redis_client)


def test_sums_are_exact_and_by_every_group(books: Books) -> None:
    """Half nano-USD add up; a tag that looks like a cost does not count; who has no tag is counted as such."""
    books.called(row())
    books.called(row(tags={"team": "a", '"cost_usd":9': 'x","cost_usd":9.0'}))
    books.called(row("12.000000000001", tenant="other", tier="power", tags={"team": "a"}))
    total = books.agree()
    assert total.cost_usd == Decimal("12.000075025001")
    assert (total.calls, total.input_tokens, total.cached_tokens, total.output_tokens) == (3, 900, 60, 150)
    by_tag = books.report(by="tag", since=0)
    assert {name: one.calls for name, one in by_tag.groups.items() if name in {"-", "team=a"}} == {"-": 1, "team=a": 2}
    assert by_tag.total.calls == 3
    assert list(books.report(by="tenant", since=0, tenant="other").groups) == ["other"]


def test_an_amended_guess_leaves_nothing_in_the_sums(books: Books) -> None:
    """A cut call counts at its guess, and once its answer has come only at what that says."""
    total = books.agree()
    for label in (JobState.SUCCEEDED, ORPHANED):
        held = books.claim(books.queued(), lapsed=True)
        guess = row("0.5", estimated=True, tags={"team": "a"})
        start = Start(1, '{"model":"m","tier":"t","worker":"w","worst_nano_usd":7}', guess, "t", charge(rpd=10**6), 0)
        books.run(books.store.start(held, start))
        books.rescue(held.job)
        total = books.agree()
        assert (total.unknown, total.guessed_pico_usd) == (1, 5 * 10**11)
        if label == ORPHANED:
            books.run(books.store.cancel(books.job(held.job.id)))
        books.finish(held, (Ending(1, JobState.SUCCEEDED, "{}", row()), Final(JobState.SUCCEEDED, valid=True)))
        total = books.agree()
        assert (total.unknown, total.guessed_pico_usd, total.estimated) == (0, 0, 0)
    assert (total.calls, total.orphaned, total.cost_usd) == (2, 1, 2 * Decimal("0.0000375125"))


@pytest.mark.parametrize("cut_by", ["a rescue", "an answer out of a lost lease"])
def test_a_guess_that_cost_nothing_leaves_nothing(books: Books, cut_by: str) -> None:
    """A call was booked as unknown and is refused after all: its entry is amended at no cost, once."""
    first = books.claim(books.queued(), lapsed=True)
    guess = row("0.5", estimated=True, tags={"team": "a"})
    books.run(books.store.start(first, Start(1, ROW, guess, "t", charge(rpd=10**6), 0)))
    books.rescue(first.job)
    refused = first
    if cut_by != "a rescue":
        refused = books.claim(first.job, "w/2")
        books.run(books.store.start(refused, Start(2, ROW, guess, "t", charge(rpd=10**6), 0)))
        books.finish(first, (Ending(1, JobState.SUCCEEDED, "{}", row("0.25")), Final(JobState.SUCCEEDED, valid=True)))
    assert books.agree().unknown == 1
    for _ in range(2):
        books.run(books.store.park(refused, Ending(1 if refused is first else 2, "rate_limited", '{"status":429}'), 0,
                                   Wait(1, "quota")))  # fmt: skip
    total = books.agree()
    assert (total.unknown, total.guessed_pico_usd, total.estimated, total.failed) == (0, 0, 0, 1)
    assert total.cost_usd == (0 if cut_by == "a rescue" else Decimal("0.25"))
    (free,) = [entry for entry in books.ledger() if entry["outcome"] == "failed"]
    assert "amends" in free
    assert json.loads(free["row"]) == json.loads(guess) | {
        "cost_usd": 0, "estimated": False, "tokens": {"input": 0, "output": 0, "cached": 0}}  # fmt: skip
    books.run(books.store.cancel(books.job(first.job.id)))
    assert books.job(first.job.id).cost_usd == 0


async def test_rolled_sums_say_the_same(books: Books, runner: AsyncRunner, tmp_path: Path) -> None:
    """Hours that are over move to their days; reports of any span agree with the entries before and after."""
    backdated(books, 60, 47, 25, 24, 3, 1, 0)
    before = books.agree()
    accountant = Accountant(Door(load_settings({}, namespace=books.keys.namespace, data_dir=tmp_path)), runner)
    await accountant.keep()
    await accountant.keep()
    assert books.agree() == before
    assert before.calls == 7
    hour = books.now_ms() // HOUR_MS
    assert {int(f.split(b"|")[0]) for f in books.client.hkeys(books.keys.sums("sums"))} <= {hour, hour - 1}
    now = books.now_ms()
    for since, until in ((61, 24), (48, 2), (25, 0), (3, 1), (60.5, 46.5), (24.5, 24.2)):
        span = Span(int(now - since * HOUR_MS), int(now - until * HOUR_MS))
        for by in ("model", "tag"):
            told = summed(books.ask(counted(books.door, [span], by)), by)
            assert books.report(by=by, since=span.since, until=span.until).groups == told, (since, until, by)


async def test_trimming_keeps_the_sums_and_what_is_not_written(
    books: Books, runner: AsyncRunner, tmp_path: Path
) -> None:
    """Entries beyond retention go once the usage log has them; the days' sums stay, and a report says its span."""
    backdated(books, 70, 30, 0)
    settings = load_settings({}, namespace=books.keys.namespace, data_dir=tmp_path, ledger_retention=1)
    accountant = Accountant(Door(settings), runner)
    await accountant.keep()
    assert len(books.ledger()) == 3
    await accountant.write()
    await accountant.keep()
    assert len(books.ledger()) == 1
    assert settings.usage_log_path.read_bytes().count(b"\n") == 3
    now = books.now_ms()
    found = books.report(since=now - 71 * HOUR_MS)
    assert (found.total.calls, found.since) == (3, (now - 71 * HOUR_MS) // DAY_MS * DAY_MS)
    tags = books.report(since=now - 71 * HOUR_MS, by="tag")
    assert tags.since > found.since
    assert tags.total.calls == 1


def test_too_many_tags_are_counted_in_the_ledger(books: Books) -> None:
    """Where an hour has more tags than are summed the report reads entries instead, and is as exact."""
    books.client.hset(books.keys.sums("tags"), f"{books.now_ms() // HOUR_MS}|size||", 1000)
    books.called(row(tags={"job": "1"}))
    books.called(row(tags={"job": "2"}))
    found = books.report(by="tag", since=0)
    assert {name: one.calls for name, one in found.groups.items()} == {"job=1": 1, "job=2": 1}


def test_a_read_while_sums_move_is_read_again(books: Books) -> None:
    """A roll between two reads would be seen as twice or not at all; its count tells."""
    books.called(row())
    rolls: list[int] = []

    def perform(effect: Effect) -> Any:
        assert isinstance(effect, Run)
        answer = books.runner.run_all(effect.calls)
        names = [str(part) for call in effect.calls for part in call.command]
        if books.keys.sums("sums") in names and len(rolls) < 2:
            rolls.append(books.client.hincrby(books.keys.ledger_log, "rolls", 1))
        return answer

    assert drive(report(books.door, since=0), perform).total.calls == 1
    assert len(rolls) == 2


def test_nothing_was_called(books: Books) -> None:
    """An empty ledger gives an empty report without a saving."""
    found = books.report()
    assert (found.groups, found.total.calls, found.saving) == ({}, 0, None)
    assert UNKNOWN in found.as_dict()["total"]
