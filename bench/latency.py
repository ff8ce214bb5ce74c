"""Measure what the queue adds to one call: `GroqClient.query` minus the same call by the groq SDK, on an idle system.

Starts a Redis, the simulator without latency and one worker; both sides ask the same simulator in turns, with their
connections warm. Medians in ms; the aim is 5, the bound 15. `--json` prints one document, `--rounds N` sets how many.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import groq

from bench.stack import KEY, Stack
from vessel.client import GroqClient

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "openai/gpt-oss-20b"
WARM_UP = 20
GOAL_MS = 15.0
AIM_MS = 5.0
NO_LIMITS = {"model": "*", "limits": {"rpm": 10_000_000, "tpm": 1_000_000_000, "rpd": None, "tpd": None}}
REGISTRY = """[models."openai/gpt-oss-20b".limits.developer]
rpm = 10000000
tpm = 1000000000
"""


def took_ms(call: Callable[[str], object], prompt: str) -> float:
    """Make one call."""
    started = time.perf_counter()
    call(prompt)
    return (time.perf_counter() - started) * 1000


def measure(rounds: int) -> dict[str, object]:
    """Ask in turns; give medians and 95th percentiles."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Path(folder) / "registry.toml"
        registry.write_text(REGISTRY, "utf-8")
        with Stack(Path(folder) / "stack", simulator=["--latency-ms", "0"], VESSEL_REGISTRY=str(registry)) as stack:
            stack.ask("/_sim/limits", NO_LIMITS)
            stack.start_worker()
            direct = groq.Groq(api_key=KEY, base_url=stack.base_url, max_retries=0)
            with GroqClient(settings=stack.settings()) as client, direct:
                return _compare(direct, client, rounds)


def _compare(direct: groq.Groq, client: GroqClient, rounds: int) -> dict[str, object]:
    sides: dict[str, Callable[[str], object]] = {
        "sdk": lambda prompt: direct.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": prompt}], max_completion_tokens=64
        ),
        "query": lambda prompt: client.query(prompt, model=MODEL, max_completion_tokens=64, timeout=30).text,
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-WARM_UP, rounds):
        for name, call in sides.items():
            taken = took_ms(call, f"Question {number} of {name}?")
            if number >= 0:
                times[name].append(taken)
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    return {
        "median_ms": {name: round(value, 2) for name, value in medians.items()},
        "p95_ms": {name: round(statistics.quantiles(taken, n=20)[-1], 2) for name, taken in times.items()},
        "added_ms": round(medians["query"] - medians["sdk"], 2),
        "goal_ms": GOAL_MS,
        "aim_ms": AIM_MS,
        "rounds": rounds,
    }


def main() -> None:
    """Print both sides and what the queue adds; exit 1 above the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    found = measure(arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
    else:
        medians, tails = found["median_ms"], found["p95_ms"]
        assert isinstance(medians, dict)
        assert isinstance(tails, dict)
        for name, label in (("sdk", "groq SDK, direct"), ("query", "GroqClient.query")):
            print(f"{label:20} median {medians[name]:6.2f} ms   p95 {tails[name]:6.2f} ms")
        print(f"{'added by the queue':20} median {found['added_ms']:6.2f} ms   (aim {AIM_MS:g}, bound {GOAL_MS:g})")
    if float(str(found["added_ms"])) > GOAL_MS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
