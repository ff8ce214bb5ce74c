"""What answers teach the gate, for all workers at once: limits, remains, refusals, waits, and a model's health."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.world import MODEL, World, charge, success
from tests.waiting import wait_until
from vessel.gate.learn import Started, learn
from vessel.gate.limiter import NAMES, GiveBack
from vessel.registry.model import Limits
from vessel.upstream.outcome import Failure, Outcome, RateHeaders, Reason, Success, Usage

if TYPE_CHECKING:
    from vessel.gate.limiter import Charge

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")

UNKNOWN_LIMITS = charge(100, 100)
_numbers = itertools.count()


def answered(**headers: Any) -> Success:
    """Build an answer with rate-limit headers."""
    return Success(MODEL, b"{}", Usage(100, 100), None, "stop", RateHeaders(**headers))


def failed(reason: Reason, **more: Any) -> Failure:
    """Build a failure."""
    return Failure(MODEL, reason, "No.", **more)


def refused(name: str, cap: int, used: int | None = None, retry_after_s: float | None = None) -> Failure:
    """Build a 429 whose text names a limit."""
    return failed(Reason.RATE_LIMITED, limit_name=name, limit_value=cap, limit_used=used, retry_after_s=retry_after_s)


def tell(world: World, outcome: Outcome, of: Charge = UNKNOWN_LIMITS, started: Started | None = None) -> str:
    """Tell the gate of an outcome; gives the breaker's state."""
    call_id = f"job_1/{next(_numbers)}"
    return world.run(learn(world.gate(of.model), of, outcome, started or Started(), call_id=call_id))


def test_limits_are_learned_from_headers(world: World) -> None:
    """Requests are those of a day, tokens those of a minute; the next start of any worker is held to them."""
    tell(world, answered(limit_requests=1000, remaining_requests=999, limit_tokens=500, remaining_tokens=300))
    view = world.view(UNKNOWN_LIMITS)
    assert {name: (level.capacity, level.learned) for name, level in view.limits.items()} == {
        "rpd": (1000, True), "tpm": (500, True),
    }  # fmt: skip
    answer = world.start(world.running(), 1, charge(300, 300))
    assert (answer.word, answer.detail, answer.limit) == ("too_large", "tpm", "500")


def test_a_learned_limit_wins_over_a_configured_one(world: World) -> None:
    """The registry may be of last year; what Groq says holds, in both directions."""
    tell(world, answered(limit_tokens=500), charge(tpm=8_000))
    assert world.view(charge(tpm=8_000)).limits["tpm"].capacity == 500
    tell(world, answered(limit_tokens=20_000), charge(tpm=8_000))
    assert world.view(charge(tpm=8_000)).limits["tpm"].capacity == 20_000


def test_a_change_of_plan_keeps_what_is_used(world: World) -> None:
    """More room comes at once, and nothing that was used is forgotten."""
    world.freeze(tpm=1_000)
    tell(world, answered(limit_tokens=16_000), charge(tpm=8_000))
    assert world.level("tpm") == 9_000


PLANS = {
    "free": Limits(**dict.fromkeys(NAMES) | {"rpm": 30, "rpd": 1_000, "tpm": 8_000, "tpd": 200_000}),
    "developer": Limits(**dict.fromkeys(NAMES) | {"rpm": 1_000, "rpd": 500_000, "tpm": 250_000}),
}


def test_another_plan_is_found_by_its_figures(world: World) -> None:
    """No header tells requests per minute or tokens per day; those of the plan that was told hold at once."""
    of = charge(rpm=30, rpd=1_000, tpm=8_000, tpd=200_000)
    told = answered(limit_requests=500_000, limit_tokens=250_000)
    world.run(learn(world.gate(), of, told, Started(), PLANS))
    assert {n: level.capacity for n, level in world.view(of).limits.items()} == {
        "rpm": 1_000, "rpd": 500_000, "tpm": 250_000,
    }  # fmt: skip
    tell(world, refused("rpm", 700, 700), of)
    world.run(learn(world.gate(), of, told, Started(), PLANS))
    assert world.view(of).limits["rpm"].capacity == 700


def forget_for(world: World, name: str, ms: int = 600_000) -> None:
    """Let a learned limit be so old."""
    world.client.hset(world.gate().gate, f"t:{name}", world.now_ms() - ms)


def test_a_limit_that_was_raised_is_found(world: World) -> None:
    """No header tells requests per minute: every ten minutes one call goes without room, and its answer frees it."""
    of = charge(rpm=1_000)
    tell(world, refused("rpm", 30, 30), of)
    assert world.start(world.running(), 1, of).word == "wait"
    forget_for(world, "rpm")
    assert world.view(of).limits["rpm"].doubted
    assert [world.start(world.running(), 1, of).word for _ in range(2)] == ["started", "wait"]
    tell(world, answered(), of)
    assert world.view(of).limits["rpm"].capacity == 1_000
    assert world.start(world.running(), 1, of).word == "started"


def test_a_doubted_limit_that_still_holds_is_kept(world: World) -> None:
    """The refusal of that one call names it again."""
    of = charge(rpm=1_000)
    tell(world, refused("rpm", 30, 30), of)
    forget_for(world, "rpm")
    world.start(world.running(), 1, of)
    tell(world, refused("rpm", 30, 30), of)
    tell(world, answered(), of)
    assert world.view(of).limits["rpm"].capacity == 30


def test_a_day_that_was_raised_is_found(world: World) -> None:
    """A used-up day is not asked about for hours, but for one call in ten minutes, whose headers tell."""
    tell(world, answered(limit_requests=3, remaining_requests=0), charge())
    assert world.start(world.running(), 1, charge()).word == "wait"
    forget_for(world, "rpd")
    assert world.start(world.running(), 1, charge()).word == "started"
    tell(world, answered(limit_requests=1_000, remaining_requests=996), charge())
    assert world.view(charge()).limits["rpd"].capacity == 1_000
    assert world.start(world.running(), 1, charge()).word == "started"


def test_requests_per_minute_are_learned_from_a_refusal(world: World) -> None:
    """No header tells them (groq-facts 1.7); the text of a 429 does, with what is used."""
    tell(world, refused("rpm", 30, 30))
    assert world.view(UNKNOWN_LIMITS).limits["rpm"].capacity == 30
    assert world.start(world.running(), 1, UNKNOWN_LIMITS).word == "wait"


def test_a_refusal_states_what_is_left(world: World) -> None:
    """Limit minus used is believed at once, whatever was counted here."""
    world.freeze(tpm=7_000)
    tell(world, refused("tpm", 8_000, 7_900), charge(100, 100, tpm=8_000))
    assert world.level("tpm") == 8_000 - 7_900 - 200  # the refused call gives its own 200 back when it is settled


def test_another_programs_use_is_yielded_to(world: World) -> None:
    """The upstream has less than we left there: the difference is taken off, and a margin is kept for a while."""
    world.freeze(tpm=8_000)
    held = world.running()
    said = world.start(held, 1, charge(100, 100, tpm=8_000))
    tell(world, answered(limit_tokens=8_000, remaining_tokens=5_000), charge(100, 100, tpm=8_000), Started(said.limit))
    assert world.level("tpm") == 5_000
    assert world.view(charge(tpm=8_000)).limits["tpm"].margin > 0


def test_the_same_foreign_use_is_taken_off_once(world: World) -> None:
    """Calls that were under way together all see it; the first one tells."""
    world.freeze(tpm=8_000)
    of = charge(100, 100, tpm=8_000)
    said = [world.start(world.running(), 1, of) for _ in range(3)]
    for answer in said:
        tell(world, answered(limit_tokens=8_000, remaining_tokens=4_000), of, Started(answer.limit, answer.why))
    assert world.level("tpm") == 4_000


def test_a_burst_that_has_been_settled_is_nobody_elses(world: World) -> None:
    """An answer that left while many calls were charged and is read when they are settled tells of nobody."""
    world.freeze(tpm=8_000)
    of = charge(100, 900, tpm=8_000)
    helds = [world.running() for _ in range(7)]
    said = [world.start(held, 1, of) for held in helds]
    for held in helds[1:]:
        world.finish(held, success(1, charge=of, back=GiveBack(0, 0, 900)))
    tell(world, answered(limit_tokens=8_000, remaining_tokens=1_900), of, Started(said[0].limit, said[0].why))
    assert world.level("tpm") == 8_000 - 1_000 - 600
    assert world.view(of).limits["tpm"].margin == 0


def test_more_than_all_calls_under_way_can_explain_is_believed(world: World) -> None:
    """What was counted here too high comes back, also while there is always something under way."""
    world.freeze(tpm=1_000)
    of = charge(50, 50, tpm=8_000)
    said = [world.start(world.running(), 1, of) for _ in range(3)]
    tell(world, answered(limit_tokens=8_000, remaining_tokens=7_000), of, Started(said[0].limit, said[0].why))
    assert world.level("tpm") == 7_000 - 3 * 2 * 100


def test_old_headers_take_nothing_back(world: World) -> None:
    """While other calls are under way a larger remain is older than what they have charged."""
    world.freeze(tpm=8_000)
    of = charge(1_000, 1_000, tpm=8_000)
    said = [world.start(world.running(), 1, of) for _ in range(2)]
    tell(world, answered(limit_tokens=8_000, remaining_tokens=8_000), of, Started(said[0].limit, said[0].why))
    assert world.level("tpm") == 4_000


def test_a_larger_remain_is_believed_when_nothing_else_runs(world: World) -> None:
    """What a lost call had charged comes back."""
    world.freeze(tpm=2_000)
    tell(world, answered(limit_tokens=8_000, remaining_tokens=6_000), charge(tpm=8_000))
    assert world.level("tpm") == 6_000


@pytest.mark.parametrize("asked_s", [5, 59])
def test_a_wait_holds_all_workers(world: World, asked_s: int) -> None:
    """One worker's retry-after is everybody's, charges nothing, and a shorter one never shortens it."""
    of = charge(tpm=8_000)
    tell(world, failed(Reason.RATE_LIMITED, retry_after_s=asked_s), of)
    tell(world, failed(Reason.RATE_LIMITED, retry_after_s=1), of)
    answer = world.start(world.running(), 1, of)
    assert (answer.word, answer.limit) == ("wait", "retry-after")
    assert (asked_s - 2) * 1000 < int(answer.detail) <= asked_s * 1000
    assert world.view(of).closed_ms()[0] > 0


def test_a_refusal_with_figures_leaves_smaller_calls_alone(world: World) -> None:
    """The limit is known to the token, so nobody waits who fits into what is left."""
    world.freeze(tpm=8_000)
    tell(world, refused("tpm", 8_000, 7_000, retry_after_s=30), charge(1_000, 500, tpm=8_000))
    assert world.level("tpm") == -500
    world.freeze(tpm=1_000)  # the refused call has given its charge back
    assert world.start(world.running(), 1, charge(100, 100, tpm=8_000)).word == "started"


def test_a_wait_of_hours_is_the_buckets_to_tell(world: World) -> None:
    """A used-up day says 'in 9 h': the model is held for a minute at most, its day's level says the rest."""
    of = charge(100, 100, tpd=10_000)
    tell(world, refused("tpd", 10_000, 10_000, retry_after_s=30_000), of)
    view = world.view(of)
    assert view.blocked_ms <= 60_000
    assert view.limits["tpd"].left < 0


# --- breaker ----------------------------------------------------------------------------------------------------------


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
