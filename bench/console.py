"""What the console costs Redis: the time of all commands of a look, with many jobs stored and three tenants looking.

Server time by INFO commandstats, which counts what a script calls twice, as itself and in its script, so that the
figure is too high rather than too low. The vessel that is looked at has jobs that have ended, jobs that wait in the
backlog of many tenants, parked ones, a day's ledger, and a thousand batches, of which two hundred are open.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vessel.api.session import open_session
from vessel.api.spending import PAGES_AT_ONCE
from vessel.api.watching import Frame, Watching
from vessel.embedded import EmbeddedServer
from vessel.jobs.flows import flow_of, group_of
from vessel.keyspace.connect import connect
from vessel.keyspace.names import Keys
from vessel.settings import load_settings
from vessel.usage.log import PAGE
from vessel.wire import Priority

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

GOAL_MS = 2.0
MODELS = {"openai/gpt-oss-20b": "speed_demon", "openai/gpt-oss-120b": "power", "qwen/qwen3.8-27b": "balanced"}
TENANTS = [f"tenant{n}" for n in range(20)]
LOOKING = 3
NOT_OURS = ("cmdstat_info", "cmdstat_config")


def job(number: int, state: str, now: int) -> tuple[str, dict[str, str | int]]:
    """Give the record of a job as Vessel keeps it, with a body of half a kilobyte."""
    model = list(MODELS)[number % len(MODELS)]
    job_id = f"job_{number:032x}"
    reason = {"reason": "bad_request", "message": "Groq refused it."} if state == "failed" else {}
    return job_id, {
        "id": job_id, "state": state, "gen": 3, "tenant": TENANTS[number % len(TENANTS)], "priority": "batch",
        "tier": MODELS[model], "model": model, "hops": json.dumps([[model, MODELS[model], ""]]), "hop": 0,
        "policy": "{}", "reasons": "[]", "created": now - number, "updated": now, "est": 120, "out": 500,
        "queue": f"{MODELS[model]}.batch", "body": "x" * 500, **reason,
        **({"finished": now - number} if state in {"succeeded", "failed"} else {}),
    }  # fmt: skip


def fill(client: redis.Redis, keys: Keys, stored: int) -> None:
    """Store jobs: a fifth waits, one in two hundred is parked, one in a hundred has failed, the others succeeded."""
    now = int(client.time()[0]) * 1000
    for start in range(0, stored, 2000):
        pipe = client.pipeline(transaction=False)
        for number in range(start, min(stored, start + 2000)):
            state = "parked" if number % 200 == 7 else "failed" if number % 100 == 1 else "succeeded"
            state = "queued" if number % 5 == 0 else state
            job_id, record = job(number, state, now)
            _index(pipe, keys, job_id, record, now)
        pipe.execute()
    _ledger(client, keys, now, stored // 5)
    _batches(client, keys, now)


def _index(pipe: Any, keys: Keys, job_id: str, record: dict[str, Any], now: int) -> None:
    tenant, created = record["tenant"], record["created"]
    pipe.hset(keys.job(job_id), mapping=record)
    pipe.zadd(keys.index, {job_id: created})
    pipe.zadd(keys.own_index(tenant), {job_id: created})
    if record["state"] == "parked":
        pipe.zadd(keys.parked, {job_id: now + 60_000})
    if record["state"] == "failed":
        pipe.zadd(keys.failures(tenant), {job_id: created})
        pipe.zremrangebyrank(keys.failures(tenant), 0, -101)
    if record["state"] == "queued":
        group, flow = group_of(record["model"], Priority.BATCH), flow_of(record["queue"], tenant)
        pipe.sadd(keys.groups, group)
        pipe.zadd(keys.flows(group), {flow: 0})
        pipe.zadd(keys.backlog(group, flow), {job_id: created})


def _ledger(client: redis.Redis, keys: Keys, now: int, rows: int) -> None:
    pipe = client.pipeline(transaction=False)
    for number in range(rows):
        model = list(MODELS)[number % len(MODELS)]
        row = {"model": model, "tokens": {"input": 100, "output": 200, "cached": 0}, "cost_usd": 0.0000675,
               "vessel": "groq", "job_id": f"job_{number:032x}", "attempt": 1, "request_id": "req_01k9xr3v9hf1x8m7a2",
               "tier": MODELS[model], "tenant": TENANTS[number % len(TENANTS)]}  # fmt: skip
        entry = f"{now - rows + number}-0"
        pipe.xadd(keys.ledger, {"call": f"{number}/1", "outcome": "succeeded", "row": json.dumps(row)}, id=entry)
    pipe.execute()


def _batches(client: redis.Redis, keys: Keys, now: int) -> None:
    pipe = client.pipeline(transaction=False)
    for number in range(1000):
        batch_id, tenant, is_open = f"batch_{number:032x}", TENANTS[number % LOOKING], number % 5 == 0
        status = "in_progress" if is_open else "completed"
        record: Any = {"id": batch_id, "tenant": tenant, "status": status, "file": "file-0",
                  "endpoint": "/v1/chat/completions", "window": "24h", "metadata": "{}", "created": now - number,
                  "expires": now + 86_400_000, "total": 1000, "n:succeeded": 400, "left": 600, "groups": 1, "t:0": 1000,
                  "next:0": 500, "e:0": 400, "at:in_progress": now - 60_000, "model": "openai/gpt-oss-20b"}  # fmt: skip
        pipe.hset(keys.batch(batch_id), mapping=record)
        pipe.zadd(keys.batches(tenant), {batch_id: now - number})
        if is_open:
            pipe.zadd(keys.open_batches, {batch_id: now + 86_400_000})
    pipe.execute()


def spent_ms(client: redis.Redis) -> tuple[float, float, int]:
    """Return the time of all commands since the last reset, inner calls twice and once, and their number."""
    stats = {name: row for name, row in client.info("commandstats").items() if not name.startswith(NOT_OURS)}
    total = sum(float(row["usec"]) for row in stats.values())
    scripts = float(stats.get("cmdstat_evalsha", {"usec": 0})["usec"])
    calls = sum(int(row["calls"]) for row in stats.values())
    return total / 1000, scripts / 1000, calls


async def look(url: str, folder: Path, looks: int) -> Iterator[tuple[float, float, int]]:
    """Look again and again as three viewers of three tenants do; give the cost of each look."""
    session = open_session(load_settings({}, redis_url=url, data_dir=folder, namespace="bench"))
    watching = Watching(session)
    watching._viewers.update(TENANTS[:LOOKING])  # noqa: SLF001  one look at a time, to tell what each costs
    found = []
    with connect(url) as client:
        for _ in range(looks):
            client.config_resetstat()
            await watching._look(Frame(0.0))  # noqa: SLF001  the same
            found.append(spent_ms(client))
    await session.close()
    return iter(found)


def measure(stored: int, looks: int) -> dict[str, float]:
    """Give the costs in milliseconds: medians of looks once the day's ledger is read, and the dearest look of all."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        server.start()
        try:
            with connect(server.url) as client:
                fill(client, Keys("bench"), stored)
            costs = list(asyncio.run(look(server.url, Path(folder), looks)))
        finally:
            server.stop()
    catching_up = stored // 5 // (PAGE * PAGES_AT_ONCE) + 1
    steady = costs[catching_up:]
    assert steady, "more looks are needed than the ledger takes to be read"
    return {
        "look_ms": round(statistics.median(total for total, _, _ in steady), 3),
        "scripts_ms": round(statistics.median(scripts for _, scripts, _ in steady), 3),
        "commands": statistics.median(calls for _, _, calls in steady),
        "dearest_ms": round(max(total for total, _, _ in steady), 3),
        "catching_up_ms": round(statistics.median(total for total, _, _ in costs[1:catching_up]), 3),
        "first_ms": round(costs[0][0], 3),
    }


def main() -> None:
    """Print the cost and the goal."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=100_000)
    options.add_argument("--looks", type=int, default=80)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    found = measure(given.jobs, given.looks)
    if given.json:
        print(json.dumps(found | {"goal_ms": GOAL_MS}))
        return
    print(f"one look, {given.jobs:,} jobs stored, {LOOKING} tenants looking: {found['look_ms']:g} ms of Redis' time")
    print(f"goal {GOAL_MS:g} ms; the dearest look {found['dearest_ms']:g}, {found['commands']:g} commands each")
    print(
        f"the first look {found['first_ms']:g} ms; while the day's ledger is read {found['catching_up_ms']:g} ms a look"
    )


if __name__ == "__main__":
    main()
