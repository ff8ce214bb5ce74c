"""The gate through `limits`: what a worker's start charged is what it shows, and what it takes the gate misses."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from limits import RateLimitItem, RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage, RedisStorage

from vessel.dispatch.ticket import template
from vessel.gate.limiter import NAMES, PERIOD_MS, Charge, configured, items_of
from vessel.gate.strategy import GateStrategy
from vessel.jobs.model import Hop
from vessel.jobs.record import NewJob, new_job_id
from vessel.jobs.steps import Answer, Held, Issue, Start
from vessel.jobs.store import JobStore
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import Keys, gate_keys
from vessel.registry import Limits
from vessel.wire import Priority

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from tests.conftest import RedisServer

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")

ORG, MODEL, TIER = "default", "openai/gpt-oss-120b", "power"
HOUR_MS = 3_600_000
LIMITS = Limits(rpm=30, rpd=1000, tpm=8000, tpd=200_000)
ITEMS = items_of(LIMITS)
_numbers = itertools.count(1)


@dataclass
class Gate:
    """A model's gate, used by workers and through `limits`."""

    server: RedisServer
    client: Any
    keys: Keys = field(default_factory=lambda: Keys(f"strategy{next(_numbers)}"))

    def __post_init__(self) -> None:
        """Open it in both ways."""
        self.runner = SyncRunner(self.client)
        self.store = JobStore(self.keys, template(), ttl_ms=HOUR_MS, lease_ms=HOUR_MS, org=ORG)
        storage = RedisStorage("redis://", connection_pool=self.client.connection_pool)
        self.limits = GateStrategy(storage, self.keys)
        self.key = gate_keys(self.keys, ORG, MODEL, "t").gate

    def freeze(self, **levels: float) -> None:
        """Write levels that nothing refills for an hour: the gate's clock is ahead."""
        seconds, _ = self.client.time()
        told = {f"l:{name}": level for name, level in levels.items()}
        told |= {f"k:{name}": getattr(LIMITS, name) for name in levels}
        self.client.hset(self.key, mapping=told | {"at": int(seconds) * 1000 + HOUR_MS})
        self.client.pexpire(self.key, HOUR_MS)

    def start(self, prompt: int, output: int, *, book_ms: int = 0) -> Answer:
        """Let a worker start a call."""
        job = NewJob(
            id=new_job_id(), tenant="t", priority=Priority.NORMAL, hops=(Hop(MODEL, TIER),), policy={}, reasons=(),
            body=b"{}", body_hash="h", estimated_tokens=prompt, deadline_ms=HOUR_MS,
        )  # fmt: skip
        self.runner.run(self.store.create(job, TIER, issue=Issue.TICKET))
        held = self.runner.run(self.store.claim(job.id, 0, TIER, "w/1"))
        assert isinstance(held, Held)
        charge = Charge(MODEL, ORG, configured(LIMITS), prompt, output)
        return self.runner.run(self.store.start(held, Start(1, "{}", "{}", TIER, charge, book_ms)))

    def left(self, *names: str) -> list[int]:
        """Show what `limits` says is left."""
        return [self.limits.get_window_stats(ITEMS[name], ORG, MODEL).remaining for name in names or tuple(ITEMS)]

    def hash(self) -> dict[bytes, bytes]:
        """Read what is stored."""
        found: dict[bytes, bytes] = self.client.hgetall(self.key)
        return found


@pytest.fixture
def gate(redis_server: RedisServer, redis_client: redis.Redis) -> Gate:
    """Give a fresh gate."""
    return Gate(redis_server, redis_client)


def test_an_unused_gate_is_full_and_stays_unwritten(gate: Gate) -> None:
    """Looking leaves nothing behind, not even a gate."""
    assert gate.left() == [30, 1000, 8000, 200_000]
    assert gate.limits.test(ITEMS["tpm"], ORG, MODEL, cost=8000)
    assert not gate.limits.test(ITEMS["tpm"], ORG, MODEL, cost=8001)
    assert gate.client.exists(gate.key) == 0


def test_what_a_start_charged_is_what_is_shown(gate: Gate) -> None:
    """One request and all its tokens, of each limit; looking changes nothing."""
    gate.freeze(rpm=30, rpd=1000, tpm=8000, tpd=200_000)
    assert gate.start(1000, 500).word == "started"
    before = gate.hash()

    assert gate.left() == [29, 999, 6500, 198_500]
    assert gate.hash() == before


def test_the_reset_is_when_the_bucket_is_full_again(gate: Gate) -> None:
    """Buckets refill continuously: half a minute's limit used is half a minute, by Redis' clock."""
    gate.freeze(tpm=4000)
    seconds, _ = gate.client.time()
    reset, remaining = gate.limits.get_window_stats(ITEMS["tpm"], ORG, MODEL)

    assert remaining == 4000
    assert 30 <= reset - int(seconds) < 60


def test_a_hit_makes_the_next_start_wait(gate: Gate) -> None:
    """What is taken through `limits` a worker does not get."""
    gate.freeze(rpm=30, rpd=1000, tpm=8000, tpd=200_000)
    assert gate.limits.hit(ITEMS["tpm"], ORG, MODEL, cost=7000)
    answer = gate.start(1000, 500)

    assert (answer.word, answer.limit) == ("wait", "tpm")
    assert gate.left() == [30, 1000, 1000, 200_000]
    assert gate.start(600, 400).word == "started"


def test_a_hit_is_all_or_nothing(gate: Gate) -> None:
    """One that is refused takes nothing; exactly what is left can be taken, once."""
    gate.freeze(tpm=1000)
    before = gate.hash()
    assert not gate.limits.hit(ITEMS["tpm"], ORG, MODEL, cost=1001)
    assert gate.hash() == before

    tried = [gate.limits.hit(ITEMS["tpm"], ORG, MODEL, cost=500) for _ in range(3)]
    assert tried == [True, True, False]
    assert gate.left("tpm") == [0]


def test_more_than_the_limit_is_never_taken(gate: Gate) -> None:
    """The largest hit is the whole bucket."""
    assert not gate.limits.hit(ITEMS["rpm"], ORG, MODEL, cost=31)
    assert gate.limits.hit(ITEMS["rpm"], ORG, MODEL, cost=30)


def test_a_hit_leaves_the_other_limits_as_they_are(gate: Gate) -> None:
    """They keep what was used of them and what they refilled since."""
    assert gate.start(4000, 3000).word == "started"
    seconds, _ = gate.client.time()
    gate.client.hset(gate.key, mapping={"at": int(seconds) * 1000 - PERIOD_MS["tpm"] // 2})
    (before,) = gate.left("tpm")
    assert gate.limits.hit(ITEMS["rpm"], ORG, MODEL)

    assert 5000 <= before <= gate.left("tpm")[0]
    assert gate.client.hget(gate.key, "k:tpd") == b"200000"


def test_what_is_booked_is_not_to_be_had(gate: Gate) -> None:
    """A hit does not overtake a call that was promised its start."""
    gate.freeze(rpm=30, rpd=1000, tpm=1000, tpd=200_000)
    assert gate.start(1500, 500, book_ms=HOUR_MS).word == "booked"

    assert gate.left("rpm", "tpm") == [29, 0]
    assert not gate.limits.hit(ITEMS["tpm"], ORG, MODEL)
    assert not gate.limits.hit(ITEMS["rpm"], ORG, MODEL, cost=30)
    assert gate.limits.hit(ITEMS["rpm"], ORG, MODEL, cost=29)


def test_a_limit_that_groq_told_counts(gate: Gate) -> None:
    """As for the workers: the item's amount is what is configured, and what was learned wins."""
    gate.freeze(tpm=8000)
    gate.client.hset(gate.key, "c:tpm", 6000)

    assert gate.left("tpm") == [6000]
    assert not gate.limits.hit(ITEMS["tpm"], ORG, MODEL, cost=6001)
    assert gate.limits.hit(ITEMS["tpm"], ORG, MODEL, cost=5999)
    assert gate.left("tpm") == [1]


def test_a_margin_is_kept_clear(gate: Gate) -> None:
    """What is free is what a hit takes, so the two agree."""
    gate.freeze(tpm=1000)
    gate.client.hset(gate.key, "m:tpm", 100)

    assert gate.left("tpm") == [900]
    assert not gate.limits.hit(ITEMS["tpm"], ORG, MODEL, cost=901)
    assert gate.limits.hit(ITEMS["tpm"], ORG, MODEL, cost=900)


def test_clearing_fills_one_bucket(gate: Gate) -> None:
    """The others keep what was used of them."""
    gate.freeze(rpm=3, tpm=10)
    gate.limits.clear(ITEMS["tpm"], ORG, MODEL)

    assert gate.left("rpm", "tpm") == [3, 8000]
    assert gate.start(4000, 4000).word == "started"


def test_every_gate_is_its_own(gate: Gate) -> None:
    """Organisations and models share nothing."""
    assert gate.limits.hit(ITEMS["rpm"], ORG, MODEL, cost=30)

    assert gate.limits.hit(ITEMS["rpm"], "other", MODEL, cost=30)
    assert gate.limits.hit(ITEMS["rpm"], ORG, "llama-3.3-70b-versatile", cost=30)
    assert not gate.limits.test(ITEMS["rpm"], ORG, MODEL, cost=30)


def test_each_limit_the_gate_has_can_be_asked(gate: Gate) -> None:
    """All six names, those without requests too."""
    limits = Limits(**dict.fromkeys(NAMES, 100))

    assert [gate.limits.hit(item, ORG, MODEL, cost=40) for item in items_of(limits).values()] == [True] * 6
    free = [gate.limits.get_window_stats(item, ORG, MODEL).remaining for item in items_of(limits).values()]
    assert all(60 <= left <= 100 for left in free)
    assert free[NAMES.index("rpd")] == 60


@pytest.mark.parametrize(
    ("item", "identifiers"),
    [
        (RateLimitItemPerMinute(10), (ORG, MODEL)),
        (RateLimitItemPerHour(10, namespace="tpm"), (ORG, MODEL)),
        (RateLimitItemPerMinute(10, 2, namespace="tpm"), (ORG, MODEL)),
        (ITEMS["tpm"], (MODEL,)),
        (ITEMS["tpm"], (ORG, MODEL, "more")),
    ],
)
def test_what_is_no_limit_of_a_gate_is_refused(gate: Gate, item: RateLimitItem, identifiers: Sequence[str]) -> None:
    """A mistaken item would otherwise count in a bucket that nobody looks at."""
    with pytest.raises(ValueError, match="gate"):
        gate.limits.hit(item, *identifiers)


def test_a_cost_below_zero_is_refused(gate: Gate) -> None:
    """Giving back is for a settlement, which knows what was charged."""
    with pytest.raises(ValueError, match="below zero"):
        gate.limits.hit(ITEMS["tpm"], ORG, MODEL, cost=-1)


def test_a_storage_that_is_not_redis_is_refused(gate: Gate) -> None:
    """The gate is nowhere else."""
    with pytest.raises(TypeError, match="MemoryStorage"):
        GateStrategy(MemoryStorage(), gate.keys)  # type: ignore[arg-type]


def test_a_storage_made_of_an_address_works(gate: Gate) -> None:
    """As whatever speaks `limits` makes it."""
    strategy = GateStrategy(RedisStorage(gate.server.url), gate.keys)

    assert strategy.hit(ITEMS["rpd"], ORG, MODEL, cost=1000)
    assert gate.left("rpd") == [0]
