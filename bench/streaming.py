"""Measure what the queue adds to a stream's first token, and when its last one comes: against the groq SDK.

Starts a Redis, the simulator with a little latency, one worker and the API. The groq SDK asks the simulator, the client
library the queue and the openai SDK the API, in turns and with their connections warm; times run from the call to a
piece of text. Medians of the medians of three rounds, in ms; the bound is 15, shown and not asserted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import groq
import openai

from bench.latency import MODEL, NO_LIMITS, REGISTRY, WARM_UP
from bench.served import Api, load_average, p95, table, verdict
from bench.stack import KEY
from vessel.client import AsyncGroqClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

GOAL_MS = 15.0
LATENCY_MS = 50


async def _by_sdk(client: groq.AsyncGroq | openai.AsyncOpenAI, prompt: str) -> AsyncIterator[str]:
    completions: Any = client.chat.completions
    messages = [{"role": "user", "content": prompt}]
    stream = await completions.create(model=MODEL, messages=messages, max_completion_tokens=64, stream=True)
    async for chunk in stream:
        text = chunk.choices[0].delta.content
        if text:
            yield text


async def _times(stream: AsyncIterator[str]) -> tuple[float, float]:
    """Read a stream; give the time to its first piece and to its last one, in ms."""
    started = time.perf_counter()
    first = last = 0.0
    async for _ in stream:
        last = (time.perf_counter() - started) * 1000
        first = first or last
    return first, last


async def _ask(
    sides: dict[str, Callable[[str], AsyncIterator[str]]], count: int
) -> dict[str, list[tuple[float, float]]]:
    """Ask each side in turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(-WARM_UP, count):
        for name, side in sides.items():
            taken = await _times(side(f"Question {number} of {name}?"))
            if number >= 0:
                times[name].append(taken)
    return times


async def _compare(stack: Api, calls: int, rounds: int) -> dict[str, Any]:
    direct = groq.AsyncGroq(api_key=KEY, base_url=stack.base_url, max_retries=0)
    rest = openai.AsyncOpenAI(api_key="none", base_url=f"{stack.url}/v1", max_retries=0)
    async with AsyncGroqClient(settings=stack.settings()) as client, direct, rest:
        sides: dict[str, Callable[[str], AsyncIterator[str]]] = {
            "direct": lambda prompt: _by_sdk(direct, prompt),
            "client": lambda prompt: client.stream(prompt, model=MODEL, max_completion_tokens=64, timeout=30),
            "rest": lambda prompt: _by_sdk(rest, prompt),
        }
        taken = [await _ask(sides, calls) for _ in range(rounds)]
    found: dict[str, Any] = {"goal_ms": GOAL_MS, "calls": calls, "rounds": rounds, "load": load_average()}
    for at, what in enumerate(("first_token", "last_token")):
        medians = [{name: statistics.median(pair[at] for pair in one[name]) for name in sides} for one in taken]
        tails = [{name: p95([pair[at] for pair in one[name]]) for name in sides} for one in taken]
        found[f"{what}_ms"] = {name: _median(one[name] for one in medians) for name in sides}
        found[f"{what}_p95_ms"] = {name: _median(one[name] for one in tails) for name in sides}
        found[f"{what}_added_ms"] = {
            name: _median(one[name] - one["direct"] for one in medians) for name in ("client", "rest")
        }
    return found


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 2)


def measure(calls: int, rounds: int) -> dict[str, Any]:
    """Start everything and ask in turns."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "registry.toml"
        registry.write_text(REGISTRY, "utf-8")
        simulator = ["--latency-ms", str(LATENCY_MS)]
        with Api(Path(folder) / "stack", simulator=simulator, VESSEL_REGISTRY=str(registry)) as stack:
            stack.ask("/_sim/limits", NO_LIMITS)
            stack.start_worker()
            stack.start_api()
            return asyncio.run(_compare(stack, calls, rounds))


def show(found: dict[str, Any]) -> str:
    """Set the figures in a table."""
    labels = {"direct": "groq SDK, direct", "client": "AsyncGroqClient", "rest": "openai SDK through REST"}
    rows: list[tuple[str, Any, str]] = []
    for name, label in labels.items():
        first, tail = found["first_token_ms"][name], found["first_token_p95_ms"][name]
        rows.append(
            (f"{label}: first token", f"{first:.1f} ms", f"p95 {tail:.1f}, last {found['last_token_ms'][name]:.1f}")
        )
    for name in ("client", "rest"):
        added = found["first_token_added_ms"][name]
        rows.append((f"added, {labels[name]}", f"{added:.1f} ms", f"goal {GOAL_MS:g}: {verdict(added, GOAL_MS)}"))
    return table([*rows, ("load average", found["load"], "")])


def main() -> None:
    """Print all sides and what the queue adds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--calls", type=int, default=100, help="by each side in each round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = measure(options.calls, options.rounds)
    print(json.dumps(found) if options.json else show(found))


if __name__ == "__main__":
    main()
