"""A rolling deploy under load: processes of the last version are replaced one after another, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from bench.stack import free_port
from tests.chaos import deploying
from tests.chaos.deploying import (
    ROOT,
    Calling,
    Deploying,
    Load,
    Throughput,
    all_calls,
    answers,
    before_the_last_change_of_scripts,
    drain,
    git,
    no_history,
)
from tests.chaos.judge import judge, read_jobs, read_ledger
from tests.chaos.test_kill_campaign import REGISTRY, lift_limits
from tests.waiting import wait_until
from vessel.client import GroqClient
from vessel.keyspace.release import release
from vessel.keyspace.script import command, word
from vessel.simulator.answers import expected_text
from vessel.usage.log import entries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from bench.stack import Stack
    from vessel.jobs.model import Job

pytestmark = pytest.mark.system
JOBS, LINES, AHEAD = 300, 200, 60

WORKERS, SLOTS = 4, 10
MANY_JOBS, MANY_LINES = 1_000, 4_000
ANSWER_MS = 1_800
"""The median; so slots bound the throughput, to some 20 answers a second, and not the processors."""
BEFORE_S, WINDOW_S = 25.0, 5.0
LEAST_PART = 0.5


@pytest.fixture(scope="module")
def last_version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Check the last version out, beside this one; a test that has none is skipped, since it would show nothing."""
    if why := no_history():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("last") / "version"
    git("worktree", "add", "--detach", str(folder), before_the_last_change_of_scripts())
    yield folder
    git("worktree", "remove", "--force", str(folder))


def test_without_a_last_version_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No checkout and a shallow clone are skipped with their reason; any other trouble is a failure."""
    for folder, why in (
        (tmp_path / "none", "no checkout"),
        (tmp_path / "shallow", "shallow"),
        (tmp_path / "whole", ""),
    ):
        folder.mkdir()
        monkeypatch.setattr(deploying, "ROOT", folder)
        if why != "no checkout":
            git("init", "--quiet")
            git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--allow-empty", "-m", "first")
        if why == "shallow":
            (folder / ".git" / "shallow").write_text(git("rev-parse", "HEAD") + "\n")
        assert why in no_history()
        assert bool(why) == bool(no_history())
    with pytest.raises(subprocess.CalledProcessError):
        before_the_last_change_of_scripts()


def test_workers_are_replaced_one_after_another(tmp_path: Path, last_version: Path) -> None:
    """500 jobs and lines, or more, run meanwhile: each ends well, was called once, and is in the ledger once."""
    with Deploying(tmp_path, simulator=("--latency-ms", "400")) as stack:
        stack.ask("/_sim/limits", {"rpm": 100_000, "tpm": 50_000_000})
        stack.root = last_version
        old = [stack.start_worker(slots=10), stack.start_worker(slots=10)]
        stack.root = ROOT
        with GroqClient(settings=stack.settings()) as client:
            batch = client.submit_batch([{"prompt": f"Line {n}", "max_tokens": 20} for n in range(LINES)])
            with Load(stack.settings(), least=JOBS, ahead=AHEAD) as load:
                for worker in old:
                    _served(stack, 40)
                    stack.start_worker(slots=10)
                    _mixed(client, stack)
                    _served(stack, 40)
                    drain(worker)
                _served(stack, 40)
            results = [client.result(job_id, timeout=120) for job_id in load.ids]
            found = batch.wait(timeout=120)
            rows: Any = [fields for _, fields in client.runner.run(entries(client.door.keys.ledger, "", 100_000))]
    assert all(result.text for result in results)
    assert (found.completed, found.failed) == (LINES, 0)
    assert calls_booked(rows) == len(load.ids) + LINES >= JOBS + LINES


@pytest.mark.timeout(1200)
def test_a_deploy_under_load_keeps_half_of_the_throughput(tmp_path: Path, last_version: Path) -> None:
    """5,000 jobs run while four workers, the scheduler and the API are replaced in the order of docs/operate.md.

    Nothing is lost and nothing done twice, every call is explained, and in no window of five seconds come fewer than
    half of the answers that came in the median one before.
    """
    registry = tmp_path / "registry.toml"
    registry.write_text(REGISTRY, "utf-8")
    env: dict[str, Any] = {"VESSEL_REGISTRY": str(registry), "VESSEL_API_PORT": str(free_port())}
    with Deploying(tmp_path / "stack", **env) as stack:
        lift_limits(stack)
        stack.ask("/_sim/latency", {"median_ms": ANSWER_MS})
        stack.root = last_version
        scheduler, api = stack.start_service("scheduler"), _started_api(stack)
        workers = [stack.start_worker(slots=SLOTS) for _ in range(WORKERS)]
        with GroqClient(settings=stack.settings()) as client:
            jobs = client.submit_many({"prompt": f"Job {n}", "max_tokens": 20} for n in range(MANY_JOBS))
            lines = [{"custom_id": f"l{n}", "prompt": f"Line {n}", "max_tokens": 20} for n in range(MANY_LINES)]
            batch = client.submit_batch(lines)
            with Calling(stack.api_url) as calling:
                _served(stack, 4 * WORKERS * SLOTS)
                began = time.time()
                wait_until(lambda: time.time() > began + BEFORE_S, 2 * BEFORE_S)
                stack.root, at = ROOT, time.time()
                for worker in workers:
                    stack.start_worker(slots=SLOTS)
                    _mixed(client, stack)
                    drain(worker)
                stack.start_service("scheduler")
                drain(scheduler)
                drain(api)
                _started_api(stack)
                called = len(calling.ids)
                wait_until(lambda: len(calling.ids) > called + 1, 60)
                over = time.time()
            assert stack.ask("/_sim/stats")["accepted"] < MANY_JOBS + MANY_LINES, "all was over before the deploy"
            ids = [*(job.id for job in jobs), *calling.ids]
            found = batch.wait(timeout=600)
            assert (found.completed, found.failed) == (MANY_LINES, 0)
            texts = {result.custom_id: result.text for result in batch.results()}
            wait_until(lambda: all(job and job.terminal for job in _read(stack, ids)), 120)
        _judge(stack, ids, texts)
        throughput = Throughput.of(all_calls(stack), WINDOW_S)
    least = throughput.least_part((began, at), (at, over))
    told = f"the slowest {WINDOW_S:g} s of a deploy of {over - at:.0f} s had {least:.0%} of the median before"
    print(f"\n{told}")  # noqa: T201  with -s: for docs/operate.md
    assert least >= LEAST_PART, told


def _started_api(stack: Deploying) -> subprocess.Popen[bytes]:
    api = stack.start_service("api")
    stack.until(lambda: answers(stack.api_url), "the API", api)
    return api


def _read(stack: Stack, ids: Sequence[str]) -> list[Job | None]:
    return read_jobs(stack.redis.url, stack.namespace, ids)


def _judge(stack: Stack, ids: Sequence[str], texts: Mapping[str, str]) -> None:
    """Compare records, answers, ledger, usage log and the simulator's calls: one call for each job, and each known."""
    path, total = stack.settings().usage_log_path, len(ids) + MANY_LINES
    ledger, calls = read_ledger(stack.redis.url, stack.namespace), all_calls(stack)
    stack.until(lambda: path.exists() and path.read_bytes().count(b"\n") >= len(ledger), "the usage log")
    verdict = judge(dict(zip(ids, _read(stack, ids), strict=True)), ledger, calls, path)
    assert verdict.clean, verdict.summary()
    assert (verdict.unknown, verdict.orphaned, verdict.calls, len(ledger)) == (0, 0, total, total), verdict.summary()
    assert len({call["attempt"].partition("/")[0] for call in calls}) == total, "a job was called twice"
    asked = {f"l{n}": [{"role": "user", "content": f"Line {n}"}] for n in range(MANY_LINES)}
    assert texts.keys() == asked.keys()
    wrong = [name for name, said in asked.items() if texts[name].split("]")[0] != expected_text(said).split("]")[0]]
    assert not wrong, f"{len(wrong)} lines have another line's answer"


def _served(stack: Stack, more: int) -> None:
    """Wait until so many more calls have been answered."""
    at = stack.ask("/_sim/stats")["accepted"]
    wait_until(lambda: stack.ask("/_sim/stats")["accepted"] >= at + more, 120)


def _mixed(client: GroqClient, stack: Stack) -> None:
    """Wait until workers of both versions are seen to live."""
    keys = client.door.keys

    def releases() -> set[str]:
        workers = client.runner.run(command("HKEYS", keys.slots, parse=lambda raw: [word(name) for name in raw]))
        return set(client.runner.run_all([command("GET", keys.release(name), parse=word) for name in workers]))

    wait_until(lambda: release() in releases() and len(releases()) > 1, 30)
    assert stack.workers


def calls_booked(rows: Sequence[dict[str, bytes]]) -> int:
    """Count the calls of the ledger, each once, none of them without an answer."""
    calls = [row["call"] for row in rows]
    assert len(calls) == len(set(calls)), "a call is booked twice"
    assert {row["outcome"] for row in rows} == {b"succeeded"}
    jobs = [json.loads(row["row"])["job_id"] for row in rows]
    assert len(jobs) == len(set(jobs)), "a job was called twice"
    return len(jobs)
