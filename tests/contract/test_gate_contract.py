"""Admission: all limits or none are charged, a refusal costs nothing and says when, and what is unused comes back."""

from __future__ import annotations

import math

import pytest

from tests.contract.world import HOUR_MS, SLOW_MS, World, charges, success
from tests.waiting import wait_until
from vessel.gate.limiter import Bucket, Charge, GiveBack
from vessel.jobs.store import NO_ATTEMPT, Answer, Ending, Final, Held, decode_booking, encode_booking
from vessel.keyspace.script import load, word
from vessel.wire import JobState

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


def frozen(world: World, level: float, name: str = "rpm") -> Bucket:
    """Make a bucket of ten a minute that has this level for the next hour, unless it is charged."""
    bucket = Bucket(name, world.keys.bucket(f"frozen/{name}"), 10, 60_000)
    world.client.hset(bucket.key, mapping={"level": level, "at": world.now_ms() + HOUR_MS})
    world.client.pexpire(bucket.key, HOUR_MS)
    return bucket


def booked(world: World, bucket: Bucket, *, lapsed: bool = False, cost: int = 4, ahead_ms: int = SLOW_MS) -> Held:
    """Claim a job and book a start that lies ahead."""
    held = world.running(lapsed=lapsed)
    answer = world.start(held, 1, charges(bucket, cost), book_ms=ahead_ms)
    assert answer.word == "booked"
    return held


def test_a_start_charges_every_limit(world: World) -> None:
    """Each bucket is charged its own cost, once."""
    rpm, tpm = world.bucket(10, "rpm", level=10), world.bucket(1000, "tpm", level=1000)
    held = world.running()
    both = (Charge(rpm, 1), Charge(tpm, 300))
    assert [world.start(held, 1, both).word for _ in range(3)] == ["started"] * 3
    assert (world.level(rpm), world.level(tpm)) == (9, 700)


def test_a_fresh_bucket_is_full(world: World) -> None:
    """A limit nobody has used yet admits its whole capacity at once, and not one more."""
    bucket = world.bucket(3)
    assert [world.start(world.running(), 1, charges(bucket, 1)).word for _ in range(4)] == ["started"] * 3 + ["wait"]


@pytest.mark.parametrize("short", [0, 1, 2])
def test_one_short_limit_charges_none(world: World, short: int) -> None:
    """All or nothing: the limit that is short is named, and no bucket changes, be it first, middle or last."""
    buckets = [world.bucket(10, name, level=0 if i == short else 10) for i, name in enumerate(("rpm", "rpd", "tpm"))]
    held = world.running()
    before = world.everything()
    answer = world.start(held, 1, tuple(Charge(b, 1) for b in buckets))
    assert (answer.word, answer.limit) == ("wait", buckets[short].name)
    assert world.everything() == before


@pytest.mark.parametrize(("level", "cost"), [(0, 1), (3, 4), (2.5, 7), (-5, 10), (9.999999, 10), (0, 10)])
def test_a_refusal_says_exactly_when(world: World, level: float, cost: int) -> None:
    """The wait is the missing amount over the refill rate, rounded up to a millisecond."""
    bucket = frozen(world, level)
    answer = world.start(world.running(), 1, charges(bucket, cost))
    assert answer == Answer("wait", str(math.ceil((cost - level) * bucket.period_ms / bucket.capacity)), "rpm")


def test_the_longest_wait_counts(world: World) -> None:
    """Of several short limits the one that takes longest is answered."""
    quick, slow = frozen(world, 9, "rpm"), frozen(world, 2, "tpm")
    answer = world.start(world.running(), 1, (Charge(slow, 10), Charge(quick, 10)))
    assert (answer.detail, answer.limit) == (str(8 * 6000), "tpm")


def test_a_bucket_refills_continuously(world: World) -> None:
    """After the time a refusal named the same request is admitted, by Redis' clock."""
    bucket = Bucket("rpm", world.keys.bucket("quick"), 10, 100)
    assert world.start(world.running(), 1, charges(bucket, 10)).word == "started"
    held = world.running()
    wait_until(lambda: world.start(held, 1, charges(bucket, 10)).word == "started")
    assert world.level(bucket) < 5


def test_a_bucket_never_holds_more_than_its_capacity(world: World) -> None:
    """Idle time fills it once, not twice, and what comes back does not overfill it."""
    bucket = world.bucket(10)
    world.client.hset(bucket.key, mapping={"level": 10, "at": world.now_ms() - SLOW_MS})
    world.client.pexpire(bucket.key, HOUR_MS)
    held = world.running()
    world.start(held, 1, charges(bucket, 1))
    assert world.level(bucket) == 9
    world.park(held, Ending(1, "rate_limited", "{}", give_back=(GiveBack(bucket, 500),)))
    assert world.level(bucket) == 10


def test_a_request_that_can_never_fit_is_said_to_be_too_large(world: World) -> None:
    """More than the capacity is not worth a wait; nothing is charged."""
    rpm, tpm = world.bucket(10, "rpm", level=10), world.bucket(100, "tpm", level=100)
    answer = world.start(world.running(), 1, (Charge(rpm, 1), Charge(tpm, 101)))
    assert (answer.word, answer.limit) == ("too_large", "tpm")
    assert (world.level(rpm), world.level(tpm)) == (10, 100)


def test_a_short_wait_is_booked_and_charged_now(world: World) -> None:
    """The level goes below zero, so the next one waits behind this one."""
    bucket = world.bucket(10, level=1)
    first, second = world.running(), world.running()
    unit = SLOW_MS // 10
    answer = world.start(first, 1, charges(bucket, 2), book_ms=unit)
    assert answer.word == "booked"
    assert 0 <= unit - int(answer.detail) < HOUR_MS
    assert world.level(bucket) == -1
    answer = world.start(second, 1, charges(bucket, 2), book_ms=unit)
    assert (answer.word, answer.limit) == ("wait", "rpm")
    assert 0 <= 3 * unit - int(answer.detail) < HOUR_MS
    assert world.level(bucket) == -1


def test_a_booking_starts_at_its_time_and_not_before(world: World) -> None:
    """Asking early, as a repeated call does, gets the rest of the wait; in time it starts, without a second charge."""
    bucket = world.bucket(10, level=1)
    held = world.running()
    first = world.start(held, 1, charges(bucket, 2), book_ms=SLOW_MS)
    again = world.start(held, 1, charges(bucket, 2), book_ms=SLOW_MS)
    assert (first.word, again.word) == ("booked", "booked")
    assert int(again.detail) <= int(first.detail)
    assert world.job(held.job.id).attempts == ()
    world.client.hset(world.keys.job(held.job.id), "start_at", world.now_ms())
    assert world.start(held, 1, charges(bucket, 2), book_ms=SLOW_MS).word == "started"
    assert world.level(bucket) == -1
    assert world.job(held.job.id).booking == ""


def test_a_booking_that_is_worked_off_starts_by_itself(world: World) -> None:
    """A worker that sleeps for the wait it was told starts at its next call."""
    bucket = Bucket("rpm", world.keys.bucket("quick"), 10, 100)
    world.start(world.running(), 1, charges(bucket, 10))
    held = world.running()
    assert world.start(held, 1, charges(bucket, 10), book_ms=1000).word == "booked"
    wait_until(lambda: world.start(held, 1, charges(bucket, 10), book_ms=1000).word == "started")


@pytest.mark.parametrize("how", ["release", "park", "requeue", "cancel", "rescue"])
def test_an_unused_booking_comes_back_once(world: World, how: str) -> None:
    """Whoever ends the lease gives the booking back, and repeating it gives nothing more."""
    bucket = world.bucket(10, level=1)
    held = booked(world, bucket, lapsed=how == "rescue")
    assert world.level(bucket) == -3
    back = (GiveBack(bucket, 4),)
    ending = Ending(0, "", "", give_back=back)
    job = world.job(held.job.id)
    assert decode_booking(job.booking) == back
    call = {
        "release": world.store.release(held, back),
        "park": world.store.park(held, ending, 0, delay_ms=HOUR_MS, reason="", message=""),
        "requeue": world.store.requeue(held, ending, 1, "power", reason="", message=""),
        "cancel": world.store.finish(held, ending, Final(JobState.CANCELLED)),
        "rescue": world.store.rescue(job, decode_booking(job.booking)),
    }[how]
    for _ in range(3):
        world.run(call)
        assert world.level(bucket) == 1


def test_a_booking_under_a_lease_that_went_comes_back(world: World) -> None:
    """A late answer of an older lease wins while the next one sleeps; that one's next step returns its booking."""
    bucket = world.bucket(10, level=1)
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    new = world.claim(old.job, "w/2")
    assert world.start(new, 2, charges(bucket, 4), book_ms=SLOW_MS).word == "booked"
    assert world.finish(old, success(1)).word == "finished"
    assert world.level(bucket) == -3
    for _ in range(2):
        assert world.start(new, 2, charges(bucket, 4), book_ms=SLOW_MS).word == "superseded"
        assert world.level(bucket) == 1


def test_rescue_looks_again_when_the_booking_has_changed(world: World) -> None:
    """A sweep that read the record before the booking was made does not lose it."""
    bucket = world.bucket(10, level=1)
    held = world.running(lapsed=True)
    before = world.job(held.job.id)
    world.start(held, 1, charges(bucket, 4), book_ms=SLOW_MS)
    assert world.words(world.store.rescue(before)) == ["changed"]
    after = world.job(held.job.id)
    assert world.words(world.store.rescue(after, decode_booking(after.booking))) == ["done"]
    assert world.level(bucket) == 1


def test_a_finished_call_returns_what_it_did_not_use(world: World) -> None:
    """The settlement goes into each bucket, once."""
    rpm, tpm = world.bucket(10, "rpm", level=10), world.bucket(1000, "tpm", level=1000)
    held = world.running()
    world.start(held, 1, (Charge(rpm, 1), Charge(tpm, 300)))
    call = world.store.finish(held, *success(1, back=[GiveBack(rpm, 0), GiveBack(tpm, 250)]))
    assert world.words(call, call, call) == ["finished"] * 3
    assert (world.level(rpm), world.level(tpm)) == (9, 950)


def test_a_call_that_used_more_is_charged_on_top(world: World) -> None:
    """An estimate that was too low goes into debt, and the next request waits for it."""
    bucket = world.bucket(1000, "tpm", level=100)
    held = world.running()
    world.start(held, 1, charges(bucket, 100))
    world.finish(held, success(1, back=[GiveBack(bucket, -500)]))
    assert world.level(bucket) == -500


def test_a_debt_is_not_forgotten(world: World) -> None:
    """A bucket deep in debt lives until it would be paid, for a forgotten bucket counts as full."""
    bucket = world.bucket(10, level=10)
    held = world.running()
    world.start(held, 1, charges(bucket, 10))
    world.finish(held, success(1, back=[GiveBack(bucket, -50)]))
    assert world.client.pttl(bucket.key) > 5 * bucket.period_ms


def test_an_orphaned_answer_settles_too(world: World) -> None:
    """The buckets follow what was really used, not what was kept."""
    bucket = world.bucket(1000, "tpm", level=500)
    held = world.started(lapsed=True)
    world.rescue(held.job)
    world.run(world.store.cancel(world.job(held.job.id)))
    call = world.store.finish(held, *success(1, back=[GiveBack(bucket, 200)]))
    assert world.words(call, call) == ["late", "late"]
    assert world.level(bucket) == 700


def test_a_blocked_model_is_waited_for(world: World) -> None:
    """What one worker learned from a 429 holds all of them back, and charges nothing."""
    bucket = world.bucket(10, level=10)
    block = load("block").call({"gate": world.gate}, {"wait_ms": 30_000, "reason": "tpm"}, word)
    world.run(block)
    answer = world.start(world.running(), 1, charges(bucket, 1))
    assert answer.word == "wait"
    assert 0 < int(answer.detail) <= 30_000
    assert world.level(bucket) == 10


def test_a_shorter_block_never_shortens_a_longer_one(world: World) -> None:
    """The latest time stands."""
    script = load("block")
    until = world.run(script.call({"gate": world.gate}, {"wait_ms": 30_000, "reason": "a"}, word))
    assert world.run(script.call({"gate": world.gate}, {"wait_ms": 10, "reason": "b"}, word)) == until


def test_a_booking_is_written_so_that_it_can_be_read_back() -> None:
    """What encode writes, decode gives back as amounts."""
    bucket = Bucket("tpm", "k:é", 10, 60_000)
    assert decode_booking(encode_booking([Charge(bucket, 3)])) == (GiveBack(bucket, 3),)
    assert decode_booking("") == ()


def test_many_waiters_are_booked_one_behind_the_other(world: World) -> None:
    """Start times do not coincide: each booking waits for those before it."""
    bucket = world.bucket(10, level=0)
    waits = [int(world.start(world.running(), 1, charges(bucket, 1), book_ms=SLOW_MS).detail) for _ in range(5)]
    assert [round(wait * bucket.capacity / SLOW_MS, 3) for wait in waits] == [1, 2, 3, 4, 5]


def test_no_booking_without_a_claim(world: World) -> None:
    """A handle that never held the lease books nothing."""
    bucket = world.bucket(10, level=0)
    job = world.queued()
    forged = Held(job, 0, "w/1", world.store.of(job))
    assert world.start(forged, 1, charges(bucket, 1), book_ms=SLOW_MS).word == "superseded"
    assert world.level(bucket) == 0
    assert world.park(forged, NO_ATTEMPT).word == "superseded"
