"""A webhook is due from the very step that ends its job or batch, and one process at a time delivers it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.test_batches import Batches, line
from tests.contract.world import HOUR_MS, World, failure, success
from vessel.batches.file_store import NO_REPEAT
from vessel.batches.model import BatchStatus, Fault, line_job_id, new_batch_id
from vessel.batches.store import NewBatch
from vessel.errors import UnknownModel
from vessel.jobs.steps import BROKEN_BY_LOSS
from vessel.notify import store
from vessel.notify.backoff import ATTEMPTS, DeliveryState, Outcome, Step, Trouble, follow
from vessel.notify.store import LEASE_MS, WebhookNotFound
from vessel.wire import JobState

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner
    from vessel.notify.delivery import Delivery
    from vessel.notify.store import Taken

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")
URL = "https://hooks.example.com/x?token=1"
OTHER = "https://other.example.com/"
POLICY = {"webhook": URL}
SERVED = Outcome(Trouble.NONE, 200)
DOWN = Outcome(Trouble.STATUS, 500)


def delivery(world: World, of: str) -> Delivery:
    """Read a delivery that is there."""
    found = world.run(store.delivery(world.keys, of))
    assert found is not None
    return found


def due(world: World) -> list[str]:
    """Read whose webhooks are to be delivered."""
    return [member.decode().partition(" ")[0] for member in world.client.zrange(world.keys.webhooks, 0, -1)]


def take(world: World, limit: int = 16, at_receiver: int = 4, **under_way: int) -> Taken:
    """Take what is due."""
    return world.run(store.take(world.keys, limit, at_receiver, under_way))


def settle(world: World, taken: Taken, outcome: Outcome = SERVED, step: Step | None = None) -> list[str]:
    """Note for all that was taken how it ended."""
    steps = step or follow(outcome, 1, 0.5)
    return [world.run(store.settle(world.keys, member, taken, outcome, steps)) for member in taken.members]


def pass_time(world: World, ms: int = HOUR_MS * 48) -> None:
    """Let Redis' clock be ahead: whatever is due later, or leased, is so much earlier."""
    for member in world.client.zrange(world.keys.webhooks, 0, -1):
        world.client.zincrby(world.keys.webhooks, -ms, member)


def ended(world: World, **more: Any) -> Job:
    """End a job that has a webhook."""
    held = world.started(policy=POLICY, **more)
    world.finish(held, success())
    return world.job(held.job.id)


# --- due with the end -------------------------------------------------------------------------------------------------


def test_a_webhook_is_due_from_the_step_that_ends_its_job(world: World) -> None:
    """Before it nothing is due; a repeated ending makes no second one."""
    held = world.started(policy=POLICY)
    assert due(world) == []
    how = success()
    assert [world.finish(held, how).word for _ in range(3)] == ["finished"] * 3
    assert due(world) == [held.job.id]
    found = delivery(world, held.job.id)
    assert (found.type, found.url, found.tenant, found.state) == ("job.succeeded", URL, "t", DeliveryState.PENDING)
    assert found.at == world.job(held.job.id).finished_at
    assert found.told["tier"] == held.job.tier
    assert found.told["n"] == "1"


def test_every_way_to_end_is_told(world: World) -> None:
    """Failed, cancelled, expired, poisoned and broken off in mid-stream."""
    failed = world.started(policy=POLICY)
    world.finish(failed, failure())
    cancelled = world.queued(policy=POLICY)
    world.run(world.store.cancel(cancelled))
    late = world.queued(policy=POLICY, deadline_ms=1)
    while world.run(world.store.expire(late)).word == "early":
        pass
    poisoned = world.started(lapsed=True, policy=POLICY)
    while (word := world.rescue(poisoned.job).word) == "done":
        again = world.claim(world.job(poisoned.job.id), lapsed=True)
        assert world.start(again, len(world.job(poisoned.job.id).attempts) + 1).word == "started"
    assert word == "poisoned"
    broken = world.started(lapsed=True, policy=POLICY)
    world.client.hset(world.keys.job(broken.job.id), "streamed", "1")
    assert world.rescue(broken.job).word == "broken"
    told = {of: delivery(world, of) for of in due(world)}
    assert {of: one.type for of, one in told.items()} == {
        failed.job.id: "job.failed",
        cancelled.id: "job.cancelled",
        late.id: "job.expired",
        poisoned.job.id: "job.failed",
        broken.job.id: "job.failed",
    }
    reasons = [one.told["reason"] for one in told.values()]
    assert sorted(reasons) == ["bad_request", "cancelled", "deadline", "poison_job", "stream_broken"]
    assert not any(BROKEN_BY_LOSS in value for value in told[broken.job.id].told.values())


def test_what_is_not_ended_or_has_no_webhook_is_not_told(world: World) -> None:
    """A parked job waits on; a job without a webhook leaves nothing."""
    world.park(world.started(policy=POLICY))
    world.requeue(world.started(policy=POLICY))
    world.finish(world.started(), success())
    assert due(world) == []
    assert not world.client.exists(world.keys.webhook_log)


def test_neither_prompt_nor_answer_is_in_a_delivery(world: World) -> None:
    """Only what the message tells, and the address."""
    held = world.started(policy=POLICY, body=b'{"messages":[{"role":"user","content":"CANARY"}]}')
    world.finish(held, success(answer=b'{"choices":["CANARY"]}'))
    raw = world.client.hgetall(world.keys.webhook(held.job.id))
    assert not any(b"CANARY" in part for pair in raw.items() for part in pair)
    assert b"CANARY" not in delivery(world, held.job.id).payload()


def test_a_delivery_outlives_its_job_until_it_is_settled(world: World) -> None:
    """Retries go on for days, however short results are kept."""
    job = ended(world)
    assert world.client.pttl(world.keys.job(job.id)) <= HOUR_MS
    assert world.client.pttl(world.keys.webhook(job.id)) > 6 * 24 * HOUR_MS


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def batches(world: World, runner: AsyncRunner, tmp_path: Path) -> Batches:
    """Give a door on the world's server."""
    return Batches(world, runner, tmp_path)


def made(batches: Batches, *lines: Any) -> str:
    """Make a batch that has a webhook."""
    file = batches.world.run(batches.door.files.file(batches.upload(lines)))
    assert file is not None
    new = NewBatch(new_batch_id(), "t", file, "/v1/chat/completions", "24h", 86400, webhook=URL)
    return batches.world.run(batches.door.batches.create(new, NO_REPEAT))


async def test_a_batch_is_told_when_its_last_line_ends(world: World, batches: Batches) -> None:
    """With the sums of that moment; its lines have webhooks of their own, or none."""
    batch_id = made(batches, line(1), line(2, vessel={"webhook": OTHER}))
    await batches.keeper.validate()
    await batches.keeper.tick()
    batches.finish(batches.start(batch_id, "0:0"))
    assert due(world) == []
    rest = [place for place in ("0:1", "1:0") if world.client.exists(world.keys.job(line_job_id(batch_id, place)))]
    held = batches.start(batch_id, rest[0])
    batches.finish(held, failure())
    assert sorted(due(world)) == sorted([batch_id, held.job.id])
    data = json.loads(delivery(world, batch_id).payload())["data"]
    assert data["state"] == BatchStatus.COMPLETED
    assert data["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    told = json.loads(delivery(world, held.job.id).payload())["data"]
    assert (told["batch_id"], told["custom_id"], told["state"]) == (batch_id, "r2", "failed")
    assert delivery(world, held.job.id).url == OTHER


async def test_a_batch_that_ends_otherwise_is_told_too(world: World, batches: Batches) -> None:
    """Refused with a report, cancelled before it began, and with a window that is over."""
    refused, cancelled, late = (made(batches, line(1)) for _ in range(3))
    assert world.run(batches.door.batches.own(refused, "me"))
    world.run(batches.door.batches.refuse(refused, "me", [Fault("x", 1, "no")]))
    assert world.run(batches.door.batches.cancel(cancelled))[0] == "stopped"
    world.client.hset(world.keys.batch(late), "expires", 1)
    assert world.run(batches.door.batches.expire(late))[0] == "stopped"
    assert {of: delivery(world, of).type for of in due(world)} == {
        refused: "batch.failed",
        cancelled: "batch.cancelled",
        late: "batch.expired",
    }


async def test_a_line_that_nobody_can_serve_any_more_is_told(
    world: World, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job is made as a failed one, in one step with its webhook."""
    batch_id = made(batches, line(1, vessel={"webhook": OTHER}))
    await batches.keeper.validate()

    def refuse(*_: Any, **__: Any) -> None:
        raise UnknownModel("It is no model any more.")

    monkeypatch.setattr(batches.door, "prepare", refuse)
    await batches.keeper.tick()
    job = batches.job(batch_id, "0:0")
    assert job.state is JobState.FAILED
    assert sorted(due(world)) == sorted([batch_id, job.id])


# --- taking and settling ----------------------------------------------------------------------------------------------


def test_one_process_at_a_time_has_a_webhook(world: World) -> None:
    """Another one gets it when the lease is over: the first may have been killed."""
    job = ended(world)
    first = take(world)
    assert [store.of_member(member) for member in first.members] == [job.id]
    assert first.lease == first.now + LEASE_MS
    assert take(world).members == ()
    pass_time(world, LEASE_MS + 1000)
    first = replace(first, lease=first.lease - LEASE_MS - 1000)
    second = take(world)
    assert second.members == first.members
    assert settle(world, first, DOWN) == ["superseded"]
    assert settle(world, second) == ["settled"]
    assert delivery(world, job.id).attempts == 1


def test_what_was_delivered_counts_out_of_a_lost_lease(world: World) -> None:
    """The receiver has it; whoever sends it again finds it done."""
    job = ended(world)
    first = take(world)
    pass_time(world, LEASE_MS + 1000)
    first = replace(first, lease=first.lease - LEASE_MS - 1000)
    second = take(world)
    assert settle(world, first) == ["settled"]
    assert delivery(world, job.id).state is DeliveryState.DELIVERED
    assert settle(world, second, DOWN) == ["superseded"]
    assert settle(world, second) == ["superseded"]
    assert delivery(world, job.id).state is DeliveryState.DELIVERED
    assert due(world) == []


def test_a_webhook_is_given_up_after_the_last_attempt(world: World) -> None:
    """Each attempt is kept, and it is not due any more."""
    job = ended(world)
    for attempt in range(1, ATTEMPTS + 1):
        taken = take(world)
        assert settle(world, taken, DOWN, follow(DOWN, delivery(world, job.id).round + 1, 0.5)) == ["settled"]
        assert take(world).members == ()
        found = delivery(world, job.id)
        assert (found.attempts, len(found.tries)) == (attempt, attempt)
        assert world.client.pttl(world.keys.webhook(job.id)) > (found.next_at or 0) - found.at
        pass_time(world)
    found = delivery(world, job.id)
    assert (found.state, found.next_at) == (DeliveryState.GIVEN_UP, None)
    assert {(one.status, one.trouble) for one in found.tries} == {(500, Trouble.STATUS)}
    assert due(world) == []


def test_one_that_was_given_up_can_be_delivered_anew(world: World) -> None:
    """With all its attempts and under its old id; of the attempts so far the last twenty are kept."""
    job = ended(world)
    for _ in range(3):
        while delivery(world, job.id).state is DeliveryState.PENDING:
            settle(world, take(world), DOWN, follow(DOWN, delivery(world, job.id).round + 1, 0.5))
            pass_time(world)
        world.run(store.retry(world.keys, f"msg_{job.id}"))
    found = delivery(world, job.id)
    assert (found.state, found.round, found.attempts, len(found.tries)) == (DeliveryState.PENDING, 0, 30, 20)
    assert [one.number for one in found.tries] == list(range(11, 31))
    settle(world, take(world))
    assert delivery(world, job.id).state is DeliveryState.DELIVERED
    with pytest.raises(WebhookNotFound):
        world.run(store.retry(world.keys, "job_" + "0" * 32))


def test_a_record_that_is_gone_is_due_no_more(world: World) -> None:
    """Its time to live was over while nobody delivered."""
    job = ended(world)
    world.client.delete(world.keys.webhook(job.id))
    assert settle(world, take(world), SERVED) == ["missing"]
    assert due(world) == []


def test_a_receiver_has_no_more_calls_than_it_may(world: World) -> None:
    """Those of others behind it are taken all the same, and those that run here count."""
    for _ in range(6):
        ended(world)
    other = world.started(policy={"webhook": OTHER})
    world.finish(other, success())
    taken = take(world, limit=5, at_receiver=3, **{"hooks.example.com": 1})
    receivers = [member.partition(" ")[2] for member in taken.members]
    assert receivers == ["hooks.example.com", "hooks.example.com", "other.example.com"]
    assert len(take(world, limit=2, at_receiver=9).members) == 2


def test_many_to_one_slow_receiver_do_not_hide_the_others(world: World) -> None:
    """Beyond what one look sees, those that are passed over are put off, so that the others come into sight."""
    now = world.now_ms()
    slow = {f"job_{n:032x} slow.example.com": now - 60_000 + n for n in range(7000)}
    world.client.zadd(world.keys.webhooks, slow)
    world.client.zadd(world.keys.webhooks, {"job_x fast.example.com": now - 1})
    busy = {"slow.example.com": 4}
    assert [take(world, **busy).members for _ in range(2)] == [(), ("job_x fast.example.com",)]
    assert world.client.zcard(world.keys.webhooks) == 7001


def test_deliveries_are_listed_newest_first(world: World) -> None:
    """Also those that are done."""
    first, second = ended(world), ended(world)
    world.client.zadd(world.keys.webhook_log, {second.id: world.now_ms() + 1000})
    settle(world, take(world))
    assert world.run(store.newest(world.keys, 0, 10)) == [second.id, first.id]
    assert world.run(store.newest(world.keys, 1, 1)) == [first.id]


# --- secrets ----------------------------------------------------------------------------------------------------------


def secrets(world: World, tenant: str = "t") -> store.Secrets:
    """Read a tenant's secrets."""
    found: store.Secrets = world.runner.run_all(store.secret_of(world.keys, tenant))[-1]
    return found


def test_a_tenants_secret_is_made_once(world: World) -> None:
    """Whoever needs it first; another tenant has another."""
    assert secrets(world) == secrets(world)
    assert secrets(world).current != secrets(world, "u").current


def test_a_rotation_lets_the_secrets_before_it_sign_for_a_while(world: World) -> None:
    """Both of two rotations in a row; one whose time is over is forgotten, as is the old one without overlap."""
    first = secrets(world).current
    names = [store.new_secret() for _ in range(3)]
    until = world.run(store.rotate(world.keys, "t", names[0], HOUR_MS))
    world.run(store.rotate(world.keys, "t", names[1], 2 * HOUR_MS))
    now = world.now_ms()
    assert until is not None
    assert secrets(world).signing(now) == (names[1], names[0], first)
    assert secrets(world).signing(until) == (names[1], names[0])
    world.client.hset(world.keys.webhook_secret("t"), f"old:{first}", now - 1)
    assert world.run(store.rotate(world.keys, "t", names[2], 0)) is None
    assert secrets(world).signing(now) == (names[2], names[0])
