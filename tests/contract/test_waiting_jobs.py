"""Jobs that wait: promoted on time, cancelled and expired in place, flagged while they run, all by Redis' clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.world import DAY_MS, HOUR_MS, OTHER_TIER, TIER, World, charge, cut, success
from tests.waiting import wait_until
from vessel.jobs.steps import NO_ATTEMPT, Answer, Ending, Feed, Final, Wait
from vessel.keyspace.script import Arg, load, word
from vessel.wire import JobState

if TYPE_CHECKING:
    from vessel.jobs.model import Job

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


def test_a_parked_job_is_not_promoted_early(world: World) -> None:
    """Before its time promote says how long there is to wait, and nothing moves."""
    held = world.running()
    until = int(world.park(held, delay_ms=60_000).detail)
    before = world.everything()
    answer = world.run(world.store.promote(world.job(held.job.id)))
    assert answer.word == "early"
    assert 0 < int(answer.detail) <= 60_000
    assert world.everything() == before
    assert world.job(held.job.id).parked_until == until


def test_a_parked_job_is_promoted_once_and_fed_once(world: World) -> None:
    """However many sweeps see it due, it waits in the backlog once; however many feed it, one ticket goes out."""
    held = world.running()
    world.park(held)
    job = held.job
    wait_until(lambda: world.words(world.store.promote(world.job(job.id))) == ["done"])
    assert world.words(*[world.store.promote(job)] * 2) == ["stale", "stale"]
    assert (world.job(job.id).state, world.tickets()) == (JobState.QUEUED, [(job.id, 0)])
    assert world.words(*[world.store.feed(job, world.gate(), Feed(5))] * 3) == ["done", "stale", "stale"]
    assert world.tickets() == [(job.id, 0), (job.id, 1)]
    assert world.claim(job, "w/2").generation == 2


def test_a_fed_job_does_not_wait_for_the_gate_any_more(world: World) -> None:
    """As one that was promoted does not: it has its ticket, and its record says so."""
    held = world.running()
    world.wait(held)
    assert world.job(held.job.id).waits_for_gate
    assert not world.fed(held.job).waits_for_gate


def test_a_sweep_that_read_an_older_record_promotes_nothing(world: World) -> None:
    """It stalled, the job went on and waits for another model by now: its place is not that of the old record."""
    held = world.running()
    world.park(held)
    old = world.job(held.job.id)
    again = world.claim(world.promoted(held.job), "w/2")
    world.run(world.store.park(again, NO_ATTEMPT, 1, Wait(1, "r")))
    wait_until(lambda: world.run(world.store.due()).parked)
    assert world.words(world.store.promote(old)) == ["changed"]
    assert world.words(world.store.promote(world.job(old.id))) == ["done"]


def test_due_names_a_parked_job_when_its_time_has_come(world: World) -> None:
    """The sweep asks Redis; no worker's clock is in it."""
    soon, late = world.running(), world.running()
    world.park(soon)
    world.park(late, delay_ms=HOUR_MS)
    assert wait_until(lambda: world.run(world.store.due()).parked) == (soon.job.id,)


def test_parking_uses_no_attempt(world: World) -> None:
    """A hundred rounds of waiting for quota leave no attempt, no kill and no ledger entry."""
    world.freeze(rpm=0)
    job = world.queued()
    for _ in range(100):
        held = world.claim(job)
        assert world.start(held, 1, charge(rpm=10)).word == "wait"
        world.park(held)
        job = world.promoted(job)
    assert (job.attempts, job.kills, job.counted_attempts, world.ledger()) == ((), 0, 0, [])


def test_a_requeued_job_waits_in_its_next_queue(world: World) -> None:
    """Record, ticket and ticket set agree on the queue, the hop and the generation."""
    held = world.started()
    world.requeue(held, Ending(1, "model_gone", "{}"))
    job = world.job(held.job.id)
    assert (job.queue, job.hop, job.tier, job.current) == (OTHER_TIER, 1, OTHER_TIER, job.hops[1])
    assert world.tickets(OTHER_TIER) == [(job.id, job.generation)]
    assert world.client.zscore(world.keys.tickets(OTHER_TIER), job.id)
    assert world.claim(job, "w/2").job.hop == 1


def test_a_hop_that_never_takes_a_job_is_remembered(world: World) -> None:
    """However it goes on: sent to the next hop, waiting for a time or for the gate, or given back."""
    held, store = world.running(), world.store
    world.run(store.requeue(held, NO_ATTEMPT, 1, OTHER_TIER, reason="too_large", message="", unfit=True))
    held = world.claim(world.job(held.job.id), "w/2")
    assert held.job.unfit == {0}
    world.run(store.release(held))
    held = world.claim(world.job(held.job.id), "w/3")
    assert held.job.unfit == {0}
    world.run(store.park(held, NO_ATTEMPT, 0, Wait(1, "too_large", unfit=True)))
    assert world.job(held.job.id).unfit == {0, 1}


def test_a_released_job_is_as_before(world: World) -> None:
    """Drain gives it back to its own queue, with a ticket and without an attempt."""
    held = world.running()
    world.run(world.store.release(held))
    job = world.job(held.job.id)
    assert (job.state, job.queue, job.attempts) == (JobState.QUEUED, TIER, ())
    assert world.tickets()[-1] == (job.id, 1)
    assert world.events(job)[-1] == "released"


def waiting(world: World, state: JobState, **more: Any) -> Job:
    """Make a job that waits, for its turn or for its time."""
    job = world.queued(**more)
    if state is JobState.PARKED:
        world.park(world.claim(job), delay_ms=HOUR_MS)
    return world.job(job.id)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.PARKED])
def test_a_waiting_job_is_cancelled_at_once(world: World, state: JobState) -> None:
    """It ends where it waits, with nothing sent; a second cancel changes nothing."""
    job = waiting(world, state)
    assert world.words(world.store.cancel(job)) == ["closed"]
    before = world.everything()
    assert world.run(world.store.cancel(job)) == Answer("terminal", JobState.CANCELLED)
    assert world.everything() == before
    assert world.client.zcard(world.keys.parked) == world.client.zcard(world.keys.tickets(TIER)) == 0
    assert isinstance(world.run(world.store.claim(job.id, job.generation, TIER, "w/9")), Answer)


def test_a_running_job_learns_of_its_cancel(world: World) -> None:
    """The flag is seen at the next renewal and at start, is set once, and the job ends when its worker says so."""
    held = world.running()
    assert world.words(*[world.store.cancel(held.job)] * 3) == ["flagged"] * 3
    assert world.events(held.job).count("cancel_requested") == 1
    assert world.run(world.store.renew([held])) == ["cancel"]
    assert world.start(held).word == "cancel_requested"
    assert world.job(held.job.id).attempts == ()
    ended = world.finish(held, (NO_ATTEMPT, Final(JobState.CANCELLED)))
    assert ended == Answer("finished", JobState.CANCELLED)


def test_a_job_that_was_cancelled_while_it_ran_does_not_wait_out_its_park(world: World) -> None:
    """A flagged job whose call wants a long wait is promoted at once, so that its next claim ends it."""
    held = world.started()
    world.run(world.store.cancel(held.job))
    world.park(held, cut(), delay_ms=HOUR_MS)
    assert world.run(world.store.promote(world.job(held.job.id))).word == "done"
    assert world.claim(held.job).job.cancel_requested


def test_a_cancel_flag_outlives_its_lease(world: World) -> None:
    """The next worker is told too, when the first one died before it could tell."""
    held = world.running(lapsed=True)
    world.run(world.store.cancel(held.job))
    world.rescue(held.job)
    assert world.start(world.claim(held.job, "w/2")).word == "cancel_requested"


def test_a_cancelled_job_does_not_wait_for_its_time(world: World) -> None:
    """Parked for an hour with the flag set, it is due at once, and its next claim can end it."""
    held = world.running()
    world.run(world.store.cancel(held.job))
    world.park(held, delay_ms=HOUR_MS)
    job = world.promoted(held.job)
    assert world.claim(job, "w/2").job.cancel_requested


def test_a_cancel_after_the_result_changes_nothing(world: World) -> None:
    """Cancel against finish has one winner: what came first."""
    held = world.started()
    world.finish(held, success())
    assert world.run(world.store.cancel(held.job)) == Answer("terminal", JobState.SUCCEEDED)
    assert world.job(held.job.id).response is not None


def test_a_result_after_a_cancel_flag_still_counts(world: World) -> None:
    """The answer was paid for before the flag was seen, so it is given."""
    held = world.started()
    world.run(world.store.cancel(held.job))
    assert world.finish(held, success()) == Answer("finished", JobState.SUCCEEDED)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.PARKED])
def test_a_waiting_job_expires_at_its_deadline(world: World, state: JobState) -> None:
    """Not before, and with a reason."""
    later, job = waiting(world, state, deadline_ms=HOUR_MS), waiting(world, state, deadline_ms=1)
    assert world.words(world.store.expire(later)) == ["early"]
    assert wait_until(lambda: world.run(world.store.due()).deadlines) == (job.id,)
    assert world.words(world.store.expire(job), world.store.expire(job)) == ["closed", "terminal"]
    found = world.job(job.id)
    assert (found.state, found.reason) == (JobState.EXPIRED, "deadline")
    assert world.run(world.store.due()).deadlines == ()


def test_a_job_without_a_deadline_never_expires(world: World) -> None:
    """No deadline is not a deadline of zero."""
    job = world.queued()
    assert world.words(world.store.expire(job)) == ["early"]


def test_a_deadline_that_passes_in_mid_run_is_kept_in_mind(world: World) -> None:
    """Its worker keeps the deadline while it runs; parked again, the sweep finds it, without asking at every tick."""
    held = world.running(deadline_ms=1)
    wait_until(lambda: world.run(world.store.due()).deadlines)
    assert world.words(world.store.expire(held.job)) == ["early"]
    assert world.run(world.store.due()).deadlines == ()
    assert world.client.zscore(world.keys.deadlines, held.job.id) > world.now_ms()
    world.park(held, delay_ms=HOUR_MS)
    assert world.words(world.store.expire(held.job)) == ["closed"]


def test_no_lease_is_over_for_a_while_after_redis_was_away(world: World) -> None:
    """After a gap in the sweeps whoever still works can renew before anyone is rescued; then rescues go on."""
    held = world.running(lapsed=True)
    assert world.run(world.store.due()).leased == ()  # nobody knows of an earlier sweep: that is a gap too
    world.client.hset(world.keys.sweep, "not_before", 0)
    assert world.run(world.store.due()).leased == (held.job.id,)
    world.client.hset(world.keys.sweep, "last", world.now_ms() - HOUR_MS)
    assert world.run(world.store.due()).leased == ()
    assert world.run(world.store.due()).leased == ()
    assert int(world.client.hget(world.keys.sweep, "not_before")) > world.now_ms()
    assert world.run(world.lapsing.due()).leased == ()
    world.client.hset(world.keys.sweep, "not_before", world.now_ms())
    assert world.run(world.store.due()).leased == (held.job.id,)


def test_a_live_lease_is_not_rescued(world: World) -> None:
    """Renewed in time it is left alone, even when a sweep had it on its list."""
    held = world.running(lapsed=True)
    assert world.run(world.store.renew([held])) == ["ok"]
    answer = world.run(world.store.rescue(held.job))
    assert answer.word == "held"
    assert 0 < int(answer.detail) <= HOUR_MS


def test_renewing_keeps_many_jobs_apart(world: World) -> None:
    """One call for a whole process, one word per job, in order."""
    ours, cancelled, lost = world.running(), world.running(), world.running(lapsed=True)
    world.run(world.store.cancel(cancelled.job))
    world.rescue(lost.job)
    ended = world.started()
    world.finish(ended, success())
    assert world.run(world.store.renew([ours, cancelled, lost, ended])) == ["ok", "cancel", "lost", "lost"]
    assert world.run(world.store.renew([])) == []


def test_an_event_tells_of_every_transition(world: World) -> None:
    """A waiter that follows the stream sees each step."""
    world.freeze(rpd=0)
    held = world.running()
    world.start(held, 1, charge(rpd=10), book_ms=DAY_MS)
    world.freeze(rpd=1)
    world.start(held, 1, charge(rpd=10))
    world.park(held, Ending(1, "timeout", "{}"))
    again = world.claim(world.promoted(held.job), "w/2")
    world.freeze(rpd=10**6)
    world.start(again, 2)
    world.finish(again, success(2))
    assert world.events(held.job) == [
        *("created", "claimed", "booked", "started", JobState.PARKED, "promoted", "fed", "claimed", "started"),
        JobState.SUCCEEDED,
    ]


def test_the_end_wakes_the_waiter(world: World) -> None:
    """Each way to end writes to the reply stream the job names, and only once."""
    reply = world.keys.reply("p1")
    done, gone = world.started(reply=reply), world.queued(reply=reply)
    for _ in range(2):
        world.finish(done, success())
        world.run(world.store.cancel(gone))
    rows = [(f[b"job"].decode(), f[b"state"].decode()) for _, f in world.client.xrange(reply)]
    assert rows == [(done.job.id, JobState.SUCCEEDED), (gone.id, JobState.CANCELLED)]


def test_a_role_has_one_player(world: World) -> None:
    """Whoever holds it keeps it by asking again; another one gets it after its time."""
    script = load("role")

    def ask(owner: str, lease_ms: int) -> str:
        return world.run(script.call({"role": world.keys.role("r")}, {"owner": owner, "lease_ms": lease_ms}, word))

    assert [ask("a", HOUR_MS), ask("b", HOUR_MS), ask("a", 1)] == ["1", "0", "1"]
    wait_until(lambda: ask("b", HOUR_MS) == "1")


def test_a_role_is_given_back_by_its_player_only(world: World) -> None:
    """With a lease of nothing it is free at once; nobody else can end it, and what nobody holds stays so."""

    def ask(owner: str, lease_ms: int) -> int:
        args: dict[str, Arg] = {"owner": owner, "lease_ms": lease_ms}
        return world.run(load("role").call({"role": world.keys.role("r")}, args, int))

    assert [ask("a", 0), ask("a", HOUR_MS), ask("b", 0), ask("b", HOUR_MS)] == [0, 1, 0, 0]
    assert [ask("a", 0), ask("b", HOUR_MS)] == [0, 1]


def test_a_worker_counts_while_it_is_heard(world: World) -> None:
    """Heartbeats count per tier; one that has been silent does not, and is forgotten in the end."""
    tiers = [world.keys.live(TIER), world.keys.live(OTHER_TIER)]

    def beat(worker: str, silent_ms: int) -> None:
        said: dict[str, Arg] = {"worker": worker, "silent_ms": silent_ms, "slots_here": 7}
        world.run(load("heartbeat").call({"slots": world.keys.slots}, said, word, more_keys=tiers[:1]))

    def alive(silent_ms: int) -> list[int]:
        return world.run(load("alive").call({}, {"silent_ms": silent_ms}, list, more_keys=tiers))

    beat("w1", HOUR_MS)
    assert alive(HOUR_MS) == [1, 0]
    wait_until(lambda: alive(1) == [0, 0])
    beat("w2", 1)
    assert alive(HOUR_MS) == [1, 0]
    assert world.client.hgetall(world.keys.slots) == {b"w2": b"7"}
