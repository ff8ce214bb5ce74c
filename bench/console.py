"""What the console costs Redis: the time of all commands of a look, with many jobs stored and three tenants looking.

Server time by INFO commandstats, which counts what a script calls twice, as itself and in its script, so that the
figure is too high rather than too low. The vessel that is looked at has jobs that have ended, jobs that wait in the
backlog of two hundred tenants, parked ones, gates in use, a day's ledger with its sums, and a thousand batches, of
which two hundred are open. Redis has been told its scripts, as by any process that serves the API.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vessel.api.session import open_session
from vessel.api.watching import Frame, Watching
from vessel.embedded import EmbeddedServer
from vessel.jobs.flows import flow_of, group_of
from vessel.keyspace.connect import AsyncRunner, connect
from vessel.keyspace.names import Keys, gate_keys
from vessel.registry import load_registry
from vessel.settings import load_settings
from vessel.usage.budgets import WHOLE
from vessel.usage.sums import DAY_MS, HOUR_MS, HOURS
from vessel.wire import Priority

if TYPE_CHECKING:
    import redis

GOAL_MS = 2.0
MODELS = {"openai/gpt-oss-20b": "speed_demon", "openai/gpt-oss-120b": "power", "qwen/qwen3.8-27b": "balanced"}
TENANTS = [f"tenant{n}" for n in range(200)]
LOOKING = 3
GATES = 6
NOT_OURS = ("cmdstat_info", "cmdstat_config")


def tenant_of(number: int) -> str:
    """Share jobs out: every tenant has jobs of each kind."""
    return TENANTS[number // 11 % len(TENANTS)]


def job(number: int, state: str, now: int) -> tuple[str, dict[str, str | int]]:
    """Give the record of a job as Vessel keeps it, with a body of half a kilobyte."""
    model = list(MODELS)[number % len(MODELS)]
    job_id = f"job_{number:032x}"
    reason = {"reason": "bad_request", "message": "Groq refused it."} if state == "failed" else {}
    return job_id, {
        "id": job_id, "state": state, "gen": 3, "tenant": tenant_of(number), "priority": "batch",
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
    _sums(client, keys, now, stored // 5)
    _batches(client, keys, now)
    _gates(client, keys, now)


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
               "tier": MODELS[model], "tenant": tenant_of(number)}  # fmt: skip
        entry = f"{now - rows + number}-0"
        pipe.xadd(keys.ledger, {"call": f"{number}/1", "outcome": "succeeded", "row": json.dumps(row)}, id=entry)
    pipe.execute()


def _sums(client: redis.Redis, keys: Keys, now: int, fields: int) -> None:
    """Add up the hours of the day that are over."""
    pipe = client.pipeline(transaction=False)
    first = now // DAY_MS * HOURS
    for number in range(fields):
        model, hour = list(MODELS)[number % len(MODELS)], first + number % max(1, now // HOUR_MS - first)
        of = f"{tenant_of(number)}|{model}|{MODELS[model]}|groq{number}"
        pipe.hincrby(keys.sums("sums"), f"{hour}|pico|{of}", 67_500_000)
    pipe.execute()


def _gates(client: redis.Redis, keys: Keys, now: int) -> None:
    """Put calls in flight at some gates."""
    for model in [m for m in load_registry().models.values() if m.routable][:GATES]:
        gate = gate_keys(keys, "default", model.id, WHOLE)
        levels: Any = {f"{what}:{name}": 1000 for what in "lkcmt" for name in ("rpm", "rpd", "tpm", "tpd")}
        client.hset(gate.gate, mapping={"at": now, "seen": 1, "low_slot": 1, "low": 1, "low_before": 1, **levels})
        client.zadd(gate.inflight, {f"job_{n:032x}/1": now + 600_000 for n in range(20)})


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


class Cost(NamedTuple):
    """What a tick cost Redis: the time of all commands, inner calls twice, and of scripts; what it answered with."""

    total_ms: float
    scripts_ms: float
    commands: int
    elements: int


class Weighing(AsyncRunner):
    """Counts the elements of the answers."""

    elements = 0

    async def _send(self, calls: Any) -> list[Any]:
        raw = await super()._send(calls)
        self.elements += _leaves(raw)
        return raw


def _leaves(answer: Any) -> int:
    match answer:
        case dict():
            return sum(1 + _leaves(value) for value in answer.values())
        case list() | tuple() | set():
            return sum(_leaves(part) for part in answer)
        case _:
            return 1


def cost(client: redis.Redis, elements: int) -> Cost:
    """Read what was spent since the last reset."""
    stats = {name: row for name, row in client.info("commandstats").items() if not name.startswith(NOT_OURS)}
    total = sum(float(row["usec"]) for row in stats.values())
    scripts = float(stats.get("cmdstat_evalsha", {"usec": 0})["usec"])
    return Cost(total / 1000, scripts / 1000, sum(int(row["calls"]) for row in stats.values()), elements)


async def look(url: str, folder: Path, looks: int) -> list[Cost]:
    """Look again and again as three viewers of three tenants do; give the cost of each tick."""
    session = open_session(load_settings({}, redis_url=url, data_dir=folder, namespace="bench"))
    session.runner = weighing = Weighing(session.runner.client)
    watching = Watching(session)
    watching._viewers.update(TENANTS[:LOOKING])  # noqa: SLF001  one look at a time, to tell what each costs
    await watching.prepare()
    found = []
    with connect(url) as client:
        for _ in range(looks):
            for tick in (watching._look(Frame(0.0)), watching._catch_up()):  # noqa: SLF001  the same
                client.config_resetstat()
                before = weighing.elements
                await tick
                found.append(cost(client, weighing.elements - before))
    await session.close()
    return [tick for tick in found if tick.commands]


def measure(stored: int, looks: int) -> dict[str, float]:
    """Give the costs of ticks in milliseconds, from the first on, and what they take at most."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        server.start()
        try:
            with connect(server.url) as client:
                fill(client, Keys("bench"), stored)
                _put_first(int(client.info("server")["process_id"]))
            ticks = asyncio.run(look(server.url, Path(folder), looks))
        finally:
            server.stop()
    return {
        "ticks": len(ticks),
        "first_ms": round(ticks[0].total_ms, 3),
        "tick_ms": round(statistics.median(tick.total_ms for tick in ticks), 3),
        "dearest_ms": round(max(tick.total_ms for tick in ticks), 3),
        "above_goal": sum(tick.total_ms > GOAL_MS for tick in ticks),
        "scripts_ms": round(statistics.median(tick.scripts_ms for tick in ticks), 3),
        "commands": max(tick.commands for tick in ticks),
        "elements": max(tick.elements for tick in ticks),
    }


def _put_first(pid: int) -> None:
    """Let no other work of the machine interrupt the server, where that may be asked for (root).

    Redis measures by the clock on the wall, so that it would count the time in which it was not running as its own.
    """
    with suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))


def main() -> None:
    """Print the cost and the goal."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=100_000)
    options.add_argument("--looks", type=int, default=120)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    runs = [measure(given.jobs, given.looks) for _ in range(given.runs)]
    if given.json:
        print(json.dumps({"runs": runs, "goal_ms": GOAL_MS}))
        return
    print(f"ms of Redis' time in a tick, {given.jobs:,} jobs stored, {LOOKING} tenants looking; goal {GOAL_MS:g}")
    columns = {"ticks": "ticks", "first_ms": "first", "tick_ms": "median", "dearest_ms": "most",
               "above_goal": "above", "commands": "commands at most", "elements": "elements at most"}  # fmt: skip
    print("  ".join(columns.values()))
    for run in runs:
        print("  ".join(f"{run[name]:>{len(title)}}" for name, title in columns.items()))


if __name__ == "__main__":
    main()
