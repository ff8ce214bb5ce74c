"""A limited upstream with workers before it, and what became of the jobs by Redis' and the upstream's clock."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis

from bench.stack import Stack
from bench.workload import MODEL, TIER, Quota, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from groq_vessel import GroqClient

    from vessel.client import JobHandle

SLOTS = 100
"""Job slots of each worker process."""

MEDIAN_MS, SIGMA = 300, 0.4
PATIENCE_S = 40.0
READ_AT_ONCE, LOOKED_AT_PER_S = 500, 4000
TERMINAL = frozenset({b"succeeded", b"failed", b"cancelled", b"expired"})
_MODEL = f"""[tiers.{TIER}]
model = "{MODEL}"

[models."{MODEL}"]
tier = "{TIER}"
kind = "chat"
status = "production"
context_window = 131072
max_output = 65536
prices = {{ input = 0.05, output = 0.08 }}
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one job; times in seconds of Redis' clock, `finished` None where it has not ended."""

    id: str
    state: str
    reason: str
    created: float
    finished: float | None


def registry_text(quota: Quota | None) -> str:
    """Write the registry: a model of our own, whose limits are told, or with None are to be learned."""
    limits = "" if quota is None else f"limits.developer = {{ rpm = {quota.rpm}, tpm = {quota.tpm} }}\n"
    return _MODEL + limits


def scenario(quota: Quota) -> dict[str, object]:
    """Write how the simulator begins."""
    return {
        "limits": {MODEL: {"rpm": quota.rpm, "tpm": quota.tpm}},
        "latency_median_ms": MEDIAN_MS,
        "latency_sigma": SIGMA,
        "models_added": [{"id": MODEL, "features": []}],
        "calls_kept": 1_000_000,
    }


@contextlib.contextmanager
def upstream(folder: Path, quota: Quota, told: Quota | None, processes: int) -> Iterator[Stack]:
    """Start the simulator with limits, and so many workers that were told some or none."""
    folder.mkdir(parents=True, exist_ok=True)
    registry, begins = folder / "registry.toml", folder / "scenario.json"
    registry.write_text(registry_text(told), "utf-8")
    begins.write_text(json.dumps(scenario(quota)), "utf-8")
    stack = Stack(folder / "stack", simulator=["--scenario", str(begins)], VESSEL_REGISTRY=str(registry))
    with stack:
        for _ in range(processes):
            stack.start_worker([TIER], slots=SLOTS)
        yield stack


def submit(client: GroqClient, work: Sequence[Request], priority: str = "batch") -> list[JobHandle]:
    """Make jobs of requests, without fallbacks: one model's quota is what is measured."""
    policy = {"priority": priority, "tier": TIER, "fallback": "none"}
    return client.submit_many({**request.body(), "vessel": policy} for request in work)


def wait(
    stack: Stack, ids: Sequence[str], patience_s: float = PATIENCE_S, each: Callable[[int], object] | None = None
) -> list[Done]:
    """Wait until all have ended, or until none has for a while; `each` hears how many have, now and then."""
    with redis.Redis.from_url(stack.redis.url) as store:
        still, changed = list(ids), time.monotonic()
        while still and time.monotonic() - changed < patience_s:
            left = _unfinished(store, stack.namespace, still)
            if len(left) < len(still):
                changed = time.monotonic()
            still = left
            if each is not None:
                each(len(ids) - len(still))
            time.sleep(max(0.2, len(still) / LOOKED_AT_PER_S))
        return _read(store, stack.namespace, ids)


def _fetched(store: redis.Redis, namespace: str, ids: Sequence[str], *names: str) -> list[list[bytes | None]]:
    rows: list[list[bytes | None]] = []
    for at in range(0, len(ids), READ_AT_ONCE):
        pipe = store.pipeline(transaction=False)
        for job_id in ids[at : at + READ_AT_ONCE]:
            pipe.hmget(f"{namespace}:job:{job_id}", names)
        rows += pipe.execute()
    return rows


def _unfinished(store: redis.Redis, namespace: str, ids: Sequence[str]) -> list[str]:
    rows = _fetched(store, namespace, ids, "state")
    return [job_id for job_id, row in zip(ids, rows, strict=True) if row[0] not in TERMINAL]


def _read(store: redis.Redis, namespace: str, ids: Sequence[str]) -> list[Done]:
    rows = _fetched(store, namespace, ids, "state", "reason", "created", "finished")
    return [
        Done(job_id, (state or b"").decode(), (reason or b"").decode(), _s(created) or 0.0, _s(finished))
        for job_id, (state, reason, created, finished) in zip(ids, rows, strict=True)
    ]


def _s(value: bytes | None) -> float | None:
    return int(value) / 1000 if value else None


def makespan_s(jobs: Sequence[Done]) -> float:
    """Return the time from the first submission to the last end."""
    ends = [job.finished for job in jobs if job.finished is not None]
    return max(ends) - min(job.created for job in jobs) if ends else 0.0


def failed(jobs: Sequence[Done]) -> int:
    """Count the jobs that did not succeed, those that never ended among them."""
    return sum(job.state != "succeeded" for job in jobs)


def calls_of(stack: Stack) -> list[dict[str, Any]]:
    """Read the upstream's log of calls."""
    calls: list[dict[str, Any]] = stack.ask("/_sim/calls")["calls"]
    return calls
