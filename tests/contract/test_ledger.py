"""Every call that may be billed is in the ledger exactly once, and an attempt's row is never rewritten."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from tests.contract.world import ENDING_ROW, ROW, UNKNOWN_ROW, World, charge, cut, success
from vessel.gate.limiter import GiveBack
from vessel.jobs.steps import ORPHANED, UNKNOWN, Ending, Final
from vessel.jobs.store import MAX_KILLS, MAX_LAPSES
from vessel.wire import JobState

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


def test_a_call_cut_by_a_kill_is_booked_as_unknown_once(world: World) -> None:
    """The write-ahead row becomes the entry, however many sweeps look."""
    held = world.started(lapsed=True)
    assert world.words(*[world.store.rescue(world.job(held.job.id)) for _ in range(3)]) == ["done", "stale", "stale"]
    (entry,) = world.ledger()
    assert (entry["call"], entry["outcome"], entry["row"]) == (f"{held.job.id}/1", UNKNOWN, UNKNOWN_ROW)


def test_a_late_answer_amends_its_unknown_entry(world: World) -> None:
    """The guess goes and the truth names what it replaces, when the answer wins and when it is orphaned."""
    for label in (JobState.SUCCEEDED, ORPHANED):
        world.client.delete(world.keys.ledger)
        held = world.started(lapsed=True)
        world.rescue(held.job)
        (guess,) = world.ledger()
        if label == ORPHANED:
            world.run(world.store.cancel(world.job(held.job.id)))
        for _ in range(2):
            world.finish(held, success(1))
        (entry,) = world.ledger()
        assert (entry["outcome"], entry["amends"], entry["row"]) == (label, guess["entry"], '{"attempt":1}')


def test_a_late_unknown_amends_nothing(world: World) -> None:
    """A worker that comes back without an answer has nothing to add."""
    held = world.started(lapsed=True)
    world.rescue(held.job)
    before = world.ledger()
    world.park(held, cut())
    assert world.ledger() == before
    assert world.job(held.job.id).attempts[0].outcome == UNKNOWN


def test_a_known_entry_is_never_amended(world: World) -> None:
    """The first ending of a call stays, whatever is said about it later."""
    held = world.started()
    world.requeue(held, success(1)[0])
    before = world.everything()
    world.finish(held, (cut(1), Final(JobState.FAILED)))
    assert world.everything() == before


def test_a_failure_that_costs_nothing_is_not_booked(world: World) -> None:
    """An empty ledger row means that nothing was charged."""
    held = world.started()
    world.park(held, Ending(1, "rate_limited", '{"status":429}'))
    assert world.ledger() == []
    assert world.job(held.job.id).attempts[0].outcome == "rate_limited"


def test_a_paid_call_of_a_missing_record_is_booked_once(world: World) -> None:
    """Redis lost the job, not the bill: one entry however often finish is repeated, and no key stays for ever."""
    held = world.started()
    world.freeze(tpm=2)
    world.client.delete(world.keys.job(held.job.id), world.keys.events(held.job.id))
    call = world.store.finish(held, *success(1, charge=charge(tpm=10), back=GiveBack(prompt_tokens=3)))
    assert world.words(call, call, call) == ["missing"] * 3
    assert world.booked() == [("1", ORPHANED)]
    assert world.level("tpm") == 5
    assert world.run(world.store.read(held.job.id)) is None


@pytest.mark.parametrize("how", ["park", "requeue", "finish"])
def test_an_unknown_ending_of_a_missing_record_stays_unknown(world: World, how: str) -> None:
    """No answer was seen, so nothing is called orphaned."""
    held = world.started()
    world.client.delete(world.keys.job(held.job.id), world.keys.events(held.job.id))
    {
        "park": lambda: world.park(held, cut()),
        "requeue": lambda: world.requeue(held, cut()),
        "finish": lambda: world.finish(held, (cut(), Final(JobState.FAILED))),
    }[how]()
    assert world.booked() == [("1", UNKNOWN)]


def test_an_attempt_that_redis_forgot_keeps_its_number(world: World) -> None:
    """After a rewind of Redis by a second the call's ending finds no row: it gets one, and the next call is another."""
    held = world.running()
    before = world.record(held.job)
    world.start(held)
    name = world.keys.job(held.job.id)
    world.client.delete(name)
    world.client.hset(name, mapping=before)
    assert world.requeue(held, cut()).word == "done"
    job = world.job(held.job.id)
    assert [(a.number, a.outcome, a.worker) for a in job.attempts] == [(1, UNKNOWN, "w/1")]
    again = world.claim(job)
    world.start(again, 2)
    world.finish(again, success(2))
    assert world.booked() == [("1", UNKNOWN), ("2", JobState.SUCCEEDED)]
    assert [a.outcome for a in world.job(job.id).attempts] == [UNKNOWN, JobState.SUCCEEDED]


def test_several_attempts_that_redis_forgot_can_be_read(world: World) -> None:
    """The rows before the one that was written again are shown as lost, not as an error."""
    held = world.running()
    world.park(held, cut(3))
    job = world.job(held.job.id)
    assert [(a.number, a.model, a.outcome) for a in job.attempts][:2] == [(1, "", UNKNOWN), (2, "", UNKNOWN)]
    assert len(job.attempts) == 3


def test_attempts_are_append_only(world: World) -> None:
    """Rows and endings that were written once keep their bytes to the end."""
    held = world.started()
    seen: dict[bytes, bytes] = {}
    for number in (1, 2, 3):
        record = world.record(held.job)
        assert seen.items() <= record.items()
        assert record[f"a:{number}".encode()] == ROW.encode()
        world.requeue(held, Ending(number, "timeout", ENDING_ROW))
        seen = {k: v for k, v in world.record(held.job).items() if k[:2] in {b"a:", b"o:", b"at", b"u:"}}
        held = world.run_next(held, number + 1)
    assert [a.number for a in world.job(held.job.id).attempts] == [1, 2, 3, 4]


def test_three_kills_in_mid_call_poison_a_job(world: World) -> None:
    """The third worker lost in its call ends it: failed, with three unknown calls in the ledger."""
    job = world.queued()
    for kill in range(1, MAX_KILLS + 1):
        held = world.claim(job, f"w/{kill}", lapsed=True)
        world.start(held, kill)
        assert world.rescue(job).word == ("poisoned" if kill == MAX_KILLS else "done")
    found = world.job(job.id)
    assert (found.state, found.reason, found.kills) == (JobState.FAILED, "poison_job", 3)
    assert world.booked() == [("1", UNKNOWN), ("2", UNKNOWN), ("3", UNKNOWN)]
    assert world.client.pttl(world.keys.job(job.id)) > 0
    assert world.client.zcard(world.keys.leases) == 0
    assert len(world.tickets()) == MAX_KILLS


def test_a_kill_before_the_call_is_no_kill(world: World) -> None:
    """Nothing was sent, so nothing is booked and no attempt is used; yet not for ever."""
    job = world.queued()
    for lapse in range(1, MAX_LAPSES + 1):
        world.claim(job, f"w/{lapse}", lapsed=True)
        assert world.rescue(job).word == ("poisoned" if lapse == MAX_LAPSES else "done")
    found = world.job(job.id)
    assert (found.kills, found.lapses, found.attempts, world.ledger()) == (0, MAX_LAPSES, (), [])


def test_a_kill_after_the_ending_is_no_kill(world: World) -> None:
    """A worker that dies after it recorded its call and before its next one cost the job nothing."""
    held = world.started()
    world.requeue(held, Ending(1, "timeout", ENDING_ROW))
    world.claim(world.job(held.job.id), "w/2", lapsed=True)
    world.rescue(held.job)
    assert (world.job(held.job.id).kills, world.ledger()) == (0, [])


def test_a_poisoned_job_still_takes_no_answer(world: World) -> None:
    """Failed is an end: the answer of a killed worker that lives after all is orphaned, and its entry amended."""
    job = world.queued()
    handles = []
    for kill in range(1, MAX_KILLS + 1):
        handles.append(world.claim(job, f"w/{kill}", lapsed=True))
        world.start(handles[-1], kill)
        world.rescue(job)
    assert world.finish(handles[1], success(2)).word == "late"
    assert sorted(world.booked()) == [("1", UNKNOWN), ("2", ORPHANED), ("3", UNKNOWN)]


def test_the_calls_worst_case_counts_until_it_is_known(world: World) -> None:
    """What a job has spent includes a call in flight, at its bound."""
    held = world.started()
    assert world.job(held.job.id).spent_nano_usd == json.loads(ROW)["worst_nano_usd"]
    world.requeue(held, success(1)[0])
    assert world.job(held.job.id).spent_nano_usd == json.loads(ENDING_ROW)["cost_nano_usd"]


def booked(number: int, label: str, prompt: int, cost: str, **more: object) -> Ending:
    """Build the ending of a call that was charged so much."""
    tokens = {"input": prompt, "output": 10, "cached": 1}
    row = json.dumps({"tokens": tokens, "cost_usd": "@", **more}, separators=(",", ":"))
    return Ending(number, label, ENDING_ROW, row.replace('"@"', cost))


def test_a_job_without_an_answer_tells_what_its_calls_took(world: World) -> None:
    """Charged all the same: two failures, one at an estimated price, and a guess; an open job tells nothing yet."""
    held = world.started()
    world.requeue(held, booked(1, "failed", 100, "0.000000000001"))
    again = world.run_next(held, 2)
    world.requeue(again, booked(2, "failed", 20, "0.1", estimated=True))
    assert (world.job(held.job.id).usage, world.job(held.job.id).cost_usd) == (None, None)
    last = world.run_next(held, 3)
    world.finish(last, (booked(3, UNKNOWN, 3, "0.25"), Final(JobState.CANCELLED)))
    usage = {"prompt_tokens": 123, "completion_tokens": 30, "total_tokens": 153, "cached_tokens": 3,
             "cost_estimated": True, "unknown_calls": 1}  # fmt: skip
    for job in (world.job(held.job.id), world.run(world.store.peek(held.job.id))):
        assert job is not None
        assert (job.usage, job.cost_usd) == (usage, Decimal("0.350000000001"))


def test_a_job_tells_its_answer_and_no_guess_that_was_amended(world: World) -> None:
    """What a rescued job's first call may have cost goes when it answers after all, be it for the job or too late."""
    held = world.started(lapsed=True)
    world.client.hset(world.keys.job(held.job.id), "u:1", booked(1, UNKNOWN, 9, "0.5").ledger_row)
    world.rescue(held.job)
    world.run(world.store.cancel(world.job(held.job.id)))
    assert world.job(held.job.id).cost_usd == Decimal("0.5")
    world.finish(held, (booked(1, JobState.SUCCEEDED, 9, "0.125"), success()[1]))
    found = world.job(held.job.id)
    assert (found.state, found.cost_usd, found.usage) == (
        JobState.CANCELLED, Decimal("0.125"),
        {"prompt_tokens": 9, "completion_tokens": 10, "total_tokens": 19, "cached_tokens": 1},
    )  # fmt: skip
    won = world.started()
    world.finish(won, (booked(1, JobState.SUCCEEDED, 9, "0.125"), success()[1]))
    assert not world.client.hexists(world.keys.job(won.job.id), "charged")
