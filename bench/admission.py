"""What one admission costs Redis: the start of a call against four limits, and a script that does nothing beside it.

Server time of EVALSHA by INFO commandstats, each step alone between two resets; medians of three rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.workload import requests
from vessel.dispatch.queues import queue_for
from vessel.dispatch.ticket import template
from vessel.embedded import EmbeddedServer
from vessel.gate.limiter import Charge, configured
from vessel.jobs.model import Hop
from vessel.jobs.record import NewJob, new_job_id
from vessel.jobs.steps import Held, Issue, Start
from vessel.jobs.store import JobStore
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.names import Keys
from vessel.registry import Limits
from vessel.wire import Priority

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

GOAL_MS = 0.15
MODEL, TIER = "openai/gpt-oss-20b", "speed_demon"
ROOMY = Limits(rpm=10_000_000, rpd=100_000_000, tpm=1_000_000_000, tpd=100_000_000_000)
NOTHING = "return {'started', '', '', ''}"


def spent_us(client: redis.Redis) -> float:
    """Return the server's microseconds for one EVALSHA since the last reset."""
    return float(client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def hold(store: JobStore, runner: SyncRunner, number: int) -> list[Held]:
    """Create and claim jobs, so that each can start."""
    queue, held = queue_for(TIER, Priority.NORMAL), []
    for request in requests(number):
        new = NewJob(
            id=new_job_id(), tenant="default", priority=Priority.NORMAL, hops=(Hop(MODEL, TIER),), policy={},
            reasons=(), body=json.dumps(request.body()).encode(), body_hash="",
            estimated_tokens=request.prompt_tokens, output_tokens=512,
        )  # fmt: skip
        runner.run(store.create(new, queue, issue=Issue.MESSAGE_FOLLOWS))
        claimed = runner.run(store.claim(new.id, 0, queue, f"bench/{new.id}"))
        assert isinstance(claimed, Held)
        held.append(claimed)
    return held


def start_of(held: Held) -> Start:
    """Describe the call as a worker does."""
    charge = Charge(MODEL, "default", configured(ROOMY), held.job.estimated_tokens, held.job.output_tokens, 50_000)
    row = json.dumps({"model": MODEL, "tier": TIER, "worker": "bench@host:1", "worst_nano_usd": 50_000})
    return Start(1, row, row, TIER, charge, book_ms=1000, channel="vessel:wake:bench")


def measure(number: int, rounds: int) -> dict[str, float]:
    """Give the medians in milliseconds."""
    found: dict[str, list[float]] = {"start": [], "nothing": []}
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        server.start()
        try:
            for _ in range(rounds):
                for name, cost in _round(server.url, number).items():
                    found[name].append(cost)
        finally:
            server.stop()
    medians = {name: statistics.median(costs) for name, costs in found.items()}
    return medians | {"over_nothing": medians["start"] - medians["nothing"]}


def _round(url: str, number: int) -> dict[str, float]:
    store = JobStore(Keys("bench"), template(), ttl_ms=600_000, lease_ms=600_000)
    client = connect(url)
    runner = SyncRunner(client)
    try:
        runner.run(store.start(*_first(store, runner)))  # loads the script
        held = hold(store, runner, number)
        client.config_resetstat()
        for one in held:
            answer = runner.run(store.start(one, start_of(one)))
            assert answer.word == "started", answer
        costs = {"start": spent_us(client) / 1000}
        costs["nothing"] = _nothing(client, store, held)
        client.flushall()
    finally:
        client.close()
    return costs


def _first(store: JobStore, runner: SyncRunner) -> tuple[Held, Start]:
    held = hold(store, runner, 1)[0]
    return held, start_of(held)


def _nothing(client: redis.Redis, store: JobStore, held: Sequence[Held]) -> float:
    """Send the same keys and arguments to a script that does nothing."""
    sha = client.script_load(NOTHING)
    client.config_resetstat()
    for one in held:
        _, _, *rest = store.start(one, start_of(one)).command
        client.execute_command("EVALSHA", sha, *rest)
    return spent_us(client) / 1000


def main() -> None:
    """Print the cost and the goal."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=2000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    found = measure(given.calls, given.rounds)
    if given.json:
        print(json.dumps(found | {"goal_ms": GOAL_MS}))
        return
    print(f"one admission against four limits: {found['start']:.3f} ms of Redis' time (goal {GOAL_MS:g}), medians of "
          f"{given.rounds}")  # fmt: skip
    print(f"a script that does nothing: {found['nothing']:.3f} ms, so the admission itself {found['over_nothing']:.3f}")


if __name__ == "__main__":
    main()
