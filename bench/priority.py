"""How long interactive calls wait while a batch fills the limits, and what they cost the batch.

Interactive calls arrive at random (Poisson) with a tenth of the tokens per minute. Their wait is from creation to the
start of the call, by Redis' clock. The batch runs once alone and once beside them; its rate is what its calls used a
second, from the moment the upstream's bucket was first drained. `--jobs 20000` is the size that the goals are about.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from groq_vessel import GroqClient

from bench.rig import calls_of, failed, submit, upstream, wait
from bench.workload import (
    MEAN_OUTPUT,
    MEAN_PROMPT,
    MINUTE_S,
    Quota,
    between,
    drained_at,
    quantile,
    refused,
    requests,
    share,
    used_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stack import Stack
    from vessel.settings import Settings

PART = 0.1
INTERACTIVE_SEED = 99
GOAL_P95_S, GOAL_MORE = 1.0, 0.02
TAIL_S = 2.0
"""So long before the batch's last start its rate is not looked at any more: there the last jobs end."""


@dataclass(frozen=True, slots=True)
class Found:
    """The figures; rates in tokens a second of the batch alone, `share` is interactive work's part of all tokens."""

    calls: int
    p50_s: float
    p95_s: float
    most_s: float
    rate_alone: float
    rate_beside: float
    fall: float
    share: float
    refused: int
    failed: int


class Visitor(threading.Thread):
    """Submits interactive jobs at random moments until it is told to stop."""

    def __init__(self, settings: Settings, calls_per_s: float) -> None:
        """Prepare; nothing is sent yet."""
        super().__init__(daemon=True)
        self.settings, self.calls_per_s = settings, calls_per_s
        self.over = threading.Event()
        self.ids: list[str] = []

    def run(self) -> None:
        """Send one request after the other, each without waiting for its answer."""
        dice = random.Random(INTERACTIVE_SEED)  # noqa: S311  repeatable on purpose
        work = iter(requests(100_000, seed=INTERACTIVE_SEED))
        with GroqClient(settings=self.settings) as client:
            while not self.over.wait(dice.expovariate(self.calls_per_s)):
                self.ids += [handle.id for handle in submit(client, [next(work)], "interactive")]


def waits_s(stack: Stack, ids: Sequence[str]) -> list[float]:
    """Return the seconds from creation to the first start of jobs, by their events."""
    found = []
    with redis.Redis.from_url(stack.redis.url) as store:
        for job_id in ids:
            key = f"{stack.namespace}:job:{job_id}"
            created = int(store.hget(key, "created") or 0)
            starts = [
                int(fields[b"at"]) for _, fields in store.xrange(f"{key}:events") if fields[b"event"] == b"started"
            ]
            if starts:
                found.append((min(starts) - created) / 1000)
    return found


def rate(calls: Sequence[dict[str, Any]], batch: Sequence[dict[str, Any]], tpm: int) -> float:
    """Return what the batch used a second once the bucket was drained; 0 where it never was."""
    start, end = drained_at(calls, tpm), max((call["started_at"] for call in batch), default=0.0) - TAIL_S
    if start is None or end <= start:
        return 0.0
    return used_tokens(between(batch, start, end)) / (end - start)


def run(folder: Path, jobs: int, quota: Quota, processes: int, *, beside: bool) -> dict[str, Any]:
    """Run the batch, alone or beside interactive calls."""
    with upstream(folder, quota, quota, processes) as stack:
        settings = stack.settings()
        visitor = Visitor(settings, PART * quota.tpm / MINUTE_S / (MEAN_PROMPT + MEAN_OUTPUT))
        with GroqClient(settings=settings) as client:
            ids = [handle.id for handle in submit(client, requests(jobs))]
        if beside:
            visitor.start()
        done = wait(stack, ids)
        if beside:
            visitor.over.set()
            visitor.join()
            done += wait(stack, visitor.ids)
        calls = calls_of(stack)
        own = {f"{job_id}/" for job_id in ids}
        batch = [call for call in calls if f"{(call['attempt'] or '').partition('/')[0]}/" in own]
        return {"waits": waits_s(stack, visitor.ids), "rate": rate(calls, batch, quota.tpm), "failed": failed(done),
                "refused": refused(calls), "visited": used_tokens(calls) - used_tokens(batch),
                "used": used_tokens(calls)}  # fmt: skip


def measure(jobs: int, quota: Quota, processes: int, folder: Path) -> Found:
    """Run both and compare."""
    alone = run(folder / "alone", jobs, quota, processes, beside=False)
    beside = run(folder / "beside", jobs, quota, processes, beside=True)
    waits = beside["waits"]
    return Found(
        calls=len(waits),
        p50_s=quantile(waits, 0.5),
        p95_s=quantile(waits, 0.95),
        most_s=max(waits, default=0.0),
        rate_alone=alone["rate"],
        rate_beside=beside["rate"],
        fall=1 - share(beside["rate"], alone["rate"]),
        share=PART,
        refused=alone["refused"] + beside["refused"],
        failed=alone["failed"] + beside["failed"],
    )


def main() -> None:
    """Print the waits, the rates and the goals."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=2600)
    options.add_argument("--processes", type=int, default=4)
    options.add_argument("--rpm", type=int, default=3000)
    options.add_argument("--tpm", type=int, default=600_000)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given.jobs, Quota(given.rpm, given.tpm), given.processes, Path(folder))
    if given.json:
        print(json.dumps(asdict(found) | {"goal_p95_s": GOAL_P95_S, "goal_fall": found.share + GOAL_MORE}))
        return
    print(f"{given.jobs} batch jobs, {found.calls} interactive ones beside them")
    print(f"interactive wait  p50 {found.p50_s:.3f} s  p95 {found.p95_s:.3f} s (goal {GOAL_P95_S:g})  "
          f"most {found.most_s:.3f} s")  # fmt: skip
    print(f"batch  {found.rate_alone:.0f} tokens/s alone, {found.rate_beside:.0f} beside: {found.fall:.1%} less "
          f"(goal {found.share + GOAL_MORE:.0%} at most)")  # fmt: skip
    print(f"429s {found.refused}, failed jobs {found.failed} (goal 0)")


if __name__ == "__main__":
    main()
