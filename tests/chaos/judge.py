"""The judge of kill campaigns: joins job records, the ledger, the usage log and the simulator's own log of calls.

It knows only what must hold: every accepted job has one result, the right one; every call the simulator completed has
exactly one ledger entry; what cannot be explained is listed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis

from vessel.jobs.store import JobStore
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import Keys
from vessel.simulator.answers import expected_text
from vessel.usage.log import entries
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vessel.jobs.model import Job


@dataclass
class Verdict:
    """What the judge found; empty lists are what a good run gives."""

    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    unknown: int = 0
    orphaned: int = 0
    calls: int = 0

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.lost or self.wrong or self.doubled or self.unexplained)

    def summary(self) -> dict[str, Any]:
        """Give counts and a few examples, for a failing assertion."""
        return {
            "lost": len(self.lost),
            "wrong": len(self.wrong),
            "doubled": len(self.doubled),
            "unexplained": len(self.unexplained),
            "unknown": self.unknown,
            "orphaned": self.orphaned,
            "calls": self.calls,
            "examples": [*self.lost, *self.wrong, *self.doubled, *self.unexplained][:5],
        }


def read_jobs(url: str, namespace: str, ids: Sequence[str]) -> list[Job | None]:
    """Read the records of jobs, in order."""
    with redis.Redis.from_url(url) as client:
        store = JobStore(Keys(namespace), "", ttl_ms=1, lease_ms=1)
        return SyncRunner(client).run_all([store.read(job_id) for job_id in ids])


def read_ledger(url: str, namespace: str) -> list[dict[str, Any]]:
    """Read all ledger entries with their call and outcome."""
    found: list[dict[str, Any]] = []
    with redis.Redis.from_url(url) as client:
        runner, after = SyncRunner(client), ""
        while page := runner.run(entries(Keys(namespace).ledger, after)):
            after = page[-1][0]
            found += [
                json.loads(f["row"]) | {"call": f["call"].decode(), "outcome": f["outcome"].decode()} for _, f in page
            ]
    return found


def judge(
    jobs: Mapping[str, Job | None],
    ledger: Sequence[Mapping[str, Any]],
    calls: Sequence[Mapping[str, Any]],
    usage_log: Path | None = None,
) -> Verdict:
    """Compare what is recorded with what the simulator saw."""
    verdict = Verdict(calls=len(calls))
    for job_id, job in jobs.items():
        _judge_job(verdict, job_id, job)
    _judge_ledger(verdict, jobs, ledger, calls)
    if usage_log is not None:
        lines = [json.loads(line) for line in usage_log.read_text("utf-8").splitlines()]
        logged = Counter((line["job_id"], line["attempt"], line["outcome"]) for line in lines)
        booked = Counter((e["job_id"], e["attempt"], e["outcome"]) for e in ledger)
        verdict.unexplained += [f"usage log and ledger differ: {key}" for key in (logged - booked) + (booked - logged)]
    return verdict


def _judge_job(verdict: Verdict, job_id: str, job: Job | None) -> None:
    if job is None or not job.terminal:
        verdict.lost.append(f"{job_id}: {job.state if job else 'no record'}")
        return
    if job.state is not JobState.SUCCEEDED or job.response is None:
        verdict.wrong.append(f"{job_id}: {job.state} {job.reason} {job.message}")
        return
    text = json.loads(job.response)["choices"][0]["message"]["content"]
    wanted = expected_text(job.request()["messages"])
    if text.split("]")[0] != wanted.split("]")[0]:
        verdict.wrong.append(f"{job_id}: the answer belongs to another prompt")


def _judge_ledger(
    verdict: Verdict,
    jobs: Mapping[str, Job | None],
    ledger: Sequence[Mapping[str, Any]],
    calls: Sequence[Mapping[str, Any]],
) -> None:
    outcomes = Counter(entry["outcome"] for entry in ledger)
    verdict.unknown, verdict.orphaned = outcomes["unknown"], outcomes["orphaned"]
    by_call = Counter(entry["call"] for entry in ledger)
    verdict.doubled += [f"{call}: {n} ledger entries" for call, n in by_call.items() if n > 1]
    won = Counter(entry["job_id"] for entry in ledger if entry["outcome"] == "succeeded")
    verdict.doubled += [f"{job_id}: {n} results" for job_id, n in won.items() if n > 1]
    verdict.unexplained += [f"{job_id}: no ledger entry" for job_id in jobs if not won[job_id]]
    completed = {c["attempt"]: c for c in calls if c["status"] == 200}
    repeated = Counter(c["attempt"] for c in calls if c["status"] == 200)
    verdict.doubled += [f"{a}: called {n} times" for a, n in repeated.items() if n > 1]
    rows = {entry["call"]: entry for entry in ledger}
    for attempt, call in completed.items():
        row = rows.get(attempt)
        if row is None:
            verdict.unexplained.append(f"{attempt}: completed at the simulator, not in the ledger")
        elif row["outcome"] in {"succeeded", "orphaned"} and _tokens(row) != _tokens_called(call):
            verdict.unexplained.append(f"{attempt}: ledger and simulator count different tokens")
    for call_id, row in rows.items():
        if row["outcome"] in {"succeeded", "orphaned"} and call_id not in completed:
            verdict.unexplained.append(f"{call_id}: in the ledger as answered, unknown to the simulator")


def _tokens(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["tokens"]["input"], row["tokens"]["output"]


def _tokens_called(call: Mapping[str, Any]) -> tuple[int, int]:
    return call["prompt_tokens"], call["completion_tokens"]
