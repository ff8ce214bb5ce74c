"""Admission: all limits or none are charged, a refusal costs nothing and says when, and what is unused comes back."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.contract.world import DAY_MS, HOUR_MS, ORG, World, charge, success
from tests.waiting import wait_until
from vessel.gate.limiter import GiveBack
from vessel.jobs.steps import NO_ATTEMPT, Answer, Ending, Final, Held, Wait
from vessel.wire import JobState, Priority

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


def booked(world: World, *, lapsed: bool = False) -> Held:
    """Claim a job and book a start that lies many hours ahead."""
    world.freeze(rpd=0)
    held = world.running(lapsed=lapsed)
    assert world.start(held, 1, charge(rpd=10), book_ms=DAY_MS).word == "booked"
    return held


def test_a_start_charges_every_limit(world: World) -> None:
    """Each limit is charged its own cost, once."""
    world.freeze(rpm=10, rpd=100, tpm=1000, tpd=10_000, itpm=500, otpm=400)
    held = world.running()
    six = charge(200, 100, rpm=10, rpd=100, tpm=1000, tpd=10_000, itpm=500, otpm=400)
    assert [world.start(held, 1, six).word for _ in range(3)] == ["started"] * 3
    levels = {name: world.level(name) for name in ("rpm", "rpd", "tpm", "tpd", "itpm", "otpm")}
    assert levels == {"rpm": 9, "rpd": 99, "tpm": 700, "tpd": 9_700, "itpm": 300, "otpm": 300}


def test_a_fresh_bucket_is_full(world: World) -> None:
    """A limit nobody has used yet admits its whole capacity at once, and not one more."""
    words = [world.start(world.running(), 1, charge(rpd=3)).word for _ in range(4)]
    assert words == ["started"] * 3 + ["wait"]


@pytest.mark.parametrize("short", ["rpm", "rpd", "tpm", "otpm"])
def test_one_short_limit_charges_none(world: World, short: str) -> None:
    """All or nothing: the limit that is short is named, and no level changes, be it first, middle or last."""
    capacities: dict[str, Any] = dict.fromkeys(("rpm", "rpd", "tpm", "otpm"), 10)
    levels: dict[str, Any] = capacities | {short: 0}
    world.freeze(**levels)
    answer = world.start(world.running(), 1, charge(1, 1, **capacities))
    assert (answer.word, answer.limit) == ("wait", short)
    assert {name: world.level(name) for name in levels} == levels
    assert world.client.zcard(world.gate().inflight) == 0


@pytest.mark.parametrize(("level", "prompt"), [(0, 1), (3, 4), (2.5, 7), (-5, 10), (9.999999, 10), (0, 10)])
def test_a_refusal_says_exactly_when(world: World, level: float, prompt: int) -> None:
    """The wait is the missing amount over the refill rate, rounded up to a millisecond."""
    world.freeze(tpm=level)
    answer = world.start(world.running(), 1, charge(prompt, tpm=10))
    assert answer == Answer("wait", str(math.ceil((prompt - level) * 60_000 / 10)), "tpm")


def test_the_longest_wait_counts(world: World) -> None:
    """Of several short limits the one that takes longest is answered."""
    world.freeze(rpm=0.9, tpm=2)
    answer = world.start(world.running(), 1, charge(10, rpm=10, tpm=10))
    assert (answer.detail, answer.limit) == (str(8 * 6000), "tpm")


def test_a_bucket_refills_continuously(world: World) -> None:
    """After the time a refusal named the same request is admitted, by Redis' clock."""
    quick = charge(rpm=6000)
    world.client.hset(world.gate().gate, mapping={"l:rpm": 0, "at": world.now_ms()})
    held = world.running()
    wait_until(lambda: world.start(held, 1, quick).word == "started")


def test_a_bucket_never_holds_more_than_its_limit(world: World) -> None:
    """An hour without work saves nothing up."""
    world.client.hset(world.gate().gate, mapping={"l:rpm": 5, "at": world.now_ms() - HOUR_MS})
    world.start(world.running(), 1, charge(rpm=10))
    assert world.level() == 9


def test_a_request_above_a_limit_is_told_so(world: World) -> None:
    """Waiting would never help: the limit and its size are named, and nothing is charged."""
    world.freeze(rpm=10, tpm=100)
    answer = world.start(world.running(), 1, charge(90, 11, rpm=10, tpm=100))
    assert answer == Answer("too_large", "tpm", "100")
    assert (world.level("rpm"), world.level("tpm")) == (10, 100)


def test_a_limit_that_changed_keeps_what_is_used(world: World) -> None:
    """Another plan gives another capacity; what was used of the old one stays used."""
    world.freeze(rpm=4)
    world.client.hset(world.gate().gate, "k:rpm", 10)
    assert world.view(charge(rpm=30)).limits["rpm"].left == 24
    assert world.view(charge(rpm=5)).limits["rpm"].left == -1


# --- bookings ---------------------------------------------------------------------------------------------------------


def test_a_short_wait_is_booked_and_nothing_is_charged_yet(world: World) -> None:
    """The next one waits behind it: a booking counts before those that have none."""
    world.freeze(rpm=0)
    first, second = world.running(), world.running()
    assert world.start(first, 1, charge(rpm=10), book_ms=6_000) == Answer("booked", "6001")
    assert world.start(second, 1, charge(rpm=10), book_ms=6_000) == Answer("wait", "12000", "rpm")
    assert (world.level(), world.bookings()) == (0, 1)


def test_many_waiters_are_booked_one_behind_the_other(world: World) -> None:
    """Start times do not coincide."""
    world.freeze(rpm=0)
    waits = [int(world.start(world.running(), 1, charge(rpm=10), book_ms=DAY_MS).detail) for _ in range(5)]
    assert waits == [6_001, 12_001, 18_001, 24_001, 30_001]


def test_a_booking_starts_at_its_time_and_not_before(world: World) -> None:
    """Asking early, as a repeated call does, gets the rest of the wait; in time it starts and is charged once."""
    world.freeze(rpm=0)
    held = world.running()
    again = [world.start(held, 1, charge(rpm=10), book_ms=6_000) for _ in range(2)]
    assert [answer.word for answer in again] == ["booked", "booked"]
    assert (world.bookings(), world.job(held.job.id).attempts) == (1, ())
    world.freeze(rpm=1)
    assert world.start(held, 1, charge(rpm=10), book_ms=6_000).word == "started"
    assert (world.level(), world.bookings()) == (0, 0)
    assert sum(map(sum, world.view(charge(rpm=10)).booked)) == 0
    assert world.job(held.job.id).start_at is None


def test_a_booking_comes_earlier_when_a_call_gives_back(world: World) -> None:
    """A settlement moves bookings forward: whoever asks again, as who is woken does, starts at once."""
    world.freeze(tpm=50)
    running, waits = world.running(), world.running()
    world.start(running, 1, charge(10, 40, tpm=50))
    assert world.start(waits, 1, charge(20, tpm=50), book_ms=DAY_MS).word == "booked"
    world.finish(running, success(1, charge=charge(10, 40, tpm=50), back=GiveBack(0, 0, 30)))
    assert world.start(waits, 1, charge(20, tpm=50), book_ms=DAY_MS).word == "started"


@pytest.mark.redis("valkey", "redis")
def test_the_first_booking_is_woken_when_there_is_room(world: World) -> None:
    """Its process is told on its own channel; nobody polls."""
    world.freeze(tpm=50)
    running, waits = world.running(), world.running()
    world.start(running, 1, charge(10, 40, tpm=50))
    with world.client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("wake-me")
        wait_until(lambda: world.client.pubsub_numsub("wake-me") == [(b"wake-me", 1)])
        world.start(waits, 1, charge(20, tpm=50), book_ms=DAY_MS, channel="wake-me")
        world.finish(running, success(1, charge=charge(10, 40, tpm=50), back=GiveBack(0, 0, 30)))
        message = wait_until(lambda: heard.get_message(timeout=1))
    assert message["data"].decode() == waits.job.id


@pytest.mark.parametrize("how", ["release", "park", "wait", "requeue", "cancel", "rescue"])
def test_an_unused_booking_comes_back_once(world: World, how: str) -> None:
    """Whoever ends the lease gives the booking back; repeating it takes nobody else's."""
    held = booked(world, lapsed=how == "rescue")
    other = booked(world)
    assert world.bookings() == 2
    ending = Ending(0, "", "", charge=charge(rpd=10))
    call = {
        "release": world.store.release(held, ending),
        "park": world.store.park(held, ending, 0, Wait(HOUR_MS, "r")),
        "wait": world.store.park(held, ending, 0, Wait(HOUR_MS, "r", for_gate=True)),
        "requeue": world.store.requeue(held, ending, 1, "power", reason="", message=""),
        "cancel": world.store.finish(held, ending, Final(JobState.CANCELLED)),
        "rescue": world.store.rescue(world.job(held.job.id)),
    }[how]
    for _ in range(3):
        world.run(call)
        assert world.bookings() == 1
        assert world.view(charge(rpd=10)).booked[1] == (1, 1, 0)
    assert world.job(other.job.id).start_at is not None


def test_a_booking_under_a_lease_that_went_comes_back(world: World) -> None:
    """A late answer of an older lease wins while the next one sleeps; that one's next step returns its booking."""
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    new = world.claim(old.job, "w/2")
    world.freeze(rpd=0)
    assert world.start(new, 2, charge(rpd=10), book_ms=DAY_MS).word == "booked"
    assert world.finish(old, success(1)).word == "finished"
    for _ in range(2):
        assert world.start(new, 2, charge(rpd=10), book_ms=DAY_MS).word == "superseded"
        assert world.bookings() == 0


def test_rescue_looks_again_when_the_gate_has_changed(world: World) -> None:
    """A sweep that read the record before the booking was made does not lose it."""
    world.freeze(rpd=0)
    held = world.running(lapsed=True)
    before = world.job(held.job.id)
    world.start(held, 1, charge(rpd=10), book_ms=DAY_MS)
    assert world.words(world.store.rescue(before)) == ["changed"]
    assert world.words(world.store.rescue(world.job(held.job.id))) == ["done"]
    assert world.bookings() == 0


def test_a_booking_nobody_comes_for_is_dropped(world: World) -> None:
    """Its process was killed: two seconds after its time it holds nobody back any more, and no sum stays behind."""
    held = booked(world)
    (member,) = world.client.zrange(world.gate().bookings, 0, -1)
    world.client.zadd(world.gate().bookings, {member: world.now_ms() - 2_001})
    world.freeze(rpd=1)
    assert world.start(world.running(), 1, charge(rpd=10)).word == "started"
    assert world.bookings() == 0
    assert world.view(charge(rpd=10)).booked == ((0, 0, 0),) * 3
    assert world.job(held.job.id).state is JobState.RUNNING


def test_no_booking_without_a_claim(world: World) -> None:
    """A handle that never held the lease books nothing."""
    world.freeze(rpd=0)
    job = world.queued()
    forged = Held(job, 0, "w/1", world.store.of(job))
    assert world.start(forged, 1, charge(rpd=10), book_ms=DAY_MS).word == "superseded"
    assert world.bookings() == 0
    assert world.park(forged, NO_ATTEMPT).word == "superseded"


# --- lanes ------------------------------------------------------------------------------------------------------------


def lane(world: World, priority: Priority) -> Held:
    """Claim a job of a lane."""
    return world.running(priority=priority)


def test_interactive_goes_before_unstarted_batch_bookings(world: World) -> None:
    """The batch job had booked first; the interactive one is counted before it."""
    world.freeze(rpm=0)
    batch, urgent = lane(world, Priority.BATCH), lane(world, Priority.INTERACTIVE)
    assert world.start(batch, 1, charge(rpm=10), book_ms=DAY_MS) == Answer("booked", "6001")
    assert world.start(urgent, 1, charge(rpm=10), book_ms=DAY_MS) == Answer("booked", "6001")
    world.freeze(rpm=1)
    again = world.start(batch, 1, charge(rpm=10), book_ms=DAY_MS)
    assert again.word == "booked"
    assert int(again.detail) > 6_001
    assert world.start(urgent, 1, charge(rpm=10), book_ms=DAY_MS).word == "started"


def test_batch_leaves_a_reserve_while_interactive_work_comes_in(world: World) -> None:
    """Two calls of its kind, at most a tenth of the limit; ten seconds later batch has everything again."""
    world.freeze(rpm=100)
    world.start(lane(world, Priority.INTERACTIVE), 1, charge(rpm=100))
    world.freeze(rpm=2)
    batch = lane(world, Priority.BATCH)
    assert world.start(batch, 1, charge(rpm=100)).word == "wait"
    world.client.hset(world.gate().gate, "hi_at", world.now_ms() - 10_000)
    assert world.start(batch, 1, charge(rpm=100)).word == "started"


def test_a_lane_that_has_waited_long_is_not_starved(world: World) -> None:
    """After five seconds without a start the batch lane goes as if it were the first."""
    world.freeze(rpm=0)
    for _ in range(5):
        world.start(lane(world, Priority.INTERACTIVE), 1, charge(rpm=10), book_ms=DAY_MS)
    batch = lane(world, Priority.BATCH)
    assert world.start(batch, 1, charge(rpm=10)).word == "wait"
    world.freeze(rpm=1)
    assert world.start(batch, 1, charge(rpm=10)).word == "wait"
    world.client.hset(world.gate().gate, "since:2", world.now_ms() - 5_000)
    assert world.start(batch, 1, charge(rpm=10)).word == "started"
    assert world.client.hget(world.gate().gate, "since:2") is None


# --- settlement -------------------------------------------------------------------------------------------------------


def test_a_finished_call_returns_what_it_did_not_use(world: World) -> None:
    """The settlement goes into each limit, once."""
    world.freeze(rpm=10, tpm=1000, otpm=500)
    limits = charge(100, 200, rpm=10, tpm=1000, otpm=500)
    held = world.running()
    world.start(held, 1, limits)
    call = world.store.finish(held, *success(1, charge=limits, back=GiveBack(0, 50, 150)))
    assert world.words(call, call, call) == ["finished"] * 3
    assert (world.level("rpm"), world.level("tpm"), world.level("otpm")) == (9, 900, 450)
    assert world.client.zcard(world.gate().inflight) == 0


def test_a_call_that_used_more_is_charged_on_top(world: World) -> None:
    """An estimate that was too low goes into debt, and the next request waits for it."""
    world.freeze(tpm=100)
    held = world.running()
    world.start(held, 1, charge(100, tpm=1000))
    world.finish(held, success(1, charge=charge(100, tpm=1000), back=GiveBack(0, -500)))
    assert world.level("tpm") == -500


def test_a_debt_is_not_forgotten(world: World) -> None:
    """A gate lives longer than any limit takes to fill, for a forgotten one counts as full."""
    world.start(world.running(), 1, charge(10, tpd=10))
    assert world.client.pttl(world.gate().gate) > DAY_MS


def test_an_orphaned_answer_settles_too(world: World) -> None:
    """The levels follow what was really used, not what was kept."""
    old = world.started(lapsed=True)
    world.freeze(tpm=500)
    world.rescue(old.job)
    world.run(world.store.cancel(world.job(old.job.id)))
    call = world.store.finish(old, *success(1, charge=charge(200, tpm=1000), back=GiveBack(0, 200)))
    assert world.words(call, call) == ["late", "late"]
    assert world.level("tpm") == 700


def test_gates_of_models_and_organisations_are_apart(world: World) -> None:
    """What one model or organisation uses says nothing about another."""
    world.start(world.running(), 1, charge(rpd=1, model="a"))
    assert world.start(world.running(), 1, charge(rpd=1, model="b")).word == "started"
    assert world.start(world.running(), 1, charge(rpd=1, model="a")).word == "wait"
    assert len({world.keys.gate(org, m) for org in (ORG, "x") for m in ("a", "b")}) == 4
