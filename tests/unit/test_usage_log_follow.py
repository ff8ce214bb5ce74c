"""`usage_log.jsonl`: one line for each ledger entry, never torn, never doubled, and the same when it is rebuilt."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest

from tests.waiting import wait_until_async
from vessel.keyspace.connect import AsyncRunner
from vessel.keyspace.script import word
from vessel.usage import log as usage_log
from vessel.usage.log import DAY_MS, Rotation, UsageLog, render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LEDGER = "ns:ledger"
SEEDS_LINE = '{"timestamp": "2025-10-05T12:00:00", "model": "m", "tokens": {"input": 1}, "cost_usd": 0.1}\n'


@pytest.fixture
async def runner() -> AsyncIterator[AsyncRunner]:
    """Give a runner over an empty server."""
    runner = AsyncRunner(fakeredis.FakeAsyncRedis(server=fakeredis.FakeServer()))
    yield runner
    await runner.close()


@pytest.fixture
def log(tmp_path: Path) -> UsageLog:
    """Name a log that is not there yet, in a folder that is not there yet."""
    return UsageLog(tmp_path / "var" / "usage_log.jsonl", LEDGER)


async def book(runner: AsyncRunner, call: str, outcome: str = "succeeded", **more: str) -> str:
    """Add a ledger entry."""
    row = json.dumps({"model": "é", "tokens": {"input": 1}, "cost_usd": 0.1, "job_id": call}, ensure_ascii=False)
    client: Any = runner.client  # redis-py's own annotations say that every answer may be None
    return word(await client.xadd(LEDGER, {"call": call, "outcome": outcome, "row": row, **more}))


def lines(log: UsageLog) -> list[dict[str, Any]]:
    """Read the file; each line must be whole."""
    data = log.path.read_bytes()
    assert not data or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


async def test_each_entry_is_one_line_in_the_seeds_format(runner: AsyncRunner, log: UsageLog) -> None:
    """Time first, as the seed has it, then the row, then outcome and entry."""
    entry = await book(runner, "job_1/1")
    await log.follow(runner)
    (line,) = lines(log)
    assert list(line) == ["timestamp", "model", "tokens", "cost_usd", "job_id", "outcome", "entry"]
    assert (line["outcome"], line["entry"], line["model"]) == ("succeeded", entry, "é")
    assert log.path.stat().st_mode & 0o777 == 0o600


async def test_following_again_adds_only_what_is_new(runner: AsyncRunner, log: UsageLog) -> None:
    """A new follower starts where the file ends; the file is its own cursor."""
    for number in range(3):
        await book(runner, f"job_{number}/1")
        assert not await UsageLog(log.path, LEDGER).follow(runner)
        assert not await UsageLog(log.path, LEDGER).follow(runner)
    assert [line["job_id"] for line in lines(log)] == ["job_0/1", "job_1/1", "job_2/1"]


async def test_more_than_a_page_is_followed_in_steps(
    runner: AsyncRunner, log: UsageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long ledger is read page by page, and says so while there is more."""
    monkeypatch.setattr(usage_log, "PAGE", 4)
    monkeypatch.setattr(usage_log.entries, "__defaults__", (4,))
    for number in range(10):
        await book(runner, f"job_{number}/1")
    assert [await log.follow(runner) for _ in range(4)] == [True, True, False, False]
    assert len(lines(log)) == 10


@pytest.mark.parametrize("kept", [0, 1, 20, -2, -1])
async def test_a_torn_line_is_cut_and_written_anew(runner: AsyncRunner, log: UsageLog, kept: int) -> None:
    """Wherever the power failed within a line, the file ends whole and complete."""
    await book(runner, "job_1/1")
    await log.follow(runner)
    whole = log.path.read_bytes()
    await book(runner, "job_2/1")
    await log.follow(runner)
    second = log.path.read_bytes()[len(whole) :]
    log.path.write_bytes(whole + second[:kept])
    await log.follow(runner)
    assert log.path.read_bytes() == whole + second


async def test_a_line_from_the_future_holds_nothing_up(runner: AsyncRunner, log: UsageLog) -> None:
    """Of another ledger, or of a clock that was wrong: what is written now comes behind it, each entry once."""
    for number in range(3):
        await book(runner, f"job_{number}/1")
        await log.follow(runner)
        with log.path.open("ab") as file:
            file.write(b'{"model":"x","job_id":"foreign","entry":"99999999999999-0"}\n')
        await log.follow(runner)
    assert [line["job_id"] for line in lines(log)] == [
        "job_0/1", "foreign", "job_1/1", "foreign", "job_2/1", "foreign",
    ]  # fmt: skip


async def test_zeros_from_a_power_loss_are_cut(runner: AsyncRunner, log: UsageLog) -> None:
    """A file system may leave zeros where a line was going to be."""
    await book(runner, "job_1/1")
    await log.follow(runner)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + bytes(300))
    await log.follow(runner)
    assert log.path.read_bytes() == whole


async def test_a_write_that_fails_doubles_nothing(
    runner: AsyncRunner, log: UsageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash after the write and before anything else: the next follower sees the lines that are there."""
    await book(runner, "job_1/1")
    await book(runner, "job_2/1")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="space"):
        await log.follow(runner)
    monkeypatch.undo()
    await log.follow(runner)
    assert [line["job_id"] for line in lines(log)] == ["job_1/1", "job_2/1"]


async def test_a_second_writer_waits_its_turn(runner: AsyncRunner, log: UsageLog) -> None:
    """While another process holds the file nothing is written, and nothing is lost."""
    await book(runner, "job_1/1")
    await log.follow(runner)
    await book(runner, "job_2/1")
    with log.path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert not await log.follow(runner)
        assert len(lines(log)) == 1
    await log.follow(runner)
    assert len(lines(log)) == 2


async def test_a_writer_that_opened_the_old_file_writes_nothing(
    runner: AsyncRunner, log: UsageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its opening and its lock the file was rebuilt: what it holds is not the log any more."""
    await book(runner, "job_1/1")
    await log.follow(runner)
    await book(runner, "job_2/1")
    old = log.path.with_suffix(".old")
    lock = fcntl.flock

    def swap(file: Any, how: int) -> None:
        os.link(log.path, old)
        new = log.path.with_suffix(".new")
        new.write_bytes(log.path.read_bytes())
        new.replace(log.path)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", swap)
    assert not await log.follow(runner)
    monkeypatch.undo()
    assert len(old.read_bytes().splitlines()) == 1
    await log.follow(runner)
    assert len(lines(log)) == 2


async def test_what_redis_gives_again_has_the_same_bytes(runner: AsyncRunner, log: UsageLog) -> None:
    """Redis decides, and it decides the same again: each entry has one line that never changes."""
    for number in range(5):
        await book(runner, f"job_{number}/1", "unknown" if number % 2 else "succeeded")
        await log.follow(runner)
    again = b"".join(render(*entry) for entry in await runner.run(usage_log.entries(LEDGER, "")))
    assert again == log.path.read_bytes()
    log.path.unlink()
    await log.follow(runner)
    assert again == log.path.read_bytes()


async def followed(log: UsageLog, runner: AsyncRunner) -> None:
    """Follow until nothing more comes."""
    while await log.follow(runner):
        pass


def archived(log: UsageLog) -> list[str]:
    """Read the jobs of all lines, those of full files first."""
    data = b"".join(path.read_bytes() for path in [*log.archives(), log.path])
    return [json.loads(line)["job_id"] for line in data.splitlines()]


@pytest.mark.parametrize("max_bytes", [1, 300, 400, 10_000])
async def test_a_full_file_is_put_aside(runner: AsyncRunner, log: UsageLog, max_bytes: int) -> None:
    """Whatever the size, each entry is in one file once, no file but that of a single line is larger, order stays."""
    log.rotation = Rotation(max_bytes)
    names = [f"job_{number}/1" for number in range(7)]
    for name in names[:4]:
        await book(runner, name)
    await followed(log, runner)
    for name in names[4:]:
        await book(runner, name)
        await followed(log, runner)
        await followed(UsageLog(log.path, LEDGER, log.rotation), runner)
    assert archived(log) == names
    sizes = [(path.stat().st_size, path.read_bytes().count(b"\n")) for path in log.archives()]
    assert all(size <= max_bytes or count == 1 for size, count in sizes)
    assert bool(sizes) == (max_bytes < 10_000)


async def test_a_crash_between_two_files_doubles_nothing(runner: AsyncRunner, log: UsageLog) -> None:
    """The new file was not there yet, or was empty: the full one says where to go on."""
    log.rotation = Rotation(max_bytes=1)
    await book(runner, "job_0/1")
    await book(runner, "job_1/1")
    assert await log.follow(runner)
    assert not log.path.exists()
    log.path.touch()
    await followed(log, runner)
    assert archived(log) == ["job_0/1", "job_1/1"]


async def test_full_files_may_be_taken_away(runner: AsyncRunner, log: UsageLog) -> None:
    """The log itself holds the cursor: what was moved to an archive is not written again."""
    log.rotation = Rotation(max_bytes=1)
    for number in range(3):
        await book(runner, f"job_{number}/1")
    await followed(log, runner)
    for path in log.archives():
        path.unlink()
    await book(runner, "job_3/1")
    await followed(log, runner)
    (aside,) = log.archives()
    assert archived(log) == ["job_2/1", "job_3/1"]
    assert aside.read_bytes().count(b"\n") == 1


async def test_a_new_day_begins_a_new_file(runner: AsyncRunner, log: UsageLog) -> None:
    """Days are those of UTC; the file is named by its last line."""
    client: Any = runner.client
    row = {"call": "x", "outcome": "succeeded", "row": '{"job_id":"x"}'}
    for at in (DAY_MS - 2, DAY_MS - 1, DAY_MS, DAY_MS + 5):
        await client.xadd(LEDGER, row, id=f"{at}-0")
    log.rotation = Rotation(daily=True)
    await followed(log, runner)
    (full,) = log.archives()
    assert full.name == "usage_log.19700101T235959999-0000.jsonl"
    assert (full.read_bytes().count(b"\n"), len(lines(log))) == (2, 2)


async def test_an_amended_entry_goes_from_a_full_file(runner: AsyncRunner, log: UsageLog) -> None:
    """The guess lay in a file that was put aside: its line goes, the others stay byte for byte."""
    log.rotation = Rotation(max_bytes=1)
    await book(runner, "job_0/1")
    guess = await book(runner, "job_1/1", "unknown")
    await book(runner, "job_2/1")
    await followed(log, runner)
    first = log.archives()[0].read_bytes()
    await runner.client.xdel(LEDGER, guess)
    await book(runner, "job_1/1", "orphaned", amends=guess)
    await followed(log, runner)
    assert archived(log) == ["job_0/1", "job_2/1", "job_1/1"]
    assert log.archives()[0].read_bytes() == first


async def test_files_that_were_full_before_a_guess_are_not_searched(
    runner: AsyncRunner, log: UsageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There may be gigabytes of them."""
    log.rotation = Rotation(daily=True)
    client: Any = runner.client
    row = {"outcome": "succeeded", "row": '{"job_id":"x"}'}
    for at in (1, DAY_MS + 1, DAY_MS + 2, 2 * DAY_MS):
        await client.xadd(LEDGER, row, id=f"{at}-0")
    await followed(log, runner)
    await client.xdel(LEDGER, f"{DAY_MS + 1}-0")
    await client.xadd(LEDGER, row | {"amends": f"{DAY_MS + 1}-0"}, id=f"{2 * DAY_MS + 1}-0")
    searched: list[str] = []
    without = usage_log._without

    def search(path: Path, gone: Any) -> bool:
        searched.append(path.name)
        return without(path, gone)

    monkeypatch.setattr(usage_log, "_without", search)
    await followed(log, runner)
    assert searched == ["usage_log.19700102T000000002-0000.jsonl", "usage_log.jsonl"]
    assert len(archived(log)) == 4


async def test_a_slow_disk_holds_up_nothing_else(
    runner: AsyncRunner, log: UsageLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls and leases of the process go on; who is cancelled keeps the file locked until it is written."""
    await book(runner, "job_0/1")
    begun, may_end = threading.Event(), threading.Event()

    def fsync(_descriptor: int) -> None:
        begun.set()
        assert may_end.wait(20), "the loop stood still"

    monkeypatch.setattr(os, "fsync", fsync)
    writing = asyncio.ensure_future(log.follow(runner))
    await wait_until_async(lambda: asyncio.sleep(0, begun.is_set()))
    writing.cancel()
    await asyncio.sleep(0)
    assert not await UsageLog(log.path, LEDGER).follow(runner)
    assert not writing.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await log.follow(runner)
    assert [line["job_id"] for line in lines(log)] == ["job_0/1"]


async def test_written_tells_what_is_safe(runner: AsyncRunner, log: UsageLog) -> None:
    """Nothing while another writer is at it; else the last entry, also where it was written before."""
    entry = await book(runner, "job_0/1")
    await log.follow(runner)
    assert log.written == entry
    other = UsageLog(log.path, LEDGER)
    await other.follow(runner)
    assert other.written == entry
    with log.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        await other.follow(runner)
    assert other.written == ""


async def test_an_amended_entry_replaces_its_line(runner: AsyncRunner, log: UsageLog) -> None:
    """The guess is gone from the ledger, so it goes from the file; the other lines stay byte for byte."""
    await book(runner, "job_0/1")
    guess = await book(runner, "job_1/1", "unknown")
    await book(runner, "job_2/1")
    await log.follow(runner)
    first, _, third = log.path.read_bytes().splitlines()
    await runner.client.xdel(LEDGER, guess)
    await book(runner, "job_1/1", "orphaned", amends=guess)
    await followed(log, runner)
    assert log.path.read_bytes().splitlines()[:2] == [first, third]
    assert [(line["job_id"], line["outcome"]) for line in lines(log)][2] == ("job_1/1", "orphaned")
    before = log.path.read_bytes()
    assert not await log.follow(runner)
    assert log.path.read_bytes() == before


async def test_an_amended_entry_that_was_never_written_is_written_once(runner: AsyncRunner, log: UsageLog) -> None:
    """Guess and truth came between two looks."""
    guess = await book(runner, "job_1/1", "unknown")
    await runner.client.xdel(LEDGER, guess)
    await book(runner, "job_1/1", "succeeded", amends=guess)
    await log.follow(runner)
    assert [line["outcome"] for line in lines(log)] == ["succeeded"]


@pytest.mark.parametrize("foreign", [SEEDS_LINE, "not json\n", '"entry"\n', "\n\n", SEEDS_LINE * 2000])
async def test_lines_of_another_program_are_stepped_over(runner: AsyncRunner, log: UsageLog, foreign: str) -> None:
    """A seed's own log, or what someone appended, neither stops the log nor makes it start again."""
    log.path.parent.mkdir(parents=True)
    log.path.write_text(foreign, encoding="utf-8")
    await book(runner, "job_1/1")
    await log.follow(runner)
    with log.path.open("a", encoding="utf-8") as other:
        other.write(foreign)
    await book(runner, "job_2/1")
    await log.follow(runner)
    await log.follow(runner)
    text = log.path.read_text(encoding="utf-8")
    assert text.startswith(foreign)
    assert [text.count(f'"job_id": "job_{n}/1"') for n in (1, 2)] == [1, 1]


async def test_an_empty_ledger_makes_an_empty_log(runner: AsyncRunner, log: UsageLog) -> None:
    """Nothing was called, nothing is said; a file is there to be watched."""
    assert not await log.follow(runner)
    assert log.path.read_bytes() == b""


def test_a_line_keeps_the_rows_own_numbers() -> None:
    """A cost is written as its digits, not as the nearest float; the time is Redis' own, to the millisecond."""
    row = b'{"cost_usd":0.00000012345678901234567890,"n":100000000000000000000000000001}'
    line = render("1700000000000-5", {"row": row, "outcome": b"succeeded"})
    assert line == (
        b'{"timestamp":"2023-11-14T22:13:20.000Z","cost_usd":0.00000012345678901234567890,'
        b'"n":100000000000000000000000000001,"outcome":"succeeded","entry":"1700000000000-5"}\n'
    )
