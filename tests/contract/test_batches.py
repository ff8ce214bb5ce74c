"""Batches keep exact counts: every line is counted in the step that ends it, once, whatever is repeated or dies."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.books import row
from tests.contract.world import DAY_MS, HOUR_MS, ROW, TIER, World, charge, failure, success
from vessel.batches.file_store import NO_REPEAT, NewFile, Once
from vessel.batches.files import Upload, places
from vessel.batches.model import BatchStatus, line_job_id, new_batch_id, new_file_id
from vessel.batches.store import NewBatch
from vessel.client.asking import Asking
from vessel.client.following import events
from vessel.client.steps import iterate
from vessel.errors import IdempotencyConflict
from vessel.jobs.steps import Ending, Feed, Final, Start
from vessel.maintain.batches import BatchKeeper
from vessel.settings import load_settings
from vessel.submit import Door
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vessel.batches.model import Batch
    from vessel.jobs.model import Job
    from vessel.jobs.steps import Answer, Held
    from vessel.keyspace.connect import AsyncRunner

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")
SMALL, LARGE = "openai/gpt-oss-20b", "openai/gpt-oss-120b"


def line(number: int, model: str = SMALL, **more: Any) -> dict[str, Any]:
    """Write a line."""
    body = {"model": model, "messages": [{"role": "user", "content": f"Question {number}"}], "max_tokens": 50}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body | more}


class Batches:
    """A door, a keeper and what tests do with batches."""

    def __init__(self, world: World, runner: AsyncRunner, folder: Path) -> None:
        """Bind to the world's server."""
        place = {"redis_url": "redis://localhost", "data_dir": folder, "namespace": world.keys.namespace}
        self.world, self.runner = world, runner
        self.door = Door(load_settings({}, **place))
        self.keeper = BatchKeeper(self.door, runner)

    def upload(self, lines: Sequence[Any], *, once: Once = NO_REPEAT) -> str:
        """Store a file."""
        data = b"".join(t if isinstance(t, bytes) else json.dumps(t).encode() + b"\n" for t in lines)
        file_id, upload = new_file_id(), Upload()
        parts = [*upload.feed(data), upload.finish()]
        for number, part in enumerate(parts):
            self.world.run(self.door.files.put(file_id, number, part))
        new = NewFile(file_id, "t", "in.jsonl", "batch", upload.size, upload.lines, upload.digest)
        return self.world.run(self.door.files.commit_file(new, once))

    def create(self, file_id: str, *, once: Once = NO_REPEAT, window_s: int = 86400) -> str:
        """Make a batch that is to be validated."""
        file = self.world.run(self.door.files.file(file_id))
        assert file is not None
        new = NewBatch(new_batch_id(), "t", file, "/v1/chat/completions", "24h", window_s)
        return self.world.run(self.door.batches.create(new, once))

    async def going(self, *lines: Any) -> str:
        """Make a batch, validate it and give its first lines their jobs."""
        batch_id = self.create(self.upload(lines))
        await self.keeper.validate()
        await self.keeper.tick()
        return batch_id

    def batch(self, batch_id: str) -> Batch:
        """Read a batch that is there."""
        found = self.world.run(self.door.batches.batch(batch_id))
        assert found is not None
        return found

    def job(self, batch_id: str, place: str) -> Job:
        """Read a line's job."""
        return self.world.job(line_job_id(batch_id, place))

    def hold(self, batch_id: str, place: str, *, lapsed: bool = False) -> Held:
        """Feed and claim a line's job."""
        job = self.job(batch_id, place)
        assert self.world.run(self.door.store.feed(job, self.world.gate(job.model), Feed(1))).word == "done"
        return self.world.claim(job, lapsed=lapsed)

    def start(self, batch_id: str, place: str, *, lapsed: bool = False) -> Held:
        """Feed, claim and start a line's job."""
        held = self.hold(batch_id, place, lapsed=lapsed)
        assert self.world.start(held).word == "started"
        return held

    def finish(self, held: Held, how: Any = None) -> Answer:
        """End a line's job."""
        return self.world.run(self.door.store.finish(held, *(how or success())))

    def perform(self, effect: Any) -> Any:
        """Run what a verb asks for."""
        return self.world.runner.run_all(effect.calls)

    def counts(self, batch_id: str) -> tuple[int, int, int]:
        """Read total, completed and failed."""
        found = self.batch(batch_id).as_dict()["request_counts"]
        return found["total"], found["completed"], found["failed"]


@pytest.fixture
def batches(world: World, runner: AsyncRunner, tmp_path: Path) -> Batches:
    """Give a door on the world's server."""
    return Batches(world, runner, tmp_path)


async def test_a_batch_is_accepted_and_its_lines_get_jobs_without_bytes_of_their_own(batches: Batches) -> None:
    """A validated batch goes; each line's job says where its request lies and waits in the backlog."""
    batch_id = await batches.going(line(1), line(2, LARGE), line(3))
    batch = batches.batch(batch_id)
    assert batch.status is BatchStatus.IN_PROGRESS
    assert batch.groups == ((2, 2, 0), (1, 1, 0))
    job = batches.job(batch_id, "0:1")
    assert (job.body, job.state, job.priority, job.tenant) == (b"", JobState.QUEUED, "batch", "t")
    assert job.source.startswith(batch.file)
    assert job.deadline_at == batch.expires_at
    assert batches.counts(batch_id) == (3, 0, 0)


async def test_every_end_is_counted_once_and_the_last_one_ends_the_batch(batches: Batches) -> None:
    """Results and failures are counted as they come, and repeating the step changes nothing."""
    batch_id = await batches.going(line(1), line(2))
    first, second = batches.start(batch_id, "0:0"), batches.start(batch_id, "0:1")
    assert [batches.finish(first).word for _ in range(3)] == ["finished"] * 3
    assert batches.counts(batch_id) == (2, 1, 0)
    assert batches.batch(batch_id).status is BatchStatus.IN_PROGRESS
    assert batches.finish(second, failure()).word == "finished"
    assert batches.counts(batch_id) == (2, 1, 1)
    assert batches.batch(batch_id).status is BatchStatus.COMPLETED
    assert batches.world.run(batches.door.batches.open_batches()) == []
    assert batches.world.run(batches.door.batches.listed(batch_id, "out", 0, 9)) == ["0:0"]
    assert batches.world.run(batches.door.batches.listed(batch_id, "err", 0, 9)) == ["0:1"]


async def test_a_line_with_a_result_keeps_its_stream_for_a_minute_then_its_record_tells(
    batches: Batches,
) -> None:
    """A stream takes more than the whole record; followers have read it by then."""
    batch_id = await batches.going(line(1), line(2))
    batches.finish(batches.start(batch_id, "0:0"))
    batches.finish(batches.start(batch_id, "0:1"), failure())
    keys, client = batches.door.keys, batches.world.client
    assert 0 < client.pttl(keys.events(line_job_id(batch_id, "0:0"))) <= 60_000
    assert client.pttl(keys.events(line_job_id(batch_id, "0:1"))) > DAY_MS
    assert client.pttl(keys.job(line_job_id(batch_id, "0:0"))) > DAY_MS
    client.delete(keys.events(line_job_id(batch_id, "0:0")))
    told = iterate(events(Asking(batches.door, "t"), line_job_id(batch_id, "0:0"), follow=True), batches.perform)
    assert [event.name for event in told] == ["created", "started", "succeeded"]


async def test_a_line_whose_workers_die_is_counted_as_failed(batches: Batches) -> None:
    """A poisoned line ends in the rescue, which counts it."""
    batch_id = await batches.going(line(1))
    for attempt in range(1, 4):
        held = batches.world.claim(batches.job(batch_id, "0:0"), f"w/{attempt}", lapsed=True) if attempt > 1 else (
            batches.hold(batch_id, "0:0", lapsed=True))  # fmt: skip
        assert batches.world.start(held, attempt).word == "started"
        batches.world.run(batches.door.store.rescue(batches.job(batch_id, "0:0")))
    assert batches.job(batch_id, "0:0").reason == "poison_job"
    assert batches.counts(batch_id) == (1, 0, 1)
    assert batches.batch(batch_id).status is BatchStatus.COMPLETED


async def test_what_is_known_of_a_call_after_its_lines_end_corrects_the_batch(batches: Batches) -> None:
    """Three guesses are in the sums of a batch whose line is poisoned; one call was free, one cost less."""
    batch_id, world = await batches.going(line(1), line(2)), batches.world
    figures = {"u:prompt_tokens": 10, "u:completion_tokens": 50, "u:cached_tokens": 0, "pico": 7 * 10**9}
    guess = row("0.007", tokens={"input": 10, "output": 50, "cached": 0}, estimated=True)
    calls = []
    for attempt in range(1, 4):
        calls.append(world.claim(batches.job(batch_id, "0:0"), f"w/{attempt}", lapsed=True) if attempt > 1 else
                     batches.hold(batch_id, "0:0", lapsed=True))  # fmt: skip
        world.run(world.store.start(calls[-1], Start(attempt, ROW, guess, TIER, charge(rpd=10**6), 0)))
        world.run(batches.door.store.rescue(batches.job(batch_id, "0:0")))

    def sums() -> dict[str, int]:
        found = world.client.hmget(world.keys.batch(batch_id), list(figures))
        return {name: int(figure or 0) for name, figure in zip(figures, found, strict=True)}

    assert sums() == {name: 3 * figure for name, figure in figures.items()}
    for _ in range(2):
        batches.finish(calls[0], (Ending(1, "rate_limited", '{"status":429}'), Final(JobState.FAILED)))
        assert sums() == {name: 2 * figure for name, figure in figures.items()}
    late = row("0.001", tokens={"input": 10, "output": 3, "cached": 4})
    batches.finish(calls[1], (Ending(2, JobState.SUCCEEDED, "{}", late), Final(JobState.SUCCEEDED, valid=True)))
    assert sums() == {"u:prompt_tokens": 20, "u:completion_tokens": 53, "u:cached_tokens": 4, "pico": 8 * 10**9}


async def test_a_cancel_ends_what_does_not_run_and_keeps_what_has_ended(batches: Batches) -> None:
    """Lines without a job end with the cancel; those with one are cancelled; the result stays."""
    batch_id = batches.create(batches.upload([line(n) for n in range(1, 1001)]))
    await batches.keeper.validate()
    await batches.keeper.tick()
    begun = batches.batch(batch_id).groups[0][1]
    assert 0 < begun < 1000
    batches.finish(batches.start(batch_id, "0:0"))
    running = batches.start(batch_id, "0:1")
    assert batches.world.run(batches.door.batches.cancel(batch_id)) == ("stopped", BatchStatus.CANCELLING)
    assert batches.counts(batch_id) == (1000, 1, 1000 - begun)
    while await batches.keeper.stop_lines(batch_id) > 1:
        pass
    assert batches.counts(batch_id) == (1000, 1, 998)
    assert batches.job(batch_id, "0:1").cancel_requested
    batches.finish(running, failure(state=JobState.CANCELLED))
    assert batches.counts(batch_id) == (1000, 1, 999)
    assert batches.batch(batch_id).status is BatchStatus.CANCELLED
    assert batches.world.run(batches.door.batches.cancel(batch_id)) == ("ended", BatchStatus.CANCELLED)


async def test_a_batch_that_is_over_expires_and_keeps_what_has_ended(batches: Batches) -> None:
    """When the window is over, lines without a job expire at once and the others with their own deadline."""
    batch_id = batches.create(batches.upload([line(n) for n in range(1, 801)]))
    await batches.keeper.validate()
    await batches.keeper.tick()
    batches.finish(batches.start(batch_id, "0:0"))
    batches.world.client.hset(batches.door.keys.batch(batch_id), "expires", 1)
    await batches.keeper.tick()
    batch = batches.batch(batch_id)
    assert batch.status is BatchStatus.FINALIZING
    for place in batches.world.run(batches.door.batches.open_lines(batch_id)):
        job = batches.job(batch_id, place)
        batches.world.client.hset(batches.door.keys.job(job.id), "deadline", 1)
        assert batches.world.run(batches.door.store.expire(job)).word == "closed"
    assert batches.counts(batch_id) == (800, 1, 799)
    assert batches.batch(batch_id).status is BatchStatus.EXPIRED


async def test_a_lines_own_times_count_from_the_batchs_creation(batches: Batches) -> None:
    """However late it is its turn: somebody waits for all lines since then."""
    timed: dict[str, Any] = {"vessel": {"deadline": "2h", "max_wait": "30m"}}
    batch_id = batches.create(batches.upload([line(1, **timed), line(2)]))
    await batches.keeper.validate()
    created = batches.world.now_ms() - 3 * HOUR_MS
    batches.world.client.hset(batches.door.keys.batch(batch_id), "created", created)
    await batches.keeper.tick()
    late, other = (batches.job(batch_id, f"0:{position}") for position in range(2))
    assert (late.deadline_at, late.waits_since) == (created + 2 * HOUR_MS, created)
    assert (other.deadline_at, other.waits_since) == (batches.batch(batch_id).expires_at, other.created_at)
    assert late.created_at == pytest.approx(batches.world.now_ms(), abs=HOUR_MS)
    assert batches.world.run(batches.door.store.expire(late)).word == "closed"
    assert batches.counts(batch_id) == (2, 0, 1)


async def test_a_faulty_file_is_refused_with_a_report_and_no_line_runs(batches: Batches) -> None:
    """The batch fails with a fault for each line; nothing is unfolded."""
    twice, no_id = line(1), {k: v for k, v in line(3).items() if k != "custom_id"}
    batch_id = await batches.going(line(1), twice, no_id, b"{oops\n", line(5, "no/such-model"))
    batch = batches.batch(batch_id)
    assert batch.status is BatchStatus.FAILED
    assert [(f.line, f.code) for f in batch.errors] == [
        (2, "duplicate_custom_id"), (3, "missing_custom_id"), (4, "invalid_json_line"), (5, "model_not_found"),
    ]  # fmt: skip
    assert batches.counts(batch_id) == (0, 0, 0)
    assert batches.world.client.zcard(batches.door.keys.index) == 0


async def test_two_keepers_do_nothing_twice(batches: Batches) -> None:
    """Each line gets one job, and a second validator leaves alone what another one holds."""
    batch_id = batches.create(batches.upload([line(n) for n in range(1, 301)]))
    other = BatchKeeper(batches.door, batches.runner, "other")
    assert batches.world.run(batches.door.batches.own(batch_id, other.owner))
    assert await batches.keeper.validate() == 0
    assert await other.validate() == 1
    for keeper in (batches.keeper, other, batches.keeper):
        await keeper.tick()
    while batches.batch(batch_id).groups[0][1] < 256:
        await other.tick()
    assert batches.world.client.zcard(batches.door.keys.index) == batches.batch(batch_id).groups[0][1]


async def test_the_same_key_gives_the_same_batch_and_another_body_a_conflict(batches: Batches) -> None:
    """A repeated request finds the first one's batch or file; an SDK's own repeat does so without a key."""
    file_id = batches.upload([line(1)], once=Once("k"))
    assert batches.upload([line(1)], once=Once("k")) == file_id
    assert batches.upload([line(1)], once=Once(repeated=True)) == file_id
    assert batches.upload([line(1)]) != file_id
    with pytest.raises(IdempotencyConflict):
        batches.upload([line(2)], once=Once("k"))
    batch_id = batches.create(file_id, once=Once("k"))
    assert batches.create(file_id, once=Once("k")) == batch_id
    with pytest.raises(IdempotencyConflict):
        batches.create(file_id, once=Once("k"), window_s=90000)
    assert batches.create(file_id, once=Once(repeated=True)) == batch_id
    assert batches.create(file_id) != batch_id


@pytest.mark.parametrize("seed", range(2))
async def test_counts_add_up_after_every_step_whatever_the_order(batches: Batches, seed: int) -> None:
    """Random verbs, repeats among them: nothing is counted twice or missed, and each line is in one list once."""
    dice = random.Random(seed)  # noqa: S311  repeatable on purpose
    batch_id = batches.create(batches.upload([line(n, SMALL if n % 2 else LARGE) for n in range(1, 321)]))
    await batches.keeper.validate()
    held: list[Held] = []
    steps = ["unfold", *["start"] * 6, *["finish"] * 6, *["fail"] * 2, "lose", "repeat", "expire"]
    for number in range(80):
        step = "cancel" if number == 60 and seed % 2 else dice.choice(steps)
        await _step(batches, batch_id, step, held, dice)
        _check(batches, batch_id)
    batches.world.run(batches.door.batches.cancel(batch_id))
    await batches.keeper.stop_lines(batch_id)
    for job in held:
        batches.finish(job)
    while batches.world.run(batches.door.batches.open_lines(batch_id)):
        await batches.keeper.stop_lines(batch_id)
        _check(batches, batch_id)
    _check(batches, batch_id)
    assert batches.batch(batch_id).status is BatchStatus.CANCELLED


async def _step(batches: Batches, batch_id: str, step: str, held: list[Held], dice: random.Random) -> None:
    places_ = batches.world.run(batches.door.batches.open_lines(batch_id))
    some_open = [batches.job(batch_id, place) for place in dice.sample(places_, min(4, len(places_)))]
    idle = [job.line for job in some_open if job.state is JobState.QUEUED and job.generation == 0]
    match step:
        case "unfold":
            await batches.keeper.tick()
        case "start" if idle:
            held.append(batches.start(batch_id, dice.choice(idle), lapsed=dice.random() < 0.2))
        case "finish" if held:
            batches.finish(held.pop(dice.randrange(len(held))))
        case "fail" if held:
            batches.finish(held.pop(dice.randrange(len(held))), failure())
        case "repeat" if held:
            some = dice.choice(held)
            batches.finish(some)
            batches.finish(some)
        case "lose" if held:
            batches.world.run(batches.door.store.rescue(batches.world.job(dice.choice(held).job.id)))
        case "expire" if idle:
            job = batches.job(batch_id, dice.choice(idle))
            batches.world.client.hset(batches.door.keys.job(job.id), "deadline", 1)
            batches.world.run(batches.door.store.expire(job))
        case "cancel":
            batches.world.run(batches.door.batches.cancel(batch_id))
        case _:
            pass


def _check(batches: Batches, batch_id: str) -> None:
    batch = batches.batch(batch_id)
    assert batch.completed + batch.failed + batch.left == batch.total == 320
    run, store = batches.world.run, batches.door.batches
    out = run(store.listed(batch_id, "out", 0, 1000))
    err = [f"{g}:{p}" for e in run(store.listed(batch_id, "err", 0, 1000)) for g, p, _ in places(e)]
    assert (len(out), len(err)) == (batch.completed, batch.failed)
    assert len({*out, *err}) == len(out) + len(err)
    assert sum(ended for _, _, ended in batch.groups) == len(out) + len(err)
