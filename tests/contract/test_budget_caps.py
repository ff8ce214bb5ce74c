"""Spend caps: no interleaving of calls spends more, what never fits is refused at once, a cap nearly used is told."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from tests.contract.world import HOUR_MS, World, charge, cut
from vessel.batches.model import StoredFile, checked_cap
from vessel.batches.store import NewBatch
from vessel.client.batching import _policy
from vessel.control import set_budget
from vessel.errors import InvalidRequest
from vessel.gate.limiter import GiveBack
from vessel.jobs.steps import NO_ATTEMPT, Ending, Final, Held, Wait
from vessel.keyspace.script import command
from vessel.settings import load_settings
from vessel.submit import Door
from vessel.usage.budgets import SpendEvent, read_budget, spend_events
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from tests.conftest import RedisServer

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")
NANO = 10**9
SUBMITTERS = 64
RANGES = ((0, 7), (1, 120), (0, 120))
"""Of a step: which of eight workers, the worst case, and what it cost."""


def dear(nano: int) -> Any:
    """Charge a call by its worst case, at a gate without limits in the way."""
    return charge(rpd=10**6, nano_usd=nano)


def ended(held: Held, reserved: int, spent: int) -> tuple[Ending, Final]:
    """Build the ending of a call that cost so much of what was reserved."""
    row = f'{{"status":200,"cost_nano_usd":{spent}}}'
    ledger = f'{{"cost_usd":{Decimal(spent).scaleb(-9):f},"tenant":"{held.job.tenant}"}}'
    ending = Ending(1, JobState.SUCCEEDED, row, ledger, dear(reserved), GiveBack(nano_usd=reserved - spent))
    return ending, Final(JobState.SUCCEEDED, valid=True)


def events(world: World) -> list[SpendEvent]:
    """Read what was told of caps."""
    return world.run(spend_events(world.keys.spend_events))


def cap_of(world: World, who: str = "t", **caps: Decimal) -> None:
    """Set caps as `vessel budget set` does."""
    door = Door(load_settings({}, namespace=world.keys.namespace))
    world.run(set_budget(door, None if who == "*" else who, **caps))


def in_batch(world: World, cap: int, count: int) -> list[Held]:
    """Give running lines of a batch with a cap."""
    batch = f"batch_{world.keys.namespace}"
    world.client.hset(world.keys.batch(batch), mapping={"id": batch, "tenant": "t", "cap_nano": cap})
    world.client.pexpire(world.keys.batch(batch), HOUR_MS)
    found = []
    for _ in range(count):
        held = world.running()
        world.client.hset(world.keys.job(held.job.id), "batch", batch)
        job = replace(held.job, batch=batch)
        found.append(replace(held, job=job, keys=world.store.of(job)))
    return found


@pytest.mark.parametrize("who", ["t", "*"])
@pytest.mark.parametrize("period", ["day", "month"])
def test_what_never_fits_a_cap_is_refused_at_once(world: World, who: str, period: str) -> None:
    """A worst case above the whole cap is told as such, before quota, and nothing is reserved or held for it."""
    cap_of(world, who, **{period: Decimal("0.0000001")})
    world.freeze(rpd=0)
    answer = world.start(world.running(), 1, dear(101))
    whose = "tenant" if who == "t" else "whole"
    assert (answer.word, answer.detail, answer.limit) == ("too_dear", f"{whose} {period}", "100")
    assert events(world) == []


def test_a_batch_spends_its_cap_and_no_more(world: World) -> None:
    """Lines wait while others have reserved the rest, and are refused for good once nothing can come back."""
    first, second, third = in_batch(world, 100, 3)
    assert world.start(first, 1, dear(60)).word == "started"
    held = world.start(second, 1, dear(60))
    assert (held.word, held.limit, held.why) == ("held", "budget", "batch")
    world.finish(first, ended(first, 60, 30))
    assert world.start(second, 1, dear(60)).word == "started"
    world.finish(second, ended(second, 60, 50))
    answer = world.start(third, 1, dear(60))
    assert (answer.word, answer.detail, answer.limit) == ("too_dear", "batch", "100")
    assert world.start(third, 1, dear(20)).word == "started"
    assert world.client.hget(third.keys.batch, "spent_nano") == b"100"
    assert [(e.event, e.cap, e.spent_nano) for e in events(world)] == [("full", "batch", 60), ("warned", "batch", 90)]


@pytest.mark.parametrize("how", ["rescue", "park", "requeue"])
def test_a_line_that_ends_otherwise_frees_its_batch(world: World, how: str) -> None:
    """A call cut by a kill stays reserved at its worst; one that cost nothing gives all back; neither is under way."""
    first, second = in_batch(world, 100, 2)
    world.start(first, 1, dear(60))
    if how == "rescue":
        world.client.hset(first.keys.job, "lease", 1)
        world.run(world.store.rescue(world.job(first.job.id)))
    else:
        nothing = Ending(1, "rate_limited", "{}", "", dear(60), GiveBack(nano_usd=60))
        if how == "park":
            world.run(world.store.park(first, nothing, 0, Wait(1, "quota")))
        else:
            world.run(world.store.requeue(first, nothing, 1, "power", reason="r", message=""))
    assert world.client.exists(first.keys.batch_calls) == 0
    assert world.client.hget(first.keys.batch, "spent_nano") == (b"60" if how == "rescue" else b"0")
    assert world.start(second, 1, dear(60)).word == ("too_dear" if how == "rescue" else "started")


def test_no_batch_no_cap_no_key(world: World) -> None:
    """A job of no batch leaves nothing of one behind."""
    held = world.running()
    world.start(held, 1, dear(60))
    world.finish(held, ended(held, 60, 30))
    assert world.client.keys(f"{world.keys.namespace}:batch*") == []


def test_a_warning_comes_at_80_percent_once(world: World) -> None:
    """Not before, once in a period, again when the cap is changed; at 100 % the first job that waits is told."""
    cap_of(world, day=Decimal("0.0000001"), month=Decimal(1))
    assert world.start(world.running(), 1, dear(79)).word == "started"
    assert events(world) == []
    for _ in range(2):
        world.start(world.running(), 1, dear(1))
    for _ in range(2):
        assert world.start(world.running(), 1, dear(30)).word == "held"
    told = [(e.event, e.cap, e.tenant, e.spent_nano, e.cap_nano) for e in events(world)]
    assert told == [("warned", "day", "t", 80, 100), ("full", "day", "t", 81, 100)]
    found = read_budget(
        "t", {k.decode(): v for k, v in world.client.hgetall(world.keys.budget("t")).items()}, world.now_ms()
    )
    assert found is not None
    assert found.day is not None
    assert found.month is not None
    assert (found.held, found.day.warned_at > 0, found.day.full_at > 0, found.month.warned_at) == (2, True, True, 0)
    cap_of(world, day=Decimal("0.0000001"))
    world.start(world.running(), 1, dear(1))
    assert [e.event for e in events(world)] == ["warned", "full", "warned"]


def test_a_cap_is_not_said_to_hold_what_a_maintenance_holds(world: World) -> None:
    """What holds a job first is told; the cap counts a job, and tells that it is used up, once it is the cap's turn."""
    cap_of(world, day=Decimal("0.0000001"))
    assert world.start(world.running(), 1, dear(79)).word == "started"
    world.client.hset(world.keys.maintenance, "all", "0 1 pause")
    answer = world.start(world.running(), 1, dear(30))
    assert (answer.word, answer.limit) == ("held", "maintenance")
    assert (world.client.hget(world.keys.budget("t"), "held"), events(world)) == (None, [])
    world.client.delete(world.keys.maintenance)
    assert world.start(world.running(), 1, dear(30)).limit == "budget"
    assert (world.client.hget(world.keys.budget("t"), "held"), [e.event for e in events(world)]) == (b"1", ["full"])


@pytest.mark.parametrize(
    "text", ["1e-999999999", "0", "-1", "NaN", "sNaN", "Infinity", "1e-10", "1000001", "1e999999999"]
)
def test_an_amount_that_is_no_cap_is_refused(world: World, text: str) -> None:
    """Nothing is rounded to nothing, and nothing is changed."""
    with pytest.raises(InvalidRequest, match="Nothing was changed"):
        cap_of(world, day=Decimal(text))
    assert world.client.keys(f"{world.keys.namespace}:budget*") == []
    with pytest.raises(InvalidRequest, match="max_cost_usd"):
        checked_cap(text)


@pytest.mark.parametrize("given_cap", [True, [], {}, "much", "", b"1"])
def test_a_batch_cap_is_an_amount(given_cap: object) -> None:
    """Anything else is told as such."""
    with pytest.raises(InvalidRequest, match="max_cost_usd"):
        checked_cap(given_cap)
    assert (checked_cap(None), checked_cap(0.1), checked_cap("$2.50")) == (0, NANO // 10, 25 * NANO // 10)


def test_rest_takes_a_cap_beside_groqs_fields() -> None:
    """`vessel` of a batch holds the cap, and a webhook, and nothing else."""
    door = Door(load_settings())
    assert [_policy(door, given_cap)[1] for given_cap in (None, {}, {"max_cost_usd": None}, {"max_cost_usd": 0.5})] == [
        0, 0, 0, NANO // 2]  # fmt: skip
    wrongs: list[object] = [5, [], "x", {"max_cost": 1}, {"max_cost_usd": 0}, {"max_cost_usd": {}}]
    for wrong in wrongs:
        with pytest.raises(InvalidRequest, match="Nothing was accepted"):
            _policy(door, wrong)


def test_a_cap_makes_another_batch() -> None:
    """The same file under another cap is not the same request; without one the hash is as before."""
    file = StoredFile("file-1", "t", "f", "batch", 1, 1, 1)
    plain = NewBatch("batch_1", "t", file, "/v1/chat/completions", "24h", 86_400)
    assert len({plain.hash, replace(plain, cap_nano=1).hash, replace(plain, cap_nano=2).hash}) == 3


# --- races ------------------------------------------------------------------------------------------------------------


def race(server: RedisServer, seed: int, *, calls: int = 4) -> tuple[int, int, int]:
    """Let 64 submitters make calls of random size under a cap of 1.00 USD.

    Returns the most that was ever spent and reserved, as seen at every step, what the ledger says, and how many calls
    were made. A few calls are cut, answer late, or cost nothing.
    """
    dice = random.Random(seed)  # noqa: S311  repeatable on purpose
    with server.client() as client:
        world = World(client)
        cap_of(world, "*", day=Decimal(1))
        jobs = [[world.queued() for _ in range(calls)] for _ in range(SUBMITTERS)]
        plans = [[(dice.randint(1, 60_000_000), dice.random(), dice.random()) for _ in some] for some in jobs]
        seen: list[int] = []
        threads = [
            threading.Thread(target=submitter, args=(server, world.keys.namespace, n, jobs[n], plans[n], seen))
            for n in range(SUBMITTERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ledger = world.ledger()
        spent = sum(int(Decimal(row["row"].partition('"cost_usd":')[2].partition(",")[0]).scaleb(9)) for row in ledger)
        left = int(client.hget(world.keys.budget("*"), "day_nano") or 0)
        assert left == spent, "what is reserved is what was booked, once all calls have ended"
        return max(seen), spent, len(ledger)


def submitter(
    server: RedisServer, namespace: str, number: int, jobs: Sequence[Any], plans: Sequence[Any], seen: list[int]
) -> None:
    """Make one submitter's calls, one after the other."""
    with server.client() as client:
        world = World(client)
        world.keys = replace(world.keys, namespace=namespace)
        world.__post_init__()
        for job, (worst, part, fate) in zip(jobs, plans, strict=True):
            held = world.claim(job, f"w/{number}")
            if world.start(held, 1, dear(worst)).word == "started":
                seen.append(int(client.hget(world.keys.budget("*"), "day_nano") or 0))
                if fate < 0.1:
                    row = f'{{"cost_usd":{Decimal(worst).scaleb(-9):f},"tenant":"t"}}'
                    world.finish(held, (replace(cut(), ledger_row=row, charge=dear(worst)), Final(JobState.FAILED)))
                elif fate < 0.2:
                    back = Ending(1, "rate_limited", "{}", "", dear(worst), GiveBack(nano_usd=worst))
                    world.finish(held, (back, Final(JobState.FAILED)))
                else:
                    world.finish(held, ended(held, worst, int(worst * part)))


@pytest.mark.redis("valkey")
def test_64_submitters_never_spend_more_than_the_cap(redis_server: RedisServer) -> None:
    """A handful of races on a real server; `make test-system` runs a thousand."""
    for seed in range(3):
        most, spent, made = race(redis_server, seed)
        assert spent <= most <= NANO
        assert made > SUBMITTERS // 2


@pytest.mark.system
@pytest.mark.timeout(3600)
@pytest.mark.redis("valkey")
def test_a_thousand_races_never_spend_more_than_the_cap(redis_server: RedisServer) -> None:
    """1,000 runs of 64 submitters against 1.00 USD: never above, and never idle while there was room."""
    highest = 0
    for seed in range(1000):
        most, spent, made = race(redis_server, seed)
        assert spent <= most <= NANO, seed
        assert made > SUBMITTERS // 2, seed
        highest = max(highest, most)
        with redis_server.client() as client:
            client.flushall()
    assert highest > NANO * 9 // 10, "the cap was never even approached"


@pytest.mark.redis("fakeredis")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cap=strategies.integers(1, 200),
    steps=strategies.lists(
        strategies.tuples(strategies.integers(0, 7), strategies.integers(1, 120), strategies.integers(0, 120)),
        max_size=30,
    ),
)
def test_any_order_of_starts_and_ends_keeps_the_cap(redis_client: redis.Redis, cap: int, steps: list[Any]) -> None:
    """Whatever eight workers do, what is spent and reserved is at most the cap, and ends as what was spent."""
    world = World(redis_client)
    cap_of(world, day=Decimal(cap).scaleb(-9))
    flying: dict[int, tuple[Held, int]] = {}
    spent = 0
    for worker, worst, actual in steps:
        if worker in flying:
            held, reserved = flying.pop(worker)
            spent += min(actual, reserved)
            world.finish(held, ended(held, reserved, min(actual, reserved)))
        else:
            held = world.running(f"w/{worker}")
            word = world.start(held, 1, dear(worst)).word
            reserved = sum(r for _, r in flying.values())
            fits = spent + reserved + worst <= cap
            assert word == ("started" if fits else "too_dear" if worst > cap else "held")
            if fits:
                flying[worker] = (held, worst)
            else:
                world.finish(held, (NO_ATTEMPT, Final(JobState.FAILED)))
        kept = int(world.run(command("HGET", world.keys.budget("t"), "day_nano", parse=lambda raw: raw or 0)))
        assert kept == spent + sum(r for _, r in flying.values()) <= cap
