"""What holds everybody back: breakers per model and provider, concurrency, maintenance, spend caps."""

from __future__ import annotations

import pytest

from tests.contract.telling import UNKNOWN_LIMITS, answered, failed, tell
from tests.contract.world import World, charge, success
from tests.waiting import wait_until
from vessel.gate.learn import Started, learn
from vessel.gate.limiter import GiveBack
from vessel.upstream.outcome import Failure, Reason

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


def opened(world: World, reason: Reason = Reason.OVER_CAPACITY, times: int = 5) -> list[str]:
    """Report failures of a model."""
    return [tell(world, failed(reason, status=503), charge(rpd=10**6)) for _ in range(times)]


def age(world: World, by_ms: int, *, provider: bool = False) -> None:
    """Let the breaker believe that so much time has passed."""
    key = world.gate().provider if provider else world.gate().gate
    for field in ("br_at", "br_next"):
        at = world.client.hget(key, field)
        if at is not None:
            world.client.hset(key, field, int(at) - by_ms)


def test_failures_in_a_row_open_the_breaker(world: World) -> None:
    """The fifth one does; an answer in between starts the count anew."""
    assert opened(world, times=4) == ["closed"] * 4
    tell(world, answered())
    assert opened(world, times=5) == ["closed"] * 4 + ["open"]
    answer = world.start(world.running())
    assert (answer.word, answer.limit, answer.why) == ("held", "model", "over_capacity")
    assert 0 < int(answer.detail) <= 5_000


def test_a_request_that_was_refused_for_itself_is_no_outage(world: World) -> None:
    """A bad request shows that the model answers."""
    opened(world, times=4)
    tell(world, failed(Reason.BAD_REQUEST, status=400))
    assert opened(world, times=1) == ["closed"]


@pytest.mark.parametrize("reason", [Reason.UNAUTHORIZED, Reason.FORBIDDEN, Reason.SPEND_LIMIT])
def test_a_bad_key_holds_every_model(world: World, reason: Reason) -> None:
    """All calls would fail alike, so none is made but one look now and then, whatever the model."""
    assert opened(world, reason, times=3) == ["closed", "closed", "open"]
    answer = world.start(world.running(), 1, charge(rpd=10**6, model="another"))
    assert (answer.word, answer.limit, answer.why) == ("held", "provider", str(reason))


def test_one_workers_old_key_does_not_stop_the_others(world: World) -> None:
    """Their answers come in between; and a worker without a key says nothing about Groq."""
    for _ in range(5):
        assert opened(world, Reason.UNAUTHORIZED, times=2) == ["closed", "closed"]
        assert opened(world, Reason.NO_KEY, times=3) == ["closed"] * 3
        tell(world, answered())


def test_a_failure_told_twice_counts_once(world: World) -> None:
    """redis-py may send it again."""
    for _ in range(9):
        of, bad = charge(rpd=10**6), failed(Reason.OVER_CAPACITY, status=503)
        assert world.run(learn(world.gate(), of, bad, Started(), call_id="job_1/1")) == "closed"


def test_one_call_at_a_time_looks_whether_it_is_over(world: World) -> None:
    """After five seconds one start is let through as a probe; the next has to wait for the next five."""
    opened(world)
    age(world, 5_000)
    first, second = world.start(world.running()), world.start(world.running())
    assert (first.word, first.detail) == ("started", "probe")
    assert second.word == "held"
    assert int(second.detail) > 4_000


def test_a_failed_look_keeps_it_open(world: World) -> None:
    """The outage goes on, with one look per five seconds."""
    opened(world)
    for _ in range(3):
        age(world, 5_000)
        assert world.start(world.running()).detail == "probe"
        assert opened(world, times=1) == ["open"]
        assert world.start(world.running()).word == "held"


def test_recovery_is_slow_at_first(world: World) -> None:
    """Two calls in the first half second, twice as many in the next one, and so on until all may go."""
    opened(world)
    age(world, 5_000)
    world.start(world.running())
    assert tell(world, answered()) == "ramp"
    first = [world.start(world.running()) for _ in range(3)]
    assert [answer.word for answer in first] == ["started", "started", "wait"]
    assert first[-1].limit == "ramp"
    age(world, 500)
    second = [world.start(world.running()).word for _ in range(5)]
    assert second == ["started"] * 4 + ["wait"]
    age(world, 16 * 500)
    assert [world.start(world.running()).word for _ in range(20)] == ["started"] * 20
    assert world.view(charge(rpd=10**6)).model.state == "closed"


def test_a_breaker_nobody_has_looked_at_for_long_holds_nobody(world: World) -> None:
    """The outage may be over since long: the next calls go on slowly instead of stepping down to a smaller model."""
    opened(world)
    age(world, 60_000)
    answers = [world.start(world.running()) for _ in range(2)]
    assert [(answer.word, answer.detail) for answer in answers] == [("started", "probe"), ("started", "")]
    assert opened(world, times=3)[-1] == "open"


def test_one_jobs_failures_over_several_models_are_an_outage_of_all(world: World) -> None:
    """A lone job meets each model twice: too few for any model's breaker, and all that is known of the provider."""
    models = ("a", "a", "b", "b")
    states = [tell(world, Failure(m, Reason.SERVER_ERROR, "No.", status=500), charge(rpd=9, model=m)) for m in models]
    assert states == ["closed", "closed", "closed", "open"]
    assert world.start(world.running(), 1, charge(rpd=9, model="c")).limit == "provider"


def test_one_models_failures_are_not_the_providers(world: World) -> None:
    """However many: the others go on."""
    opened(world, times=9)
    assert world.start(world.running(), 1, charge(rpd=9, model="b")).word == "started"


def test_a_relapse_opens_it_again(world: World) -> None:
    """In the ramp three failures are enough."""
    opened(world)
    age(world, 5_000)
    world.start(world.running())
    tell(world, answered())
    assert opened(world, times=3)[-1] == "open"


def test_the_providers_breaker_closes_with_any_answer(world: World) -> None:
    """The key works again: the model that looked shows it for all."""
    opened(world, Reason.UNAUTHORIZED, times=3)
    age(world, 5_000, provider=True)
    assert world.start(world.running()).detail == "probe"
    tell(world, answered())
    assert world.view(charge(rpd=10**6)).provider.state == "ramp"
    wait_until(lambda: world.start(world.running(), 1, charge(rpd=10**6, model="another")).word == "started")


def test_connections_refused_are_the_providers_outage(world: World) -> None:
    """Nothing answers at that address, so no model is asked; three in a row are enough."""
    assert opened(world, Reason.CONNECT_FAILED, times=3) == ["closed", "closed", "open"]
    assert world.start(world.running(), 1, charge(rpd=10**6, model="another")).limit == "provider"


# --- what else holds calls back ---------------------------------------------------------------------------------------


def test_nothing_known_lets_few_calls_go_at_once(world: World) -> None:
    """Without any limit, configured or told, four calls look what the headers say before the rest follows."""
    assert [world.start(world.running(), 1, UNKNOWN_LIMITS).word for _ in range(5)] == ["started"] * 4 + ["wait"]
    tell(world, answered())
    assert world.start(world.running(), 1, UNKNOWN_LIMITS).word == "started"


def test_concurrency_bounds_the_calls_under_way(world: World) -> None:
    """A lease each, that ends with its call or with the call's own deadline."""
    two = charge(rpd=10**6, concurrency=2)
    words = [world.start(world.running(), 1, two) for _ in range(3)]
    assert [answer.word for answer in words] == ["started", "started", "wait"]
    assert words[-1].limit == "concurrency"
    inflight = world.gate().inflight
    (oldest, _), *_ = world.client.zrange(inflight, 0, 0, withscores=True)
    world.client.zadd(inflight, {oldest: world.now_ms() - 1})
    assert world.start(world.running(), 1, two).word == "started"


@pytest.mark.parametrize("name", ["all", "tier:ultra_fast"])
def test_maintenance_holds_and_charges_nothing(world: World, name: str) -> None:
    """Everything, or one tier; until its time, or until it is lifted. The reason goes along."""
    world.client.hset(world.keys.maintenance, name, f"{world.now_ms() + 60_000} {world.now_ms()} new racks")
    world.freeze(rpm=10)
    answer = world.start(world.running(), 1, charge(rpm=10))
    assert (answer.word, answer.limit, answer.why) == ("held", "maintenance", "new racks")
    assert 0 < int(answer.detail) <= 60_000
    assert world.level() == 10
    world.client.hset(world.keys.maintenance, name, f"{world.now_ms() - 1} 1 over")
    assert world.start(world.running(), 1, charge(rpm=10)).word == "started"


def test_another_tiers_maintenance_holds_nobody_here(world: World) -> None:
    """Only the tier that was named."""
    world.client.hset(world.keys.maintenance, "tier:power", "0 1 ")
    assert world.start(world.running()).word == "started"


@pytest.mark.parametrize("who", ["t", "*"])
@pytest.mark.parametrize("period", ["day", "month"])
def test_a_spend_cap_holds_what_might_pass_it(world: World, who: str, period: str) -> None:
    """The worst case is reserved with the start, what was not spent comes back, and the cap is never passed."""
    world.client.hset(world.keys.budget(who), f"{period}_cap", 100)
    of = charge(rpd=10**6, nano_usd=60)
    assert world.start(world.running(), 1, of).word == "started"
    answer = world.start(world.running(), 1, of)
    assert (answer.word, answer.limit) == ("held", "budget")
    assert answer.why.endswith(period)
    assert world.client.hget(world.keys.budget(who), f"{period}_nano") == b"60"


def test_what_was_reserved_yesterday_does_not_come_back_today(world: World) -> None:
    """A call over midnight gives its rest back to a day that is over; today's reservations stay whole."""
    world.client.hset(world.keys.budget("t"), "day_cap", 10_000)
    of = charge(rpd=10**6, nano_usd=1_000)
    old, new = world.running(), world.running()
    world.start(old, 1, of)
    world.start(new, 1, of)
    assert world.client.hget(world.keys.budget("t"), "day_nano") == b"2000"
    world.client.hset(old.keys.job, "at:1", world.now_ms() - 86_400_000)
    world.finish(old, success(1, charge=of, back=GiveBack(0, 0, 0, 800)))
    assert world.client.hget(world.keys.budget("t"), "day_nano") == b"2000"
    world.finish(new, success(1, charge=of, back=GiveBack(0, 0, 0, 800)))
    assert world.client.hget(world.keys.budget("t"), "day_nano") == b"1200"


def test_yesterdays_spending_is_not_todays(world: World) -> None:
    """A day's cap begins anew at midnight, UTC."""
    today = world.now_ms() // 86_400_000
    world.client.hset(world.keys.budget("t"), mapping={"day_cap": 100, "day": today - 1, "day_nano": 100})
    assert world.start(world.running(), 1, charge(rpd=10**6, nano_usd=60)).word == "started"
