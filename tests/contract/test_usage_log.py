"""`usage_log.jsonl` has one whole line for each ledger entry, whatever happened to the file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from vessel.usage.log import PAGE, UsageLog

if TYPE_CHECKING:
    from pathlib import Path

    from tests.contract.world import World
    from vessel.keyspace.connect import AsyncRunner

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")
SEEDS_LINE = b'{"timestamp":"2025-10-01T00:00:00","model":"llama-3.1-8b-instant","cost_usd":0.1}\n'


@pytest.fixture
def usage(world: World, tmp_path: Path) -> UsageLog:
    """Give a log that has no file yet."""
    return UsageLog(tmp_path / "deep" / "usage_log.jsonl", world.keys.ledger)


def book(world: World, number: int, **more: str) -> str:
    """Write a ledger entry."""
    fields: dict[Any, Any] = {"call": f"job/{number}", "outcome": "succeeded", "row": f'{{"attempt":{number}}}'} | more
    entry: bytes = world.client.xadd(world.keys.ledger, fields)
    return entry.decode()


def lines(usage: UsageLog) -> list[dict[str, Any]]:
    """Read the file; a torn line is an error."""
    text = usage.path.read_text("utf-8")
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def attempts(usage: UsageLog) -> list[int]:
    """Name the entries in the file by their attempts."""
    return [line["attempt"] for line in lines(usage) if "attempt" in line]


async def test_each_entry_is_one_line_in_order(world: World, runner: AsyncRunner, usage: UsageLog) -> None:
    """Following again adds what is new and nothing else."""
    for number in (1, 2):
        book(world, number)
    await usage.follow(runner)
    await usage.follow(runner)
    book(world, 3)
    await usage.follow(runner)

    assert attempts(usage) == [1, 2, 3]
    assert {"timestamp", "outcome", "entry", "attempt"} == set(lines(usage)[0])


@pytest.mark.parametrize("cut", [1, 10, 60])
async def test_a_torn_line_is_written_again(world: World, runner: AsyncRunner, usage: UsageLog, cut: int) -> None:
    """A writer that died in mid-line leaves nothing torn and nothing doubled."""
    for number in (1, 2):
        book(world, number)
    await usage.follow(runner)
    whole = usage.path.read_bytes()
    usage.path.write_bytes(whole[:-cut])
    await usage.follow(runner)

    assert usage.path.read_bytes() == whole


async def test_a_lost_file_is_written_again(world: World, runner: AsyncRunner, usage: UsageLog) -> None:
    """Redis decides, over as many pages as there are, and gives the same bytes."""
    for number in range(PAGE + 1):
        book(world, number)
    assert await usage.follow(runner)
    assert not await usage.follow(runner)
    before = usage.path.read_bytes()
    usage.path.unlink()
    while await usage.follow(runner):
        pass

    assert usage.path.read_bytes() == before


async def test_an_amended_entry_replaces_its_line(world: World, runner: AsyncRunner, usage: UsageLog) -> None:
    """A guess that was written is gone once the truth is known."""
    guess = book(world, 1, outcome="unknown")
    await usage.follow(runner)
    world.client.xdel(world.keys.ledger, guess)
    book(world, 1, amends=guess)
    while await usage.follow(runner):
        pass

    assert [(line["attempt"], line["outcome"]) for line in lines(usage)] == [(1, "succeeded")]


async def test_lines_of_another_program_stay(world: World, runner: AsyncRunner, usage: UsageLog) -> None:
    """The seed's own history is kept; Redis could not give it back."""
    usage.path.parent.mkdir(parents=True)
    usage.path.write_bytes(SEEDS_LINE * 3)
    book(world, 1)
    await usage.follow(runner)
    book(world, 2)
    await usage.follow(runner)

    assert usage.path.read_bytes().startswith(SEEDS_LINE * 3)
    assert (len(lines(usage)), attempts(usage)) == (5, [1, 2])


async def test_two_writers_never_double_a_line(world: World, runner: AsyncRunner, usage: UsageLog) -> None:
    """Whoever finds the file locked leaves it alone."""
    book(world, 1)
    other = UsageLog(usage.path, usage.ledger)
    with usage._locked() as file:
        assert file is not None
        assert not await other.follow(runner)
        assert not other.level
    await other.follow(runner)
    assert other.level

    assert attempts(usage) == [1]
