"""A seeded kill campaign: workers and Redis die under load, a hostile broker doubles tickets, and nothing is lost."""

from __future__ import annotations

import contextlib
import random
import signal
from typing import TYPE_CHECKING

import pytest

from bench.stack import Stack
from tests.chaos.judge import Verdict, judge, read_jobs, read_ledger
from vessel.dispatch.ticket import render
from vessel.errors import Unreachable
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.script import command
from vessel.submit import Door

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vessel.submit import Prepared

SEED = 20_261_124
HALVES = (("ultra_fast", "speed_demon", "compound_mini"), ("balanced", "power", "compound"))
REGISTRY = "".join(
    f'[models."openai/{name}"]\nlimits.developer = {{ rpm = 1000000, tpm = 100000000 }}\n'
    for name in ("gpt-oss-120b", "gpt-oss-20b")
)


class Campaign:
    """Submits jobs, kills what serves them, and asks the judge at the end."""

    def __init__(self, stack: Stack, *, worker_module: str = "workers.app") -> None:
        """Connect to a running stack."""
        self.stack, self.worker_module = stack, worker_module
        self.dice = random.Random(SEED)  # noqa: S311  repeatable on purpose
        self.settings = stack.settings()
        self.door = Door(self.settings)
        self.client = connect(stack.redis.url)
        self.runner = SyncRunner(self.client)
        self.ids: list[str] = []
        self.open: set[str] = set()

    def start_workers(self) -> None:
        """Start one worker per half of the tiers."""
        for tiers in HALVES:
            self.stack.start_worker(tiers, slots=50, app=self.worker_module)

    def submit(self, count: int) -> None:
        """Submit jobs over all tiers as a batch producer does; every ticket comes three times."""
        tiers = list(self.door.registry.tiers)
        availability = self.runner.run(self.door.availability())
        jobs = [
            self.door.prepare(
                {"messages": [{"role": "user", "content": f"Question {n}: what is {n} times {n}?"}]},
                {"tier": tiers[n % len(tiers)], "max_attempts": 20},
                availability=availability,
            )
            for n in range(count)
        ]
        self.runner.run_all(self.door.create_many(jobs))
        self.double_tickets(jobs)
        self.ids += [job.new.id for job in jobs]
        self.open.update(job.new.id for job in jobs)

    def double_tickets(self, jobs: Sequence[Prepared]) -> None:
        """Deliver the tickets of jobs twice more, as a broker that redelivers would."""
        for number in (1, 2):
            for job in jobs:
                name = f"{job.new.id}:copy{number}"
                envelope = render(job.queue, [(job.new.id, 0)], name, name, "a copy")
                self.client.rpush(self.door.keys.queue(job.queue), envelope)

    def kill_worker(self) -> None:
        """Kill one worker without warning and start another in its place."""
        index = self.dice.randrange(len(self.stack.workers))
        victim = self.stack.workers.pop(index)
        self.stack.kill(victim, signal.SIGKILL)
        self.stack.start_worker(HALVES[index], slots=50, app=self.worker_module, at=index)

    def done(self) -> int:
        """Count the jobs that have ended; looks at a few of those that had not."""
        looked = sorted(self.open)[:20]
        with contextlib.suppress(Unreachable):
            found = self.runner.run_all([self.door.store.peek(job_id) for job_id in looked])
            ended = {job_id for job_id, job in zip(looked, found, strict=True) if job is not None and job.terminal}
            self.open -= ended
            if len(ended) == len(looked) and self.open:
                return self.done()
        return len(self.ids) - len(self.open)

    def verdict(self) -> Verdict:
        """Ask the judge, once the usage log has caught up."""
        url, namespace = self.stack.redis.url, self.stack.namespace
        path = self.settings.usage_log_path
        booked = self.runner.run(command("XLEN", self.door.keys.ledger, parse=int))
        self.stack.until(lambda: path.exists() and path.read_bytes().count(b"\n") >= booked, "the usage log")
        jobs = dict(zip(self.ids, read_jobs(url, namespace, self.ids), strict=True))
        calls = self.stack.ask("/_sim/calls")["calls"]
        return judge(jobs, read_ledger(url, namespace), calls, path)


def stack_for(folder: Path, **env: str) -> Stack:
    """Describe a stack with short leases, slow answers and no quota in the way."""
    folder.mkdir(parents=True, exist_ok=True)
    registry = folder / "registry.toml"
    registry.write_text(REGISTRY, "utf-8")
    return Stack(folder, simulator=["--latency-ms", "60"], lease_s=3.0, VESSEL_REGISTRY=str(registry), **env)


def lift_limits(stack: Stack) -> None:
    """Take the simulator's limits away."""
    stack.ask("/_sim/limits", {"model": "*", "limits": {"rpm": 1_000_000, "tpm": 100_000_000, "rpd": None}})


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("jobs", "kills", "restarts"), [(300, 3, 1), pytest.param(2000, 20, 3, marks=pytest.mark.system)]
)
def test_a_kill_campaign_loses_and_doubles_nothing(tmp_path: Path, jobs: int, kills: int, restarts: int) -> None:
    """Workers die by kill -9, Redis restarts: one right result for each job, every call explained."""
    with stack_for(tmp_path) as stack:
        lift_limits(stack)
        campaign = Campaign(stack)
        campaign.start_workers()
        rounds = kills + restarts
        without_redis = set(campaign.dice.sample(range(rounds), restarts))
        for number in range(rounds):
            campaign.submit(jobs // rounds + (jobs % rounds if number == 0 else 0))
            if number in without_redis:
                stack.redis.stop()
                stack.redis.start()
            else:
                campaign.kill_worker()
        stack.until(lambda: campaign.done() == jobs, "all jobs to end", patience_s=150)
        verdict = campaign.verdict()
        campaign.client.close()
    assert verdict.clean, verdict.summary()
    assert verdict.unknown <= kills * 50 + restarts * 100, verdict.summary()


@pytest.mark.timeout(120)
def test_the_judge_finds_what_fencing_prevents(tmp_path: Path) -> None:
    """With the fence of claim switched off, doubled tickets run twice, and the judge says so."""
    with stack_for(tmp_path) as stack:
        lift_limits(stack)
        campaign = Campaign(stack, worker_module="tests.chaos.unfenced")
        campaign.submit(200)
        campaign.start_workers()
        stack.until(lambda: campaign.done() == len(campaign.ids), "all jobs to end")
        stack.until(lambda: stack.ask("/_sim/stats")["in_flight"] == 0, "the doubled calls to end")
        verdict = campaign.verdict()
        campaign.client.close()
    assert not verdict.clean, verdict.summary()
