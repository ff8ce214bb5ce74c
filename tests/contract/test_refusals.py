"""What was refused is kept by hour for a day; what calls under way may cost is read off the gates."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from vessel.client.steps import Run, drive
from vessel.client.under_way import reserved_nano
from vessel.gate import refusals
from vessel.gate.refusals import GATE, HOUR_MS, Kind, Refused, note, read
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import Keys
from vessel.settings import load_settings
from vessel.submit import Door

if TYPE_CHECKING:
    import redis

    from vessel.client.steps import Effect

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")
KEYS = Keys("refusals")
TPM, SAID = Kind(GATE, "tpm", "m/a"), Kind("groq", "rpm", "m/a")


def now_ms(client: redis.Redis) -> int:
    """Ask for Redis' time."""
    return int(client.time()[0]) * 1000


def test_refusals_add_up_by_hour_and_day(redis_client: redis.Redis) -> None:
    """Those of the hour under way come first; an hour that is over for a day is not told, and goes with the next."""
    runner, now = SyncRunner(redis_client), now_ms(redis_client)
    hour = now // HOUR_MS
    redis_client.hset(KEYS.refusals, mapping={
        "hour": hour - 1, f"{hour - 1}|gate|tpm|m/a": 5, f"{hour - 23}|gate|rpd|m/b": 7,
        f"{hour - 24}|gate|tpm|m/a": 90,
    })  # fmt: skip
    runner.run(note(KEYS, Counter({TPM: 2, SAID: 1})))
    runner.run(note(KEYS, Counter({TPM: 1})))
    assert runner.run(read(KEYS, now)) == [
        Refused(TPM, 3, 8, hour * HOUR_MS), Refused(SAID, 1, 1, hour * HOUR_MS),
        Refused(Kind(GATE, "rpd", "m/b"), 0, 7, (hour - 23) * HOUR_MS),
    ]  # fmt: skip
    assert not redis_client.hexists(KEYS.refusals, f"{hour - 24}|gate|tpm|m/a")
    assert 0 < redis_client.pttl(KEYS.refusals) <= 25 * HOUR_MS


def test_refusals_take_bounded_room(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many kinds, new ones are counted together."""
    monkeypatch.setattr(refusals, "MOST_FIELDS", 4)
    runner = SyncRunner(redis_client)
    for number in range(20):
        runner.run(note(KEYS, Counter({Kind(GATE, "tpm", f"m/{number}"): 1})))
    found = runner.run(read(KEYS, now_ms(redis_client)))
    assert [(one.kind.model, one.day) for one in found] == [("other", 17), ("m/0", 1), ("m/1", 1), ("m/2", 1)]


def test_what_calls_under_way_reserve_is_summed(redis_client: redis.Redis) -> None:
    """Of every gate, the failover's too; a call whose time is over, and one without a record, count nothing."""
    door = Door(load_settings({}, redis_url="redis://localhost", namespace="refusals", failover_model="gpt-x",
                              openai_base_url="http://localhost:1/v1", openai_api_key="k"))  # fmt: skip
    runner, now = SyncRunner(redis_client), now_ms(redis_client)
    gates = ("default:openai/gpt-oss-20b", "default:openai/gpt-oss-120b#flex", "@openai:openai:gpt-x")
    for number, gate in enumerate(gates):
        row = json.dumps({"worst_nano_usd": 10**number})
        redis_client.hset(door.keys.job(f"job_{number}"), "a:2", row)
        key = door.keys.inflight(*gate.split(":", 1))
        redis_client.zadd(
            key, {f"job_{number}/2": now + 60_000, "job_gone/1": now + 60_000, f"job_{number}/1": now - 1}
        )
        for written in (key, door.keys.job(f"job_{number}")):
            redis_client.pexpire(written, 60_000)

    def perform(effect: Effect) -> Any:
        assert isinstance(effect, Run)
        return runner.run_all(effect.calls)

    assert drive(reserved_nano(door), perform) == 111
