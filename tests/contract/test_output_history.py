"""A model's history in Redis: it counts, it forgets by halves, and it goes away by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vessel.gate import history
from vessel.gate.history import KINDS, LEAST_ANSWERS, LEAST_CAP, TTL_MS, bucket_of, learned_cap, observe, read_history
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import Keys

if TYPE_CHECKING:
    import redis

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")

KEY = Keys("history").output("default", "openai/gpt-oss-120b")
KIND, OTHER = "qa.text", "extraction.json"


@pytest.fixture
def runner(redis_client: redis.Redis) -> SyncRunner:
    """Run calls on an empty server."""
    return SyncRunner(redis_client)


def count(runner: SyncRunner, kind: str, *lengths: int) -> list[float]:
    """Count answers of these lengths."""
    return runner.run_all([observe(KEY, kind, length) for length in lengths])


def test_nothing_is_known_before_the_first_answer(runner: SyncRunner) -> None:
    """A model nobody has called has no history, and asking leaves none behind."""
    assert runner.run(read_history(KEY)) == {}
    assert runner.client.exists(KEY) == 0


def test_answers_are_counted_by_kind_and_length(runner: SyncRunner) -> None:
    """What is read is what was counted, each kind apart."""
    assert count(runner, KIND, 5, 5, 700) == [1, 2, 3]
    assert count(runner, OTHER, 90) == [1]

    assert runner.run(read_history(KEY)) == {
        KIND: {bucket_of(5): 2, bucket_of(700): 1},
        OTHER: {bucket_of(90): 1},
    }


def test_a_history_lives_for_a_month_from_its_last_answer(runner: SyncRunner) -> None:
    """Each answer renews it."""
    count(runner, KIND, 5)
    runner.client.pexpire(KEY, 1000)
    count(runner, KIND, 5)

    assert runner.client.pttl(KEY) > TTL_MS - 60_000


def test_enough_answers_make_a_bound(runner: SyncRunner) -> None:
    """From the two hundredth short answer on, the next one is not given the default."""
    count(runner, KIND, *[7] * LEAST_ANSWERS)

    assert learned_cap(runner.run(read_history(KEY))[KIND], 2048) == LEAST_CAP


def test_an_old_answer_is_forgotten_at_its_third_halving(runner: SyncRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long answer holds the bound up for a while, not for ever; other kinds are left alone."""
    monkeypatch.setattr(history, "HALVED_AT", 10)
    count(runner, OTHER, 3000)
    seen = []
    assert count(runner, KIND, 3000, *[5] * 9)[-1] == 5
    for _ in range(3):
        seen.append(runner.run(read_history(KEY))[KIND].get(bucket_of(3000)))
        count(runner, KIND, *[5] * 5)

    assert seen == [0.5, 0.25, None]
    assert runner.run(read_history(KEY))[OTHER] == {bucket_of(3000): 1}


def test_a_hash_is_bounded(runner: SyncRunner) -> None:
    """Every kind at every length, and answers of nonsense lengths, make no more fields than there are buckets."""
    for kind in sorted(KINDS):
        count(runner, kind, *(2 ** (i // 2) for i in range(0, 80, 4)), 10**15, 0)

    assert int(str(runner.client.hlen(KEY))) <= len(KINDS) * (history.LAST_BUCKET + 2)
