"""What answers teach the gate, for all workers at once: limits, remains, refusals, waits, and a model's health."""

from __future__ import annotations

import pytest

from tests.contract.telling import UNKNOWN_LIMITS, answered, failed, refused, tell
from tests.contract.world import World, charge, success
from vessel.gate.learn import Started, learn
from vessel.gate.limiter import NAMES, GiveBack
from vessel.registry.model import Limits
from vessel.upstream.outcome import Reason

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


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
