"""The main job end to end: real workers, a real Redis, the simulator as Groq, and nothing stubbed in between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from groq_vessel import GroqClient

from bench.stack import Stack
from tests.chaos.judge import judge, read_jobs, read_ledger
from tests.chaos.test_kill_campaign import REGISTRY
from vessel.dispatch.ticket import render
from vessel.errors import JobFailed
from vessel.keyspace.connect import connect
from vessel.registry import load_registry
from vessel.simulator.answers import digest
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

TIERS = tuple(load_registry().tiers)
SERVED = {
    "seed": {
        "ultra_fast": "llama-3.1-8b-instant",
        "balanced": "llama-3.3-70b-versatile",
        "power": "openai/gpt-oss-120b",
        "speed_demon": "openai/gpt-oss-20b",
        "compound": "groq/compound",
        "compound_mini": "groq/compound-mini",
    },
    "today": {
        "ultra_fast": "openai/gpt-oss-20b",
        "balanced": "openai/gpt-oss-120b",
        "power": "openai/gpt-oss-120b",
        "speed_demon": "openai/gpt-oss-20b",
        "compound": "openai/gpt-oss-120b",
        "compound_mini": "openai/gpt-oss-20b",
    },
}


def open_client(stack: Stack) -> GroqClient:
    """Open a client on a stack."""
    return GroqClient(settings=stack.settings())


def unlimited(folder: Path, latency_ms: int, **more: float) -> Stack:
    """Describe a stack whose quota is out of the way."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "registry.toml").write_text(REGISTRY, "utf-8")
    simulator = ["--latency-ms", str(latency_ms)]
    return Stack(folder, simulator=simulator, VESSEL_REGISTRY=str(folder / "registry.toml"), **more)  # type: ignore[arg-type]  # lease_s is the only number


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run one worker for all tiers."""
    with Stack(tmp_path_factory.mktemp("spine"), simulator=["--latency-ms", "20"], lease_s=3.0) as running:
        running.start_worker()
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[GroqClient]:
    """Open a client on a simulator without faults."""
    stack.ask("/_sim/faults", method="DELETE")
    with open_client(stack) as opened:
        yield opened


@pytest.mark.parametrize("world", ["seed", "today"])
def test_every_tier_is_served_in_both_worlds(tmp_path: Path, world: str) -> None:
    """A tier answers with its own model where that is served, and with its successor where not."""
    with Stack(tmp_path, world=world, simulator=["--latency-ms", "5"]) as running:
        running.start_worker()
        with open_client(running) as opened:
            results = {tier: opened.query(f"Who serves {tier}?", tier=tier, timeout=30) for tier in TIERS}
    assert {tier: result.model for tier, result in results.items()} == SERVED[world]
    assert all(result.tier == tier for tier, result in results.items())
    for tier, result in results.items():
        assert result.text.startswith(f"[{digest([{'role': 'user', 'content': f'Who serves {tier}?'}])}]")
        assert result.cost_usd > 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.system)])
def test_jobs_over_two_workers_are_each_answered_once(tmp_path: Path, count: int) -> None:
    """Jobs over all tiers: a right result and a usage line each, and the simulator's own totals."""
    with unlimited(tmp_path, 20) as running:
        running.ask("/_sim/limits", {"model": "*", "limits": {"rpm": 1_000_000, "tpm": 100_000_000, "rpd": None}})
        running.start_worker(TIERS[:3])
        running.start_worker(TIERS[3:])
        with open_client(running) as opened:
            lines = [
                {"messages": [{"role": "user", "content": f"Number {n}?"}], "vessel": {"tier": TIERS[n % len(TIERS)]}}
                for n in range(count)
            ]
            ids = [handle.id for handle in opened.submit_many(lines)]
            assert sum(1 for _ in opened.wait(ids, timeout=120)) == len(ids)
        log = running.settings().usage_log_path
        running.until(lambda: log.exists() and log.read_bytes().count(b"\n") >= len(ids), "the usage log")
        jobs = dict(zip(ids, read_jobs(running.redis.url, running.namespace, ids), strict=True))
        ledger = read_ledger(running.redis.url, running.namespace)
        verdict = judge(jobs, ledger, running.ask("/_sim/calls")["calls"], log)
        stats = running.ask("/_sim/stats")
    assert verdict.clean, verdict.summary()
    assert len(ledger) == len(ids) == stats["completed"]
    assert sum(row["tokens"]["input"] for row in ledger) == stats["tokens"]["prompt"]
    assert sum(row["tokens"]["output"] for row in ledger) == stats["tokens"]["completion"]


def test_a_ticket_delivered_three_times_runs_once(stack: Stack, client: GroqClient) -> None:
    """Copies of a ticket give no second call, no second result and no second usage line."""
    before = stack.ask("/_sim/stats")["completed"]
    handle = client.submit("How often do I run?", tier="power")
    with connect(stack.redis.url) as redis:
        for number in (1, 2):
            copy = render("power", [(handle.id, 0)], f"{handle.id}:{number}", f"{handle.id}:{number}", "a copy")
            redis.rpush(f"{stack.namespace}:power", copy)
        assert handle.result(timeout=30).text
        stack.until(lambda: not redis.llen(f"{stack.namespace}:power"), "the copies to be taken")
    assert client.query("And after them?", tier="power", timeout=30).text
    assert stack.ask("/_sim/stats")["completed"] == before + 2
    calls = Counter(row["job_id"] for row in read_ledger(stack.redis.url, stack.namespace))
    assert calls[handle.id] == 1


def test_a_worker_killed_in_mid_call_costs_one_unknown_call_and_no_job(tmp_path: Path) -> None:
    """A kill -9 while the answer is on its way: one result in the end, and one ledger row of unknown outcome."""
    with unlimited(tmp_path, 1500, lease_s=2.0) as running:
        worker = running.start_worker(["power"])
        with open_client(running) as opened:
            handle = opened.submit("Will I survive?", tier="power")
            running.until(lambda: running.ask("/_sim/stats")["in_flight"] == 1, "the call to be under way")
            running.kill(worker)
            running.workers.remove(worker)
            running.start_worker(["power"])
            result = handle.result(timeout=60)
        ledger = read_ledger(running.redis.url, running.namespace)
    assert [row["outcome"] for row in ledger] == ["unknown", "succeeded"]
    assert [attempt.outcome for attempt in result.attempts] == ["unknown", "succeeded"]


@pytest.mark.timeout(120)
def test_sigterm_lets_calls_end_and_gives_the_rest_back(tmp_path: Path) -> None:
    """A drained worker finishes what runs, returns what has not started, and uses up no attempt."""
    with unlimited(tmp_path, 1000) as running:
        worker = running.start_worker(["power"], slots=5)
        with open_client(running) as opened:
            handles = [opened.submit(f"Drain {n}", tier="power") for n in range(20)]
            running.until(lambda: running.ask("/_sim/stats")["in_flight"] == 5, "five calls to be under way")
            assert running.kill(worker, signal.SIGTERM) == 0
            running.workers.remove(worker)
            states = Counter(handle.state() for handle in handles)
            assert states[JobState.SUCCEEDED] + states[JobState.QUEUED] == 20
            assert states[JobState.SUCCEEDED] >= 5
            running.start_worker(["power"])
            results = [handle.result(timeout=60) for handle in handles]
        assert running.ask("/_sim/stats")["completed"] == 20
    assert all(len(result.attempts) == 1 for result in results)


@pytest.mark.system
def test_a_rate_limit_storm_is_waited_out_without_using_attempts(stack: Stack, client: GroqClient) -> None:
    """429s park or re-route a job; no attempt counts and every job ends well."""
    storm = {"kind": "status", "status": 429, "count": 8, "retry_after": 1, "match": "storm"}
    stack.ask("/_sim/faults", storm)
    handles = [client.submit(f"storm {n}", tier="power") for n in range(12)]
    results = [handle.result(timeout=60) for handle in handles]
    refused = [a for r in results for a in r.attempts if a.status == 429]
    assert refused
    assert not any(attempt.counted for attempt in refused)


def test_a_bad_request_fails_at_once_and_walks_no_chain(stack: Stack, client: GroqClient) -> None:
    """A 400 is nobody else's business: one call, one attempt, a failure that says so."""
    stack.ask("/_sim/faults", {"kind": "status", "status": 400, "match": "malformed"})
    with pytest.raises(JobFailed) as failed:
        client.query("malformed wish", tier="power", timeout=30)
    assert failed.value.reason == "bad_request"
    assert len(failed.value.attempts) == 1


def test_transient_faults_are_retried_and_end_well(stack: Stack, client: GroqClient) -> None:
    """Resets, HTML, cut JSON, missing choices and 500s are tried again within the attempts a job has."""
    kinds = ["reset_before_headers", "html_200", "truncated_json", "missing_choices", "empty_choices"]
    for kind in kinds:
        stack.ask("/_sim/faults", {"kind": kind, "count": 1, "match": f"fault {kind}"})
    stack.ask("/_sim/faults", {"kind": "status", "status": 500, "count": 1, "match": "fault 500"})
    for kind in [*kinds, "500"]:
        result = client.query(f"fault {kind}", tier="power", timeout=30)
        assert [attempt.outcome for attempt in result.attempts][-1] == "succeeded", kind
        assert len(result.attempts) == 2, kind


def test_empty_content_is_an_answer(client: GroqClient) -> None:
    """Empty and null content that the model meant are results, not faults."""
    assert client.query("say <<empty>>", tier="power", timeout=30).text == ""
    cut = client.query("say <<null>>", tier="power", timeout=30)
    assert (cut.text, cut.finish_reason, len(cut.attempts)) == ("", "length", 1)


def test_max_cost_holds(client: GroqClient) -> None:
    """A job never costs more than its cap, and one that could not be served within it is refused unsent."""
    result = client.query("How cheap?", tier="power", max_cost_usd="0.0002", timeout=30)
    assert result.cost_usd <= 0.0002


def test_a_cancelled_job_that_waits_is_never_sent(stack: Stack, client: GroqClient) -> None:
    """Cancelling a parked job ends it at once; the simulator never hears of it."""
    stack.ask("/_sim/faults", {"kind": "status", "status": 429, "retry_after": 30, "match": "patience"})
    handle = client.submit("patience", tier="power", fallback="none", max_wait=60)
    stack.until(lambda: handle.state() is JobState.PARKED, "the job to be parked")
    handle.cancel()
    assert handle.state() is JobState.CANCELLED


def test_no_prompt_reaches_messages_or_logs(tmp_path: Path) -> None:
    """A canary in prompt and answer is found in no Celery message, no log and no worker output."""
    canary = "canary-7f3e9c"
    with Stack(tmp_path, simulator=["--latency-ms", "5"]) as running:
        running.start_worker(["balanced"])
        with open_client(running) as opened:
            waiting = opened.submit(f"{canary} waits", tier="power")
            with connect(running.redis.url) as redis:
                messages = redis.lrange(f"{running.namespace}:power", 0, -1)
            assert canary in opened.query(f"{canary} runs", tier="balanced", timeout=30).text
            running.ask("/_sim/faults", {"kind": "status", "status": 400, "match": canary})
            with pytest.raises(JobFailed) as failed:
                opened.query(f"{canary} fails", tier="balanced", timeout=30)
        logs = [path.read_text("utf-8", "replace") for path in tmp_path.glob("*.log")]
        usage = running.settings().usage_log_path
        running.until(usage.exists, "the usage log")
        logs.append(usage.read_text("utf-8"))
    assert messages
    assert waiting.id.encode() in messages[0]
    assert canary.encode() not in b"".join(messages)
    assert not any(canary in text for text in logs)
    assert canary not in repr(failed.value)


@pytest.mark.timeout(120)
def test_a_model_that_goes_away_costs_no_job_and_no_attempt(tmp_path: Path) -> None:
    """A model removed in mid-run: the next one serves its jobs, the 404 does not count, one warning is logged."""
    with unlimited(tmp_path, 20) as running:
        running.start_worker()
        with open_client(running) as opened:
            assert opened.query("before", tier="speed_demon", timeout=30).model == "openai/gpt-oss-20b"
            running.ask("/_sim/models", {"remove": ["openai/gpt-oss-20b"]})
            handles = [opened.submit(f"after {n}", tier="speed_demon") for n in range(30)]
            results = [handle.result(timeout=60) for handle in handles]
        warnings = [json.loads(line) for line in running.log("worker1").splitlines() if '"model.gone"' in line]
    assert {result.model for result in results} == {"openai/gpt-oss-120b"}
    gone = [a for r in results for a in r.attempts if a.status == 404]
    assert gone
    assert not any(attempt.counted for attempt in gone)
    assert len(warnings) == 1


@pytest.mark.timeout(120)
@pytest.mark.system
def test_a_model_that_was_gone_for_a_moment_serves_again(tmp_path: Path) -> None:
    """One 404 of a model that is listed all the same takes it out for seconds, not until the next regular look."""
    with unlimited(tmp_path, 5) as running:
        running.start_worker()
        running.ask("/_sim/faults", {"kind": "model_decommissioned", "count": 1, "match": "blip"})
        with open_client(running) as opened:
            assert opened.query("a blip", tier="speed_demon", timeout=30).model == "openai/gpt-oss-120b"
            running.until(
                lambda: opened.query("later", tier="speed_demon", timeout=30).model == "openai/gpt-oss-20b",
                "the model to serve again",
                patience_s=20,
            )


def test_an_empty_list_of_models_is_not_believed_by_hand_either(tmp_path: Path) -> None:
    """`vessel models --refresh` keeps the last list when Groq lists nothing, and says so; it would fail every job."""
    command = [str(Path(sys.executable).with_name("vessel")), "models", "--refresh", "--json"]
    with Stack(tmp_path) as running:
        first = subprocess.run(command, env=running.environment(), capture_output=True, text=True, check=True)
        served = running.ask("/_sim/models", {"remove": []})["models"]
        running.ask("/_sim/models", {"remove": served})
        second = subprocess.run(command, env=running.environment(), capture_output=True, text=True, check=False)
        with connect(running.redis.url) as redis:
            listed = json.loads(redis.hget(f"{running.namespace}:models", "listed") or b"[]")
    assert "openai/gpt-oss-20b" in first.stdout
    assert second.returncode == 3
    assert "the last list stays" in second.stderr
    assert "openai/gpt-oss-20b" in listed
