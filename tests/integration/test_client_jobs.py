"""The blocking client over a real Redis and a worker in a thread."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.fake_worker import FakeWorker, echo, failed, said, succeeded
from tests.waiting import wait_until
from vessel.client import (
    GroqClient,
    GroqCompound,
    IdempotencyConflict,
    InvalidLine,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    JobState,
    RedisUnreachable,
    WaitTimeout,
    WrongState,
)
from vessel.dispatch.ticket import parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from vessel.settings import Settings

ALL = ("ultra_fast", "balanced", "power", "speed_demon", "compound", "compound_mini")
CANARY = "canary prompt 51d0"


@pytest.fixture
def client(settings: Settings) -> Iterator[GroqClient]:
    """Open a client."""
    with GroqClient(settings=settings) as opened:
        yield opened


@pytest.fixture
def worker(settings: Settings) -> Iterator[FakeWorker]:
    """Run a worker for all tiers."""
    with FakeWorker(settings, ALL) as running:
        yield running


def test_query_waits_for_its_answer(client: GroqClient, worker: FakeWorker) -> None:
    """The answer comes with who served it, its usage, its exact cost and its attempts."""
    result = client.query("What is up?", tier="power", timeout=20)
    assert result.text == str(result) == "WHAT IS UP?"
    assert (result.tier, result.cost_usd, result.usage.total_tokens) == ("power", Decimal("0.00000123"), 12)
    assert [attempt.outcome for attempt in result.attempts] == ["succeeded"]
    assert worker.started == [result.job_id]
    assert client.job(result.job_id).priority == "interactive"


def test_the_seeds_verbs_choose_the_seeds_tiers(client: GroqClient, worker: FakeWorker) -> None:
    """Each verb of the seed runs on the tier that the seed names."""
    assert worker.tiers == ALL
    compound = GroqCompound(client=client)
    answers = [
        client.analyze(prompt="Analyze the MVP revenue path", task_type="strategic_analysis", timeout=20),
        client.query(prompt="Hardening of systemd?", task_type="technical_qa", speed_priority="fast", timeout=20),
        client.generate_code(prompt="Validate JSON schema", language="python", timeout=20),
        client.generate_code(prompt="Validate JSON schema", language="python", speed_priority="maximum", timeout=20),
        compound.research(query="Latest EU funding", tools=["web_search"], max_results=10, timeout=20),
        compound.execute(task="Test this", code="import re; ...", tools=["code_execution"], timeout=20),
    ]
    assert [r.tier for r in answers] == ["power", "balanced", "balanced", "speed_demon", "compound", "compound"]
    assert client.job(answers[4].job_id).builtin_tools == ("web_search",)
    assert client.job(answers[5].job_id).builtin_tools == ("code_execution",)


def test_a_timeout_names_the_job_which_goes_on(client: GroqClient, worker: FakeWorker) -> None:
    """Waiting ends, the job does not."""
    worker.hold()
    with pytest.raises(WaitTimeout, match=r"job_[0-9a-f]{32}") as ended:
        client.query("slow", timeout=0.2)
    worker.release()
    assert ended.value.job_id is not None
    assert client.result(ended.value.job_id, timeout=20).text == "SLOW"


def test_a_clients_own_timeout_holds_where_a_call_names_none(settings: Settings, worker: FakeWorker) -> None:
    """The constructor's timeout bounds every wait."""
    worker.hold()
    with GroqClient(settings=settings, timeout=0.1) as hasty:
        handle = hasty.submit("slow")
        for wait in (lambda: hasty.query("slow"), handle.result, lambda: list(hasty.wait([handle]))):
            with pytest.raises(WaitTimeout):
                wait()


def test_a_failed_job_raises_with_every_attempt(settings: Settings, client: GroqClient) -> None:
    """JobFailed says why, and what was tried."""
    with FakeWorker(settings, ALL, failed), pytest.raises(JobFailed) as ended:
        client.query(CANARY, timeout=20)
    assert (ended.value.reason, ended.value.state, len(ended.value.attempts)) == ("bad_request", "failed", 1)
    assert CANARY not in repr(ended.value)
    assert CANARY not in str(ended.value)


def test_an_answer_without_content_is_a_result(settings: Settings, client: GroqClient) -> None:
    """An empty answer is paid for and given."""
    with FakeWorker(settings, ALL, lambda job: succeeded(job, said(None))):
        assert client.query("hi", timeout=20).text == ""


def test_prompts_survive_byte_for_byte(client: GroqClient, worker: FakeWorker) -> None:
    """Unicode, a megabyte and odd numbers come through."""
    for prompt in ("Grüße 🦁 \u0000 \u2028 é", ("x" + 127 * " ") * 8_000):
        assert client.query(prompt, timeout=20).text == prompt.upper()
    job = client.submit("n", seed=2**70, extra_body={"exact": 0.1})
    assert json.loads(client.job(job.id).body)["seed"] == 2**70
    assert worker.started


def test_a_bad_request_is_told_before_anything_is_written(client: GroqClient, worker: FakeWorker) -> None:
    """A fault in the request names its parameter and creates no job."""
    for options, param in (({"tier": "powerful"}, "vessel.tier"), ({"temperature": 9}, "temperature")):
        with pytest.raises(InvalidRequest) as fault:
            client.query("hi", timeout=20, **options)
        assert fault.value.param is not None
        assert param in fault.value.param
    assert worker.started == []
    assert client.jobs() == []


def test_an_idempotency_key_attaches_to_its_first_job(client: GroqClient, worker: FakeWorker) -> None:
    """The same request under the same key is the same job; another body is a conflict."""
    first = client.submit("once", idempotency_key="k")
    again = client.submit("once", idempotency_key="k")
    assert (again.id, again.existing, first.existing) == (first.id, True, False)
    assert client.query("once", idempotency_key="k", priority="normal", timeout=20).job_id == first.id
    with pytest.raises(IdempotencyConflict):
        client.submit("twice", idempotency_key="k")
    assert worker.started == [first.id]


def test_submit_is_in_the_normal_lane_and_names_its_route(client: GroqClient) -> None:
    """A handle knows tier and model; its job waits in the lane it was submitted to."""
    handle = client.submit("hi", tier="power", priority="batch", tags={"a": "b"})
    assert (handle.tier, client.job(handle.id).queue) == ("power", "power.batch")
    assert client.job(client.submit("hi").id).priority == "normal"
    assert handle.id in repr(handle)


def test_a_job_is_cancelled_while_it_waits_and_while_it_runs(client: GroqClient, settings: Settings) -> None:
    """A waiting job ends at once, a running one is told; an ended one says how it ended."""
    waiting = client.submit("hi")
    assert waiting.cancel() == "cancelled"
    assert waiting.cancel() == "cancelled"
    with FakeWorker(settings, ALL) as worker:
        worker.hold()
        running = client.submit("hi")
        wait_until(lambda: running.state() is JobState.RUNNING)
        assert running.cancel() == "cancelling"
        with pytest.raises(JobFailed, match="cancelled"):
            running.result(timeout=20)
        worker.release()
        assert client.cancel(client.query("hi", timeout=20).job_id) == "succeeded"
    with pytest.raises(JobNotFound):
        client.cancel("job_none")


def test_a_retry_is_a_new_job(client: GroqClient, settings: Settings) -> None:
    """An ended job's request runs again under a new id; an open one has nothing to retry."""
    handle = client.submit("again", idempotency_key="k")
    with pytest.raises(WrongState):
        client.retry(handle.id)
    with FakeWorker(settings, ALL, failed), pytest.raises(JobFailed):
        handle.result(timeout=20)
    again = client.retry(handle.id)
    with FakeWorker(settings, ALL):
        assert again.result(timeout=20).text == "AGAIN"
    assert client.job(again.id).retry_of == handle.id
    assert client.state(handle.id) is JobState.FAILED


def test_events_tell_a_jobs_life(client: GroqClient, settings: Settings) -> None:
    """Events are read once, or followed to the job's end; they hold no prompt."""
    handle = client.submit(CANARY)
    assert [event.name for event in handle.events()] == ["created"]
    following = handle.events(follow=True)
    assert next(following).state is JobState.QUEUED
    with FakeWorker(settings, ALL):
        rest = list(following)
    assert [event.name for event in rest] == ["claimed", "started", "succeeded"]
    assert rest == sorted(rest, key=lambda event: event.at)
    assert CANARY not in str(rest)
    with pytest.raises(JobNotFound):
        list(client.events("job_none"))


def test_jobs_are_listed_newest_first_and_filtered(client: GroqClient, settings: Settings) -> None:
    """A list is by creation, and narrowed by state, tier, age and number; payloads are left out."""
    ids = [client.submit(f"{n}", tier="power" if n % 2 else "balanced").id for n in range(6)]
    listed = client.jobs()
    assert {job.id for job in listed} == set(ids)
    assert listed == sorted(listed, key=lambda job: -job.created_at)
    assert {job.id for job in client.jobs(tier="power")} == {ids[5], ids[3], ids[1]}
    assert client.jobs(limit=2) == listed[:2]
    client.cancel(ids[0])
    assert [job.id for job in client.jobs(state="cancelled")] == [ids[0]]
    assert client.jobs()[0].body == b""
    assert len(client.jobs(since="1h")) == len(client.jobs(since=timedelta(hours=1))) == 6
    assert client.jobs(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert len(client.jobs(since="2020-01-01")) == 6
    with pytest.raises(InvalidRequest, match="state"):
        client.jobs(state="done")
    with pytest.raises(InvalidRequest, match="since"):
        client.jobs(since="yesterday")
    with GroqClient(settings=settings, tenant="other") as other:
        assert other.jobs() == []
        for look in (other.job, other.state, other.result, other.cancel, other.retry):
            with pytest.raises(JobNotFound):
                look(ids[1])


def test_more_jobs_than_one_page_are_listed_once_each(client: GroqClient) -> None:
    """Jobs made in the same millisecond are neither lost nor doubled at the edge of a page."""
    made = client.submit_many([{"prompt": f"{n}"} for n in range(450)])
    assert sorted(job.id for job in client.jobs(limit=1000)) == sorted(handle.id for handle in made)


def test_many_are_written_in_few_messages_and_all_answered(
    client: GroqClient, settings: Settings, redis_client: redis.Redis
) -> None:
    """Lines of each spelling become jobs in their order, several tickets to a message."""
    lines: list[dict[str, Any]] = [{"prompt": f"p{n}", "tier": "power"} for n in range(300)]
    lines += [{"messages": [{"role": "user", "content": f"m{n}"}], "vessel": {"tier": "balanced"}} for n in range(300)]
    handles = client.submit_many(iter(lines))
    queues = [client.door.keys.queue(name) for name in ("power", "balanced")]
    messages: list[Any] = [raw for queue in queues for raw in redis_client.lrange(queue, 0, -1)]
    assert len(messages) < 60
    assert sorted(job for raw in messages for job, _ in parse(raw)) == sorted(handle.id for handle in handles)
    with FakeWorker(settings, ALL):
        texts = {ended.job_id: str(ended) for ended in client.wait(handles, timeout=60)}
    assert [texts[handle.id] for handle in handles] == [f"P{n}" for n in range(300)] + [f"M{n}" for n in range(300)]


def test_a_bad_line_is_named_and_its_chunk_is_not_written(client: GroqClient) -> None:
    """A fault names its line, and what was accepted before is held by the error."""
    good = {"prompt": "x"}
    with pytest.raises(InvalidLine, match=r"Line 3: vessel\.on_outage.* Nothing was submitted") as fault:
        client.submit_many([good, good, good | {"on_outage": "panic"}, good])
    assert (fault.value.line, fault.value.submitted, client.jobs()) == (3, (), [])
    with pytest.raises(InvalidLine, match="Line 502: ") as later:
        client.submit_many([*[good] * 501, {"nothing": 1}])
    assert len(later.value.submitted) == 500
    assert len(client.jobs(limit=1000)) == 500


def test_a_key_in_conflict_is_named_and_the_other_lines_are_accepted(client: GroqClient) -> None:
    """A conflict is only seen while writing: the other lines of the chunk have their jobs."""
    client.submit("first", idempotency_key="k")
    lines = [{"prompt": "a"}, {"prompt": "b", "idempotency_key": "k"}, {"prompt": "c"}]
    with pytest.raises(InvalidLine, match="Line 2: ") as fault:
        client.submit_many(lines)
    assert len(fault.value.submitted) == 2
    assert len(client.jobs()) == 3


def test_wait_gives_endings_as_they_come(client: GroqClient, settings: Settings) -> None:
    """Results and failures of own and foreign jobs come in the order in which they end."""

    def mixed(job: Any) -> Any:
        return failed(job) if b"bad" in job.body else echo(job)

    with GroqClient(settings=settings) as other:
        foreign, own = other.submit("foreign", tier="power"), client.submit("own", tier="balanced")
        bad = client.submit("bad", tier="power")
        done = client.submit("done", tier="compound")
        with FakeWorker(settings, ["compound"]):
            done.result(timeout=20)
        endings = client.wait([foreign.id, own, bad, done, own], timeout=60)
        assert str(next(endings)) == "DONE"
        with FakeWorker(settings, ["balanced"], mixed):
            assert str(next(endings)) == "OWN"
        with FakeWorker(settings, ["power"], mixed):
            rest = list(endings)
    assert {type(ended).__name__ for ended in rest} == {"Result", "JobFailed"}
    assert [ended.job_id for ended in rest if isinstance(ended, JobFailed)] == [bad.id]


def test_wait_says_how_many_are_left(client: GroqClient) -> None:
    """A wait that runs out names the number, one for an unknown job its id."""
    with pytest.raises(WaitTimeout, match="1 of 1 jobs"):
        list(client.wait([client.submit("hi")], timeout=0.1))
    with pytest.raises(JobNotFound, match="job_none"):
        list(client.wait(["job_none"]))
    assert list(client.wait([])) == []


def test_a_route_is_told_and_nothing_is_submitted(client: GroqClient, worker: FakeWorker) -> None:
    """A plan has its chain, its reasons and its price."""
    plan = client.route("hi", tier="power", max_completion_tokens=1000)
    assert (plan.tier, plan.model, plan.live_workers) == ("power", "openai/gpt-oss-120b", 1)
    assert plan.hops[0].model == plan.model
    assert plan.reasons
    assert 0 < plan.typical_cost_usd < plan.worst_cost_usd
    assert client.jobs() == []
    assert worker.started == []


def test_tiers_tell_their_workers_and_their_queues(client: GroqClient, settings: Settings) -> None:
    """A tier's line counts live workers and waiting messages."""
    client.submit("hi", tier="power")
    client.submit("hi", tier="power", priority="batch")
    with FakeWorker(settings, ["balanced"]):
        lines = {line.name: line for line in client.tiers()}
    assert (lines["power"].live_workers, lines["power"].waiting) == (0, 2)
    assert (lines["balanced"].live_workers, lines["balanced"].waiting) == (1, 0)


def test_a_redis_that_is_away_is_told(tmp_path: object) -> None:
    """Nothing is accepted where Redis does not answer, and routing still works."""
    away = GroqClient("redis://127.0.0.1:1/0", data_dir=tmp_path)
    with pytest.raises(RedisUnreachable):
        away.query("hi", timeout=5)
    assert away.route("hi").live_workers is None


def test_nothing_of_a_prompt_is_logged(
    client: GroqClient, worker: FakeWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the client and the libraries below it log, it holds no prompt."""
    with caplog.at_level(logging.DEBUG):
        assert client.query(CANARY, timeout=20).text == CANARY.upper()
    assert CANARY not in caplog.text
    assert worker.started
