"""Sums of the ledger for metrics: each entry once, whoever asks, also over restarts and half-read ledgers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import Keys
from vessel.usage import tally as tallying
from vessel.usage.tally import tally

if TYPE_CHECKING:
    import redis

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")
KEYS = Keys("tally")


def book(client: redis.Redis, model: str, cost: str = "0.00068", outcome: str = "succeeded", cached: int = 0) -> None:
    """Write a ledger entry as finish.lua does."""
    row = json.dumps({"model": model, "tokens": {"input": 100, "output": 20, "cached": cached}, "cost_usd": "@"})
    client.xadd(KEYS.ledger, {"call": "job_x/1", "outcome": outcome, "row": row.replace('"@"', cost)})


def test_sums_hold_each_entry_once(redis_client: redis.Redis) -> None:
    """Asking again adds nothing; what is new is added by model, outcome and kind, money exact to the nano-USD."""
    runner = SyncRunner(redis_client)
    assert runner.run(tally(KEYS)).calls == {}
    book(redis_client, "m", cached=64)
    book(redis_client, "m", cost="0.000000001")
    book(redis_client, "n", outcome="unknown")
    first, again = runner.run(tally(KEYS)), runner.run(tally(KEYS))
    assert first == again
    assert first.calls == {("m", "succeeded"): 2, ("n", "unknown"): 1}
    assert first.nano_usd == {("m", "succeeded"): 680_001, ("n", "unknown"): 680_000}
    assert first.tokens == {
        ("m", "input"): 200, ("m", "output"): 40, ("m", "cached"): 64, ("n", "input"): 100, ("n", "output"): 20,
    }  # fmt: skip
    assert first.cached == {"m": 1}
    redis_client.delete(KEYS.ledger)
    assert runner.run(tally(KEYS)).calls == first.calls


def test_a_long_ledger_is_added_in_pages_and_says_what_is_left(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call takes Redis a bounded time; it is told since when there is more."""
    monkeypatch.setattr(tallying, "AT_MOST", 3)
    for _ in range(7):
        book(redis_client, "m")
    runner = SyncRunner(redis_client)
    assert [runner.run(tally(KEYS)).behind > 0 for _ in range(3)] == [True, True, False]
    assert runner.run(tally(KEYS)).calls == {("m", "succeeded"): 7}


@pytest.mark.redis("valkey")
def test_many_who_ask_at_once_add_each_entry_once(redis_client: redis.Redis) -> None:
    """Several API processes may be scraped at the same moment."""
    for _ in range(300):
        book(redis_client, "m")
    runner = SyncRunner(redis_client)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: runner.run(tally(KEYS)), range(16)))
    assert runner.run(tally(KEYS)).calls == {("m", "succeeded"): 300}


def test_a_row_that_cannot_be_read_is_passed_over_and_models_are_bounded(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a broken row nor thousands of names may end or bloat the metrics."""
    monkeypatch.setattr(tallying, "MOST_FIELDS", 5)
    runner = SyncRunner(redis_client)
    redis_client.xadd(KEYS.ledger, {"outcome": "succeeded", "row": "{"})
    book(redis_client, "a|b")
    runner.run(tally(KEYS))
    book(redis_client, "a|b")
    book(redis_client, "new")
    assert runner.run(tally(KEYS)).calls == {("a_b", "succeeded"): 2, ("other", "succeeded"): 1}
