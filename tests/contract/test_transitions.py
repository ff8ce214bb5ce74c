"""TRANSITIONS is the only state table: over all states and verbs, nothing else changes a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.world import DAY_MS, TIER, World, charge, failure, success
from tests.waiting import wait_until
from vessel.jobs.model import TRANSITIONS, Job, Verb
from vessel.jobs.steps import NO_ATTEMPT, Feed, Final, Held, Issue
from vessel.jobs.tokens import Batch, stream
from vessel.wire import TERMINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")

INVALID_FINISH = "finish without a result"


def job_in(world: World, state: JobState, *, backlog: bool = False) -> Job:
    """Bring a job into a state by the verbs that lead there; its lease, wait or deadline is over where it has one.

    `backlog`: a waiting one waits there, without a ticket.
    """
    if backlog and state is JobState.QUEUED:
        return world.queued(deadline_ms=1, issue=Issue.BACKLOG, policy={"max_wait": 0.001})
    if state is JobState.RUNNING:
        return world.running(lapsed=True, deadline_ms=1).job
    job = world.queued(deadline_ms=1)
    match state:
        case JobState.QUEUED:
            pass
        case JobState.PARKED:
            (world.wait if backlog else world.park)(world.claim(job))
        case JobState.CANCELLED:
            world.run(world.store.cancel(job))
        case JobState.EXPIRED:
            wait_until(lambda: world.run(world.store.expire(job)).word == "closed")
        case JobState.SUCCEEDED | JobState.FAILED:
            held = world.claim(job)
            world.start(held)
            world.finish(held, success() if state is JobState.SUCCEEDED else failure())
    return world.job(job.id)


def without_attempts(record: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Leave the attempts and their sum out: a call's ending is recorded in every state."""
    sums, of_attempts = {b"n", b"charged"}, {b"a", b"at", b"by", b"o", b"l"}
    return {k: v for k, v in record.items() if k not in sums and k.partition(b":")[0] not in of_attempts}


def forged(world: World, job: Job) -> Held:
    """Make a handle whose generation and owner are right, so that only the state can refuse it."""
    return Held(job, job.generation, "w/1", world.store.of(job))


def book(world: World, held: Held) -> None:
    """Ask to start where nothing is left before tomorrow."""
    world.freeze(rpd=0)
    world.start(held, 1, charge(rpd=10), book_ms=DAY_MS)


def act(world: World, verb: Verb | str, job: Job) -> None:
    """Try a verb with everything but the state in its favour."""
    held, store = forged(world, job), world.store
    issued = int(world.client.zscore(world.keys.tickets(TIER), job.id) or 0)
    ending, final = success(len(job.attempts) + 1)
    calls: dict[Verb | str, Callable[[], object]] = {
        Verb.CREATE: lambda: world.run(store.create(world.new(id=job.id, body=b"{}"), TIER, issue=Issue.TICKET)),
        Verb.CLAIM: lambda: world.run(store.claim(job.id, job.generation, job.queue, "w/2")),
        Verb.BOOK: lambda: book(world, held),
        Verb.START: lambda: world.start(held, len(job.attempts) + 1),
        Verb.RENEW: lambda: world.run(store.renew([held])),
        Verb.STREAM: lambda: world.run(stream(held, 1, Batch(1, [{"delta": {"content": "a"}}]))),
        Verb.FINISH: lambda: world.finish(held, (ending, final)),
        INVALID_FINISH: lambda: world.finish(held, (NO_ATTEMPT, Final(JobState.FAILED))),
        Verb.PARK: lambda: world.park(held),
        Verb.REQUEUE: lambda: world.requeue(held),
        Verb.RELEASE: lambda: world.run(store.release(held)),
        Verb.PROMOTE: lambda: world.run(store.promote(job)),
        Verb.FEED: lambda: world.run(store.feed(job, world.gate(), Feed(1))),
        Verb.REISSUE: lambda: world.run(store.reissue(job, job.queue, issued)),
        Verb.RESCUE: lambda: world.run(store.rescue(job)),
        Verb.CANCEL: lambda: world.run(store.cancel(job)),
        Verb.EXPIRE: lambda: world.run(store.expire(job)),
    }
    calls[verb]()


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("verb", Verb)
def test_a_verb_acts_from_its_sources_only(world: World, verb: Verb, state: JobState) -> None:
    """From a source a verb leads to one of its targets; from any other state the record stays as it was."""
    job = job_in(world, state, backlog=verb is Verb.FEED or (verb, state) == (Verb.PROMOTE, JobState.QUEUED))
    edge = TRANSITIONS[verb]
    before, told = world.record(job), world.events(job)
    if state in edge.sources:

        def moved() -> bool:
            act(world, verb, world.job(job.id))
            return (world.record(job), world.events(job)) != (before, told)

        wait_until(moved)
        assert world.job(job.id).state in edge.leads(state)
    else:
        act(world, verb, job)
        assert without_attempts(world.record(job)) == without_attempts(before)
        assert verb is Verb.FINISH or world.record(job) == before


@pytest.mark.parametrize("state", [state for state in JobState if state is not JobState.RUNNING])
def test_an_ending_without_a_result_needs_the_lease(world: World, state: JobState) -> None:
    """A failure, a cancel or an expiry from a worker without the lease changes nothing, in whatever open state."""
    job = job_in(world, state)
    before = world.record(job)
    act(world, INVALID_FINISH, job)
    assert world.record(job) == before


@pytest.mark.parametrize("verb", Verb)
def test_a_missing_record_is_never_made_up(world: World, verb: Verb) -> None:
    """A verb on a job that is gone answers so; at most a stub that ends by itself remembers a booked call."""
    job = job_in(world, JobState.RUNNING)
    names = {world.keys.job(job.id), world.keys.events(job.id)}
    world.client.delete(*names)
    if verb is Verb.CREATE:
        return
    act(world, verb, job)
    assert world.run(world.store.read(job.id)) is None
    assert world.run(world.store.peek(job.id)) is None
    assert all(world.client.pttl(name) != -1 for name in names)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_end_is_never_left(world: World, state: JobState) -> None:
    """After the end no verb changes state, generation or result, also not the one that led there."""
    job = job_in(world, state)
    for verb in (*Verb, INVALID_FINISH):
        act(world, verb, job)
        now = world.job(job.id)
        assert (now.state, now.generation, now.response) == (job.state, job.generation, job.response), verb


def test_the_table_reaches_every_state() -> None:
    """Each state is some verb's target, and none leads out of an end."""
    assert frozenset().union(*(edge.targets for edge in TRANSITIONS.values())) == frozenset(JobState)
    assert not TERMINAL & frozenset().union(*(edge.sources for edge in TRANSITIONS.values()))
    assert set(TRANSITIONS) == set(Verb)


def test_a_job_cancelled_after_a_call_does_not_claim_that_nothing_was_sent(world: World) -> None:
    """A parked job that Groq had answered 429 was once told "nothing was sent" when it was cancelled."""
    job = world.queued()
    held = world.claim(job)
    world.start(held)
    world.park(held)
    world.run(world.store.cancel(world.job(job.id)))
    assert "nothing more was sent" in world.job(job.id).message
