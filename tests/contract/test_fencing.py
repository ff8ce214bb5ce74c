"""One writer at a time: whoever lost the lease changes nothing, and what it paid for is still on record."""

from __future__ import annotations

import itertools

import pytest

from tests.contract.world import TIER, World, charge, cut, failure, success
from vessel.gate.limiter import GiveBack
from vessel.jobs.steps import NO_ATTEMPT, ORPHANED, UNKNOWN, Answer, Wait
from vessel.wire import JobState

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


def test_a_ticket_delivered_three_times_is_claimed_once(world: World) -> None:
    """Whoever comes first claims; the others are told that their ticket is stale."""
    job = world.queued()
    for at, owner in enumerate(("w/1", "w/2", "w/3")):
        answer = world.run(world.store.claim(job.id, 0, TIER, owner))
        assert isinstance(answer, Answer) == (at > 0)
        assert not isinstance(answer, Answer) or answer == Answer("stale", JobState.RUNNING)
    assert (world.job(job.id).generation, world.events(job)) == (1, ["created", "claimed"])


def test_a_ticket_delivered_again_after_the_end_drops(world: World) -> None:
    """A redelivered ticket of a finished job starts nothing."""
    held = world.started()
    world.finish(held, success())
    answer = world.run(world.store.claim(held.job.id, 0, TIER, "w/2"))
    assert answer == Answer("stale", JobState.SUCCEEDED)


@pytest.mark.parametrize("verb", ["start", "renew", "park", "requeue", "release", "fail"])
def test_a_stale_worker_moves_nothing(world: World, verb: str) -> None:
    """After a rescue and a new claim the old handle is superseded, whatever it tries."""
    old = world.running("w/1", lapsed=True)
    world.rescue(old.job)
    new = world.claim(old.job, "w/2")
    before = world.everything()
    said = {
        "start": lambda: world.start(old, 1, charge(rpm=10)).word,
        "renew": lambda: world.run(world.store.renew([old]))[0],
        "park": lambda: world.park(old).word,
        "requeue": lambda: world.requeue(old).word,
        "release": lambda: world.run(world.store.release(old)).word,
        "fail": lambda: world.finish(old, (NO_ATTEMPT, failure()[1])).word,
    }[verb]()
    assert said == ("lost" if verb == "renew" else "superseded")
    assert world.everything() == before
    assert world.run(world.store.renew([new])) == ["ok"]


def test_an_owner_with_the_right_generation_only_is_stale(world: World) -> None:
    """The generation alone is no fence: the owner must be the one that claimed."""
    held = world.running("w/1")
    other = type(held)(held.job, held.generation, "w/2", held.keys)
    assert world.park(other).word == "superseded"
    assert world.job(held.job.id).state is JobState.RUNNING


def test_a_late_answer_wins_while_the_job_is_open(world: World) -> None:
    """The first valid answer ends the job, out of a lost lease too; the tickets and leases of the others are void."""
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    ticket = world.job(old.job.id).generation
    assert world.finish(old, success(answer=b"first")) == Answer("finished", JobState.SUCCEEDED)
    assert world.job(old.job.id).response == b"first"
    assert world.run(world.store.claim(old.job.id, ticket, TIER, "w/2")) == Answer("stale", JobState.SUCCEEDED)
    assert world.client.zcard(world.keys.tickets(TIER)) == 0


def test_a_late_answer_wins_from_the_next_lease(world: World) -> None:
    """A running job of another worker ends; that one's answer comes later and is orphaned, its call booked."""
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    new = world.claim(old.job, "w/2")
    world.start(new, 2)
    assert world.finish(old, success(1, b"first")).word == "finished"
    assert world.booked() == [("1", JobState.SUCCEEDED), ("2", UNKNOWN)]
    assert world.finish(new, success(2, b"second")) == Answer("late", JobState.SUCCEEDED)
    job = world.job(old.job.id)
    assert (job.response, [a.outcome for a in job.attempts]) == (b"first", [JobState.SUCCEEDED, ORPHANED])
    assert world.booked() == [("1", JobState.SUCCEEDED), ("2", ORPHANED)]


def test_a_late_answer_wins_over_a_parked_job(world: World) -> None:
    """A job that waits for quota takes the answer of the call it lost, and waits no more."""
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    world.park(world.claim(old.job, "w/2"), delay_ms=60_000)
    assert world.finish(old, success(1)).word == "finished"
    assert world.client.zcard(world.keys.parked) == 0


def test_an_answer_after_the_end_is_orphaned(world: World) -> None:
    """A result never changes: the later answer is recorded and paid for, not used."""
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    new = world.claim(old.job, "w/2")
    world.start(new, 2)
    world.finish(new, success(2, b"second"))
    record = world.record(old.job)
    assert world.finish(old, success(1, b"first")) == Answer("late", JobState.SUCCEEDED)
    after = world.record(old.job)
    assert after[b"response"] == b"second"
    assert {k for k in after if after[k] != record.get(k)} == {b"o:1", b"l:1", b"charged"}
    assert world.booked() == [("2", JobState.SUCCEEDED), ("1", ORPHANED)]


def test_an_answer_after_a_cancel_is_orphaned(world: World) -> None:
    """A cancelled job stays cancelled; its paid answer is in the ledger."""
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    world.run(world.store.cancel(world.job(old.job.id)))
    assert world.finish(old, success(1)) == Answer("late", JobState.CANCELLED)
    assert world.job(old.job.id).response is None
    assert world.booked() == [("1", ORPHANED)]


def test_a_stale_failure_ends_nothing(world: World) -> None:
    """A failure out of a lost lease is recorded with its attempt, and the job goes on."""
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    assert world.finish(old, failure(1)) == Answer("superseded", JobState.QUEUED)
    job = world.job(old.job.id)
    assert (job.state, job.attempts[0].outcome) == (JobState.QUEUED, "bad_request")


def test_a_stale_park_still_books_its_call(world: World) -> None:
    """An ending is on record even when the lease is lost; the job is left to its new owner."""
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    assert world.park(old, success(1)[0]).word == "superseded"
    assert world.job(old.job.id).state is JobState.QUEUED
    assert world.booked() == [("1", JobState.SUCCEEDED)]


@pytest.mark.parametrize("end", ["finish", "fail", "park", "wait", "requeue"])
def test_a_repeated_step_changes_nothing(world: World, end: str) -> None:
    """redis-py may send a call twice: the second time changes no key and finish says the same."""
    held = world.started()
    world.freeze(tpm=0)
    ending, final = success(charge=charge(tpm=10), back=GiveBack(prompt_tokens=3))
    calls = {
        "finish": world.store.finish(held, ending, final),
        "fail": world.store.finish(held, *failure()),
        "park": world.store.park(held, cut(), 0, Wait(60_000, "r", "m")),
        "wait": world.store.park(held, cut(), 0, Wait(60_000, "r", "m", for_gate=True, look_ms=9)),
        "requeue": world.store.requeue(held, cut(), 1, "power", reason="r", message="m"),
    }
    first = world.run(calls[end])
    before = world.everything()
    second = world.run(calls[end])
    assert world.everything() == before
    assert second == first or second.word == "superseded"
    assert second == first or end in {"park", "wait", "requeue"}


def test_a_repeated_claim_is_the_same_claim(world: World) -> None:
    """The answer to a claim may be lost; the same owner asks again and gets its job."""
    job = world.queued()
    first = world.run(world.store.claim(job.id, 0, TIER, "w/1"))
    before = world.everything()
    assert world.run(world.store.claim(job.id, 0, TIER, "w/1")) == first
    assert world.everything() == before


def test_a_claim_repeated_after_the_lease_is_not_the_same_claim(world: World) -> None:
    """A claim that arrives late, after its owner has sent the job on, takes nothing."""
    job = world.queued()
    held = world.claim(job)
    world.run(world.store.release(held))
    assert world.run(world.store.claim(job.id, 0, TIER, "w/1")) == Answer("stale", JobState.QUEUED)


def test_a_late_repeat_of_an_orphan_is_still_late(world: World) -> None:
    """Whoever's answer was not used is told so as often as it asks."""
    old = world.started("w/1", lapsed=True)
    world.rescue(old.job)
    new = world.claim(old.job, "w/2")
    world.start(new, 2)
    world.finish(new, success(2))
    said = world.words(*[world.store.finish(old, *success(1)) for _ in range(3)])
    assert said == ["late"] * 3
    assert world.words(world.store.finish(new, *success(2))) == ["finished"]


def test_at_most_one_lease_is_current(world: World) -> None:
    """Of all handles ever given out only the last one is renewed."""
    job = world.queued()
    handles = []
    for number in range(4):
        handles.append(world.claim(job, f"w/{number}", lapsed=True))
        if number < 3:
            assert world.rescue(job).word == "done"
    assert world.run(world.store.renew(handles)) == ["lost", "lost", "lost", "ok"]
    assert all(a.generation < b.generation for a, b in itertools.pairwise(handles))
