"""A job is created whole and once: record, idempotency key, index, deadline and ticket in one step."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract.world import HOUR_MS, OTHER_TIER, TIER, World, success
from vessel.jobs.steps import Answer, Issue
from vessel.wire import JobState, Priority

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


def test_a_new_job_can_be_claimed(world: World) -> None:
    """What was written is what is read, and its ticket is in its tier's list."""
    new = world.new(priority=Priority.BATCH, deadline_ms=HOUR_MS, builtin_tools=("web_search",), retry_of="job_0")
    assert world.run(world.store.create(new, TIER, issue=Issue.TICKET)) == Answer("created", new.id)
    job = world.job(new.id)
    assert (job.id, job.state, job.generation, job.tenant) == (new.id, JobState.QUEUED, 0, "t")
    assert (job.priority, job.hops, job.policy, job.reasons) == (new.priority, new.hops, new.policy, new.reasons)
    assert (job.body, job.builtin_tools, job.retry_of) == (new.body, ("web_search",), "job_0")
    assert job.deadline_at == job.created_at + HOUR_MS
    assert world.tickets() == [(new.id, 0)]
    assert world.client.zscore(world.keys.index, new.id) == job.created_at


def test_creating_twice_changes_nothing(world: World) -> None:
    """A repeated call gives the same answer and no second ticket, also when the job has moved on."""
    new = world.new(idempotency_key="k")
    call = world.store.create(new, TIER, issue=Issue.TICKET)
    world.run(call)
    for step in (lambda: world.claim(world.job(new.id)), lambda: None):
        before = world.everything()
        assert world.run(call) == Answer("created", new.id)
        assert world.everything() == before
        step()


def test_the_same_key_and_body_is_the_same_job(world: World) -> None:
    """The second caller gets the first one's job, whatever has become of it, and nothing is written."""
    held = world.started(idempotency_key="k", body_hash="same")
    for step in (lambda: world.finish(held, success()), lambda: None):
        before = world.everything()
        again = world.store.create(world.new(idempotency_key="k", body_hash="same"), OTHER_TIER, issue=Issue.TICKET)
        assert world.run(again) == Answer("exists", held.job.id)
        assert world.everything() == before
        step()


def test_the_same_key_with_another_body_is_a_conflict(world: World) -> None:
    """Nothing is written for it."""
    first = world.queued(idempotency_key="k", body_hash="one")
    before = world.everything()
    other = world.store.create(world.new(idempotency_key="k", body_hash="two"), TIER, issue=Issue.TICKET)
    assert world.run(other) == Answer("conflict", first.id)
    assert world.everything() == before


def test_keys_belong_to_their_tenant(world: World) -> None:
    """Two tenants may use the same key, and neither learns of the other."""
    ours = world.new(idempotency_key="k", tenant="a", body_hash="one")
    theirs = world.new(idempotency_key="k", tenant="b", body_hash="two")
    answers = [world.run(world.store.create(new, TIER, issue=Issue.TICKET)) for new in (ours, theirs)]
    assert answers == [Answer("created", ours.id), Answer("created", theirs.id)]


@pytest.mark.parametrize("key", ["a b", 'q"uote', "x" * 255, "*", "a:b"])
def test_any_printable_key_works(world: World, key: str) -> None:
    """A key is hashed before it names anything in Redis."""
    first = world.queued(idempotency_key=key)
    again = world.run(world.store.create(world.new(idempotency_key=key), TIER, issue=Issue.TICKET))
    assert again == Answer("exists", first.id)


def test_a_key_is_free_again_with_its_job(world: World) -> None:
    """The key lives as long as the result, no longer and no shorter."""
    held = world.started(idempotency_key="k")
    assert world.client.pttl(held.keys.idem) == -1
    world.finish(held, success())
    ttls = [world.client.pttl(name) for name in (held.keys.idem, held.keys.job, held.keys.events)]
    assert max(ttls) - min(ttls) < 1000
    assert min(ttls) > 0


def test_a_hundred_creates_at_once_make_one_job(world: World) -> None:
    """All callers get the same id."""
    calls = [world.store.create(world.new(idempotency_key="k"), TIER, issue=Issue.TICKET) for _ in range(100)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(world.run, calls))
    assert len({answer.detail for answer in answers}) == 1
    assert sorted(answer.word for answer in answers) == ["created"] + ["exists"] * 99
    assert len(world.tickets()) == 1
    assert world.client.zcard(world.keys.index) == 1


def test_a_job_without_its_message_is_noted_for_later(world: World) -> None:
    """Many jobs are written before their messages; the sweep gives those some time, and then finds them."""
    job = world.queued(issue=Issue.MESSAGE_FOLLOWS)
    assert world.tickets() == []
    assert world.client.zscore(world.keys.tickets(TIER), job.id) > world.now_ms()
