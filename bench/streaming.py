"""Measure what the queue adds to a stream's first token, and how far apart later tokens come: against the groq SDK.

Starts a Redis, the simulator with a little latency and one worker; both sides ask the same simulator in turns, with
their connections warm, and times run from the call to a piece of text. Medians in ms; the bound is 15. `--json` prints
one document, `--rounds N` sets how many.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import groq

from bench.latency import MODEL, NO_LIMITS, REGISTRY, WARM_UP
from bench.stack import KEY, Stack
from vessel.client import AsyncGroqClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

GOAL_MS = 15.0
LATENCY_MS = 50


async def _direct(client: groq.AsyncGroq, prompt: str) -> AsyncIterator[str]:
    stream = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": prompt}], max_completion_tokens=64, stream=True
    )
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


async def _compare(stack: Stack, rounds: int) -> dict[str, object]:
    direct = groq.AsyncGroq(api_key=KEY, base_url=stack.base_url, max_retries=0)
    async with AsyncGroqClient(settings=stack.settings()) as client, direct:
        sides: dict[str, Callable[[str], AsyncIterator[str]]] = {
            "sdk": lambda prompt: _direct(direct, prompt),
            "stream": lambda prompt: client.stream(prompt, model=MODEL, max_completion_tokens=64, timeout=30),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for number in range(-WARM_UP, rounds):
            for name, side in sides.items():
                taken = await _times(side(f"Question {number} of {name}?"))
                if number >= 0:
                    times[name].append(taken)
    first = {name: [pair[0] for pair in taken] for name, taken in times.items()}
    last = {name: statistics.median(pair[1] for pair in taken) for name, taken in times.items()}
    medians = {name: statistics.median(taken) for name, taken in first.items()}
    return {
        "first_token_ms": {name: round(value, 2) for name, value in medians.items()},
        "first_token_p95_ms": {name: round(statistics.quantiles(taken, n=20)[-1], 2) for name, taken in first.items()},
        "last_token_ms": {name: round(value, 2) for name, value in last.items()},
        "added_ms": round(medians["stream"] - medians["sdk"], 2),
        "added_last_ms": round(last["stream"] - last["sdk"], 2),
        "goal_ms": GOAL_MS,
        "rounds": rounds,
    }


def measure(rounds: int) -> dict[str, object]:
    """Ask in turns; give medians and 95th percentiles."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "registry.toml"
        registry.write_text(REGISTRY, "utf-8")
        simulator = ["--latency-ms", str(LATENCY_MS)]
        with Stack(Path(folder) / "stack", simulator=simulator, VESSEL_REGISTRY=str(registry)) as stack:
            stack.ask("/_sim/limits", NO_LIMITS)
            stack.start_worker()
            return asyncio.run(_compare(stack, rounds))


def main() -> None:
    """Print both sides and what the queue adds; exit 1 above the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    print(json.dumps(found) if arguments.json else json.dumps(found, indent=2))
    if float(str(found["added_ms"])) > GOAL_MS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
