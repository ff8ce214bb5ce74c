"""Jobs per second and CPU per job of one Vessel worker, beside plain Celery with threads and the sync SDK, in one run.

Both get the same 50 ms upstream, one worker process, 100 slots and the same jobs, in interleaved rounds. Vessel does
more for each job (claim, gate, write-ahead row, ledger, result, event); plain Celery stores its result in Redis.
Vessel's bulk submission puts several tickets into one message, the peer sends one message a job: the jobs/s include
that difference, the CPU of the worker is the fairer figure. Only ratios are worth quoting: the machine is shared.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from celery import Celery
from groq_vessel import GroqClient

from bench.stack import KEY, Stack
from vessel.dispatch.app import broker_url

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

GOAL = 1.15
TIER, MODEL = "speed_demon", "openai/gpt-oss-20b"
REGISTRY = f'[models."{MODEL}"]\nlimits.developer = {{ rpm = 1000000, tpm = 100000000 }}\n'

# The peer: what a team writes first. It is run by the celery command from this file's folder.
peer = Celery("peer", broker=os.environ.get("PEER_BROKER", ""), backend=os.environ.get("PEER_RESULTS", ""))
peer.conf.broker_transport_options = {"max_connections": 400}
peer.conf.worker_prefetch_multiplier = 1
_clients: list[Any] = []


@peer.task(name="peer.ask")
def ask(prompt: str) -> str:
    """Ask Groq with the sync SDK, one client per process."""
    import groq  # noqa: PLC0415  as late as a worker needs it

    if not _clients:
        _clients.append(groq.Groq(api_key=KEY, base_url=os.environ["GROQ_BASE_URL"], max_retries=2))
    answer = _clients[0].chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}])
    return str(answer.choices[0].message.content)


@dataclass(frozen=True, slots=True)
class Round:
    """One engine's measurement."""

    jobs_per_s: float
    cpu_ms_per_job: float


def cpu_s(pid: int) -> float:
    """Read the CPU seconds a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(pid: int, jobs: int, submit: Callable[[], object], done: Callable[[], int]) -> Round:
    """Submit, wait for the last result, and divide."""
    cpu, start = cpu_s(pid), time.monotonic()
    submit()
    while done() < jobs:
        time.sleep(0.01)
    return Round(jobs / (time.monotonic() - start), (cpu_s(pid) - cpu) * 1000 / jobs)


def run_vessel(stack: Stack, pid: int, jobs: int) -> Round:
    """Send jobs through Vessel."""
    with GroqClient(settings=stack.settings()) as client, redis.Redis.from_url(stack.redis.url) as store:
        before = store.xlen(f"{stack.namespace}:ledger")
        lines = [{"messages": [{"role": "user", "content": f"Job {n}"}], "vessel": {"tier": TIER}} for n in range(jobs)]
        return measure(
            pid,
            jobs,
            lambda: client.submit_many(lines),
            lambda: store.xlen(f"{stack.namespace}:ledger") - before,
        )


def run_peer(stack: Stack, pid: int, jobs: int) -> Round:
    """Send jobs through plain Celery; the results are counted in its backend."""
    with redis.Redis.from_url(results_url(stack)) as store:
        before = store.dbsize()

        def submit() -> None:
            for n in range(jobs):
                ask.apply_async((f"Job {n}",), queue="peer")

        return measure(pid, jobs, submit, lambda: store.dbsize() - before)


def results_url(stack: Stack) -> str:
    """Name the database that holds the peer's results and nothing else, so that its size counts them."""
    return f"{stack.redis.url}?db=2"


def start_peer(stack: Stack) -> subprocess.Popen[bytes]:
    """Start plain Celery with the threads pool, 100 slots."""
    stack.more_env |= {
        "PEER_BROKER": broker_url(f"{stack.redis.url}?db=1")[0],
        "PEER_RESULTS": broker_url(results_url(stack))[0],
    }
    peer.conf.update(broker_url=stack.more_env["PEER_BROKER"], result_backend=stack.more_env["PEER_RESULTS"])
    command = [sys.executable, "-m", "celery", "-A", "bench.throughput:peer", "worker", "-P", "threads", "-c", "100"]
    process = stack.spawn([*command, "-Q", "peer", "-n", "peer@bench", "--without-mingle", "--without-gossip"], "peer")
    stack.workers.append(process)
    ask.apply_async(("Ready?",), queue="peer").get(timeout=60)
    return process


def main() -> int:
    """Run the rounds and print medians and ratios; 1 below the goal."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=1500)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder, "registry.toml")
        registry.write_text(REGISTRY, "utf-8")
        with Stack(Path(folder, "stack"), simulator=["--latency-ms", "50"], VESSEL_REGISTRY=str(registry)) as stack:
            stack.ask("/_sim/limits", {"model": "*", "limits": {"rpm": 1_000_000, "tpm": 100_000_000, "rpd": None}})
            ours, theirs = stack.start_worker([TIER], slots=100).pid, start_peer(stack).pid
            run_vessel(stack, ours, 100)
            run_peer(stack, theirs, 100)
            rounds = [
                (run_vessel(stack, ours, given.jobs), run_peer(stack, theirs, given.jobs)) for _ in range(given.rounds)
            ]
    return 0 if report(rounds, given.jobs, as_json=given.json) >= GOAL else 1


def report(rounds: list[tuple[Round, Round]], jobs: int, *, as_json: bool) -> float:
    """Print the medians and the ratios of each round's two engines; give the smaller ratio."""
    rate = statistics.median(v.jobs_per_s / p.jobs_per_s for v, p in rounds)
    cpu = statistics.median(p.cpu_ms_per_job / v.cpu_ms_per_job for v, p in rounds)
    found = {
        "jobs": jobs,
        "rounds": len(rounds),
        "vessel": {name: statistics.median(getattr(v, name) for v, _ in rounds) for name in Round.__slots__},
        "celery_threads": {name: statistics.median(getattr(p, name) for _, p in rounds) for name in Round.__slots__},
        "ratio_jobs_per_s": rate,
        "ratio_cpu": cpu,
        "goal": GOAL,
    }
    if as_json:
        print(json.dumps(found))
        return min(rate, cpu)
    for name in ("vessel", "celery_threads"):
        row = found[name]
        print(f"{name:15} {row['jobs_per_s']:7.0f} jobs/s {row['cpu_ms_per_job']:6.2f} ms CPU a job")  # type: ignore[index]  # rows are dicts
    print(f"ratios (goal {GOAL}): {rate:.2f} x the jobs/s, {cpu:.2f} x less CPU a job")
    return min(rate, cpu)


if __name__ == "__main__":
    raise SystemExit(main())
