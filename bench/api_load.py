"""What 500 long polls and 200 running streams on one `vessel api` add to the latency of a chat, and what they hold.

Starts a Redis, the simulator, two workers (one for the chats that are measured, one for the streams) and the API. Each
round asks chats and short streams one by one without anybody else, then beside the crowd, which is a process of its
own: half of the polls wait for jobs that another process made. At the end of a round the jobs are cancelled, and each
poll has to be told. Then 1,000 clients come and leave without a word. Everything shares this machine's cores, so the
difference holds what workers, simulator and readers take as well. Goals are shown and never asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from groq_vessel import GroqClient

from bench.served import NO_LIMITS, Api, load_average, p95, table, verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAT_TIER, STREAM_TIER, WAITING_TIER = "speed_demon", "power", "ultra_fast"
CHAT_MODEL, STREAM_MODEL = "openai/gpt-oss-20b", "openai/gpt-oss-120b"
REGISTRY = "".join(
    f'[models."{model}".limits.developer]\nrpm = 10000000\ntpm = 1000000000\n' for model in (CHAT_MODEL, STREAM_MODEL)
)
GOAL_P95_MS, GOAL_CONNECTIONS, GOAL_GROWTH_MIB = 50.0, 20, 10.0
WARM_UP = 20
AT_ONCE = 100


async def _chat(session: aiohttp.ClientSession, url: str, prompt: str) -> float:
    """Ask for a whole answer; returns ms."""
    body = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": prompt}], "max_completion_tokens": 64}
    begun = time.perf_counter()
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        await answer.read()
        assert answer.ok, await answer.text()
    return (time.perf_counter() - begun) * 1000


async def _first_token(session: aiohttp.ClientSession, url: str, prompt: str) -> float:
    """Ask for a stream and read it; returns ms to the first event."""
    body = {"model": CHAT_MODEL, "messages": [{"role": "user", "content": prompt}], "stream": True}
    begun, first = time.perf_counter(), 0.0
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        async for line in answer.content:
            if not first and line.startswith(b"data: "):
                first = (time.perf_counter() - begun) * 1000
        assert answer.ok
    return first


async def probe(url: str, count: int, name: str) -> dict[str, list[float]]:
    """Ask one by one, in turns."""
    found: dict[str, list[float]] = {"chat": [], "first_token": []}
    async with aiohttp.ClientSession() as session:
        for number in range(-WARM_UP, count):
            chat = await _chat(session, url, f"{name} chat {number}")
            first = await _first_token(session, url, f"{name} stream {number}")
            if number >= 0:
                found["chat"].append(chat)
                found["first_token"].append(first)
    return found


class Bench:
    """A running stack and how much is asked of it."""

    def __init__(self, stack: Api, options: argparse.Namespace) -> None:
        """Take what was started; `before` are the connections of all others."""
        self.stack, self.options = stack, options

    def waiting_jobs(self, client: GroqClient, name: str) -> list[str]:
        """Make jobs that nobody serves: half by this process, half by the API's."""
        count = self.options.polls
        asks = [{"messages": [{"role": "user", "content": f"{name} {n}"}], "vessel": {"tier": WAITING_TIER}}
                for n in range(count)]  # fmt: skip
        foreign = [handle.id for handle in client.submit_many(asks[: count // 2])]
        return foreign + asyncio.run(self._made_by_api(asks[count // 2 :]))

    async def _made_by_api(self, asks: Sequence[dict[str, Any]]) -> list[str]:
        async with aiohttp.ClientSession() as session:

            async def make(body: dict[str, Any]) -> str:
                async with session.post(f"{self.stack.url}/v1/jobs", json=body) as answer:
                    assert answer.ok, await answer.text()
                    return str((await answer.json())["id"])

            return await asyncio.gather(*map(make, asks))

    def round(self, client: GroqClient, number: int, idle_connections: int) -> dict[str, Any]:
        """Measure without and with the crowd."""
        stack, options = self.stack, self.options
        alone = asyncio.run(probe(stack.url, options.probes, f"alone {number}"))
        ids = self.waiting_jobs(client, f"round {number}")
        listed = stack.folder / "jobs.json"
        listed.write_text(json.dumps(ids), "utf-8")
        command = [sys.executable, "-c", "from bench.crowd import main; main()", stack.url, str(listed)]
        command += ["--streams", str(options.streams), "--pieces", str(options.pieces), "--model", STREAM_MODEL]
        command += ["--ramp-s", str(options.pieces * options.drip_s / 2)]
        crowd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=stack.environment())
        with crowd:
            assert crowd.stdout is not None
            assert crowd.stdin is not None
            ready = json.loads(crowd.stdout.readline())
            beside = asyncio.run(probe(stack.url, options.probes, f"beside {number}"))
            connections = stack.redis_connections() - idle_connections
            held = stack.rss_mib()
            begun = time.monotonic()
            for job_id in ids:
                client.cancel(job_id)
            cancelled = time.monotonic()
            answered = json.loads(crowd.stdout.readline())["answered"]
            crowd.stdin.close()
            seen = json.loads(crowd.stdout.readline())
        return {
            "alone": {name: p95(taken) for name, taken in alone.items()},
            "beside": {name: p95(taken) for name, taken in beside.items()},
            "median_alone": {name: statistics.median(taken) for name, taken in alone.items()},
            "median_beside": {name: statistics.median(taken) for name, taken in beside.items()},
            "reading": ready["reading"], "polls_answered_early": ready["early"], "seen": seen,
            "cancelling_s": cancelled - begun, "last_told_ms": (answered - cancelled) * 1000,
            "redis_connections": connections, "rss_beside_mib": held,
        }  # fmt: skip

    async def leave_silently(self, ids: Sequence[str], count: int) -> None:
        """Open long polls and streams and cut them."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            for at in range(0, count, AT_ONCE):
                tasks = [asyncio.ensure_future(self._cut(session, ids, n)) for n in range(at, at + AT_ONCE)]
                await asyncio.gather(*tasks)

    async def _cut(self, session: aiohttp.ClientSession, ids: Sequence[str], number: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                if number % 2:
                    await session.get(f"{self.stack.url}/v1/jobs/{ids[number % len(ids)]}", params={"wait": "60"})
                else:
                    body = {"model": STREAM_MODEL, "stream": True,
                            "messages": [{"role": "user", "content": f"drip {number} <<tokens:500>>"}]}  # fmt: skip
                    async with session.post(f"{self.stack.url}/v1/chat/completions", json=body) as answer:
                        await answer.content.readline()
                        await asyncio.sleep(60)

    def use(self, idle_connections: int) -> dict[str, float]:
        """Read what the API holds."""
        stack = self.stack
        return {"rss_mib": stack.rss_mib(), "open_files": stack.open_files(),
                "redis_connections": stack.redis_connections() - idle_connections}  # fmt: skip

    def churn(self, client: GroqClient, idle_connections: int) -> dict[str, Any]:
        """Have clients come and leave; returns what the API holds before and after."""
        ids = self.waiting_jobs(client, "churn")
        asyncio.run(self.leave_silently(ids, self.options.churn // 2))
        time.sleep(3)
        before = self.use(idle_connections)
        asyncio.run(self.leave_silently(ids, self.options.churn))
        time.sleep(3)
        return {"before": before, "after": self.use(idle_connections)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start everything and take the rounds."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "registry.toml"
        registry.write_text(REGISTRY, "utf-8")
        with Api(Path(folder) / "stack", simulator=["--latency-ms", "0"], VESSEL_REGISTRY=str(registry)) as stack:
            stack.ask("/_sim/limits", NO_LIMITS)
            stack.ask("/_sim/faults", {"kind": "stream_drip", "match": "drip", "delay_s": options.drip_s})
            stack.start_worker([CHAT_TIER], slots=20)
            stack.start_worker([STREAM_TIER], slots=options.streams * 3)
            with GroqClient(settings=stack.settings()) as client:
                client.submit_many([{"messages": [{"role": "user", "content": "w"}], "vessel": {"tier": CHAT_TIER}}])
                idle = stack.redis_connections()
                stack.start_api()
                asyncio.run(probe(stack.url, WARM_UP, "first"))
                bench = Bench(stack, options)
                rss = [stack.rss_mib()]
                rounds = []
                for number in range(options.rounds):
                    rounds.append(bench.round(client, number, idle))
                    rss.append(stack.rss_mib())
                churn = bench.churn(client, idle) if options.churn else None
    return summary(options, rounds, rss, churn)


def summary(
    options: argparse.Namespace, rounds: list[dict[str, Any]], rss: list[float], churn: dict[str, Any] | None
) -> dict[str, Any]:
    """Take medians over the rounds."""

    def median(*names: str) -> float:
        values: list[Any] = list(rounds)
        for name in names:
            values = [value[name] for value in values]
        return round(float(statistics.median(values)), 1)

    kinds = ("chat", "first_token")
    places = ("median_alone", "median_beside", "alone", "beside")
    added = {kind: round(statistics.median(r["beside"][kind] - r["alone"][kind] for r in rounds), 1) for kind in kinds}
    return {
        "polls": options.polls, "streams": options.streams, "rounds": options.rounds, "load": load_average(),
        "ms": {kind: {place: median(place, kind) for place in places} for kind in kinds},
        "added_p95_ms": added,
        "events_per_s": median("seen", "events_per_s"),
        "errors": sum(one["seen"]["errors"] for one in rounds),
        "first_errors": [why for one in rounds for why in one["seen"]["first_errors"]],
        "reading": min(one["reading"] for one in rounds),
        "polls_answered": min(one["seen"].get("polls", 0) for one in rounds),
        "polls_answered_early": max(one["polls_answered_early"] for one in rounds),
        "last_told_ms": median("last_told_ms"),
        "redis_connections": max(one["redis_connections"] for one in rounds),
        "rss_mib": [round(value, 1) for value in rss], "rss_beside_mib": median("rss_beside_mib"), "churn": churn,
    }  # fmt: skip


def show(found: dict[str, Any]) -> str:
    """Set the figures in a table, with the goals."""
    rows: list[tuple[str, Any, str]] = []
    for kind, label in (("chat", "chat"), ("first_token", "first token")):
        ms = found["ms"][kind]
        rows += [
            (f"{label}, median ms", f"{ms['median_alone']:g} -> {ms['median_beside']:g}", "alone -> beside the crowd"),
            (f"{label}, p95 ms", f"{ms['alone']:g} -> {ms['beside']:g}", ""),
            (f"{label}, added p95 ms", found["added_p95_ms"][kind], f"goal {GOAL_P95_MS:g}: "
             + verdict(found["added_p95_ms"][kind], GOAL_P95_MS)),
        ]  # fmt: skip
    growth = found["rss_mib"][-1] - found["rss_mib"][1]
    told = f"{found['polls_answered_early']} too early; the last {found['last_told_ms']:g} ms after the last cancel"
    errors = f"goal 0: {verdict(found['errors'], 0)} {found['first_errors'] or ''}"
    connections = f"goal {GOAL_CONNECTIONS}: {verdict(found['redis_connections'], GOAL_CONNECTIONS)}"
    memory = f"{found['rss_beside_mib']:g} beside; {growth:+.1f} after the first round, goal {GOAL_GROWTH_MIB:g}: "
    rows += [
        ("streams that ran, events a second", f"{found['reading']}, {found['events_per_s']:g}", ""),
        ("polls told of their job's end", found["polls_answered"], told),
        ("errors", found["errors"], errors),
        ("Redis connections of the API", found["redis_connections"], connections),
        ("resident MiB, idle, after each round", found["rss_mib"], memory + verdict(growth, GOAL_GROWTH_MIB)),
    ]
    if found["churn"]:
        before, after = found["churn"]["before"], found["churn"]["after"]
        for name, label in (("rss_mib", "MiB"), ("open_files", "files"), ("redis_connections", "Redis connections")):
            rows.append((f"{label} before and after the churn", f"{before[name]:.0f} -> {after[name]:.0f}", ""))
    return table([*rows, ("load average", found["load"], "")])


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--polls", type=int, default=500)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--probes", type=int, default=100, help="chats, and as many streams, that are timed")
    parser.add_argument("--pieces", type=int, default=60, help="tokens of each stream of the crowd")
    parser.add_argument("--drip-s", type=float, default=0.5, help="seconds between two of its tokens")
    parser.add_argument("--churn", type=int, default=1000, help="clients that come and leave silently; 0: none")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = measure(options)
    print(json.dumps(found) if options.json else show(found))


if __name__ == "__main__":
    main()
