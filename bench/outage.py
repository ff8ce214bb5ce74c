"""An outage of the upstream in the middle of a batch: a third answers 503, a third hangs, a third resets connections.

Says how many jobs failed, how many attempts were counted against jobs, how often the upstream was looked at meanwhile
(after the first seconds, in which calls under way meet it), how soon the rate was back, and whether a bucket was
exceeded. The goals are about `--seconds 180`; the default is short.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from groq_vessel import GroqClient

from bench.rig import PATIENCE_S, calls_of, failed, submit, upstream, wait
from bench.workload import MINUTE_S, Quota, between, busiest, refused, requests
from vessel.jobs.record import read_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stack import Stack

MODES = ("503", "hang", "refuse_reset")
NOTICED_S = 10.0
"""Calls under way when it begins are no probes; by then they have ended and the breaker has opened."""

PROBE_S, WINDOW_S = 5.0, 5
PART = 0.95
GOAL_RECOVERY_S = 60.0
LEAST_BUSY = 10


@dataclass(frozen=True, slots=True)
class Found:
    """The figures. `recovery_s` is None where the rate never came back; attempts are those counted against a job."""

    outage_s: float
    failed: int
    most_attempts: int
    jobs_with_attempts: int
    calls_at_first: int
    probes: int
    probes_in_5_s: int
    recovery_s: float | None
    refused_after: int


class Outage:
    """Begins once part of the jobs is done and goes from one mode to the next; asked again and again by the waiter."""

    def __init__(self, stack: Stack, jobs: int, seconds: float) -> None:
        """Prepare; nothing fails yet."""
        self.stack, self.jobs, self.part_s = stack, jobs, seconds / len(MODES)
        self.began: float | None = None
        self.mode = -1

    def look(self, ended: int) -> None:
        """Begin, go on or end, by what is done and the time."""
        if self.began is None:
            if ended < self.jobs // 2:
                return
            self.began = time.monotonic()
        mode = int((time.monotonic() - self.began) / self.part_s)
        if mode != self.mode and self.mode < len(MODES):
            self.mode = min(mode, len(MODES))
            self.stack.ask("/_sim/outage", {"mode": MODES[self.mode] if self.mode < len(MODES) else "off"})


def recovery_s(calls: Sequence[dict[str, Any]], end: float, tpm: int) -> float | None:
    """Return how long after `end` the use of a few seconds first reached its part of the refill rate."""
    wanted = PART * tpm / MINUTE_S * WINDOW_S
    done = sorted((c["finished_at"], c["prompt_tokens"] + c["completion_tokens"]) for c in calls if c["completed"])
    for index, (at, _) in enumerate(done):
        if at < end:
            continue
        recent = sum(tokens for when, tokens in done[: index + 1] if at - WINDOW_S < when and when >= end)
        if recent >= wanted:
            return float(at - end)
    return None


def span(calls: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return when calls first and last met the outage, by the upstream's clock; two zeros where none did."""
    hit = [call for call in calls if str(call["reason"]).startswith("outage_")]
    return min((c["started_at"] for c in hit), default=0.0), max((c["started_at"] for c in hit), default=0.0)


def attempts(stack: Stack, ids: Sequence[str]) -> list[int]:
    """Return how many attempts were counted against each job, the successful one not among them."""
    found = []
    with redis.Redis.from_url(stack.redis.url) as store:
        for job_id in ids:
            job = read_job({k.decode(): v for k, v in store.hgetall(f"{stack.namespace}:job:{job_id}").items()})
            found.append(sum(a.counted and a.outcome != "succeeded" for a in job.attempts))
    return found


def measure(jobs: int, seconds: float, quota: Quota, processes: int, folder: Path) -> Found:
    """Run the batch through the outage."""
    with upstream(folder, quota, quota, processes) as stack:
        with GroqClient(settings=stack.settings()) as client:
            ids = [handle.id for handle in submit(client, requests(jobs))]
        outage = Outage(stack, jobs, seconds)
        done = wait(stack, ids, PATIENCE_S + seconds, outage.look)
        calls = calls_of(stack)
        counted = attempts(stack, ids)
    start, _ = span(calls)
    end = start + seconds
    probes = between(calls, start + NOTICED_S, end)
    return Found(
        outage_s=seconds,
        failed=failed(done),
        most_attempts=max(counted, default=0),
        jobs_with_attempts=sum(number > 0 for number in counted),
        calls_at_first=len(between(calls, start, start + NOTICED_S)),
        probes=len(probes),
        probes_in_5_s=busiest((call["started_at"] for call in probes), PROBE_S),
        recovery_s=recovery_s(calls, end, quota.tpm),
        refused_after=refused(between(calls, end, float("inf"))),
    )


def main() -> None:
    """Print the figures and the goals."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=2000)
    options.add_argument("--seconds", type=float, default=45.0, help="of the outage; the goals are about 180")
    options.add_argument("--processes", type=int, default=4)
    options.add_argument("--rpm", type=int, default=3000)
    options.add_argument("--tpm", type=int, default=600_000)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.jobs, given.seconds, Quota(given.rpm, given.tpm), given.processes, Path(folder))
    if given.json:
        print(json.dumps(asdict(found)))
        return
    back = "never" if found.recovery_s is None else f"{found.recovery_s:.1f} s"
    print(f"{given.jobs} jobs, {found.outage_s:g} s of outage")
    print(f"failed jobs {found.failed} (goal 0); attempts counted against {found.jobs_with_attempts} jobs, at most "
          f"{found.most_attempts} (goal: not used up)")  # fmt: skip
    print(f"calls in the first {NOTICED_S:g} s {found.calls_at_first}; then {found.probes} probes, at most "
          f"{found.probes_in_5_s} in any {PROBE_S:g} s (goal 1)")  # fmt: skip
    print(f"back at {PART:.0%} of the rate after {back} (goal {GOAL_RECOVERY_S:g} s)")
    print(f"429s after it {found.refused_after} (goal 0)")


if __name__ == "__main__":
    main()
