"""Measure what a user waits for before anything happens: `import groq_vessel` and `vessel --help`, over a bare Python.

Medians of wall time in ms, rounds interleaved, byte code warm. The aims are 300 and 200.
`--json` prints one document.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 15
PYTHON = sys.executable
VESSEL = str(Path(PYTHON).with_name("vessel"))
HEAVY = ("groq", "openai", "fastapi", "uvicorn", "mcp", "typer", "rich", "celery", "kombu", "limits", "aiohttp")
COMMANDS = {
    "bare": (PYTHON, "-c", "pass"),
    "import groq_vessel": (PYTHON, "-c", "import groq_vessel"),
    "AsyncGroqClient": (PYTHON, "-c", "from groq_vessel import AsyncGroqClient"),
    "vessel --help": (VESSEL, "--help"),
}
GOALS_MS = {"import groq_vessel": 300, "vessel --help": 200}


def took_ms(command: tuple[str, ...], env: dict[str, str]) -> float:
    """Run a command once."""
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=env)
    return (time.perf_counter() - started) * 1000


def loaded(env: dict[str, str]) -> list[str]:
    """Name the heavy packages that an import of the client pulls in; there should be none."""
    program = f"import sys, groq_vessel; print(*[m for m in {HEAVY} if m in sys.modules])"
    return subprocess.run((PYTHON, "-c", program), check=True, capture_output=True, text=True, env=env).stdout.split()


def measure() -> dict[str, object]:
    """Give medians, and the distance of each to the bare interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ) | {"PYTHONPYCACHEPREFIX": folder}
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        times: dict[str, list[float]] = {name: [] for name in COMMANDS}
        for command in COMMANDS.values():
            took_ms(command, env)  # writes the byte code
        for _ in range(ROUNDS):
            for name, command in COMMANDS.items():
                times[name].append(took_ms(command, env))
        heavy = loaded(env)
    medians = {name: round(statistics.median(taken), 1) for name, taken in times.items()}
    over = {name: round(value - medians["bare"], 1) for name, value in medians.items() if name != "bare"}
    return {"median_ms": medians, "over_bare_ms": over, "goal_ms": GOALS_MS, "heavy": heavy, "rounds": ROUNDS}


def main() -> None:
    """Print the bare interpreter and each start over it; exit 1 where one misses its goal."""
    found = measure()
    medians, over = found["median_ms"], found["over_bare_ms"]
    assert isinstance(medians, dict)
    assert isinstance(over, dict)
    if "--json" in sys.argv[1:]:
        print(json.dumps(found))
    else:
        show(found, medians, over)
    if found["heavy"] or any(over[name] > goal for name, goal in GOALS_MS.items()):
        raise SystemExit(1)


def show(found: dict[str, object], medians: dict[str, float], over: dict[str, float]) -> None:
    """Print the table."""
    print(f"{'bare interpreter':20} {medians['bare']:6.0f} ms   (median of {ROUNDS})")
    for name, extra in over.items():
        goal = f"   goal {GOALS_MS[name]}" if name in GOALS_MS else ""
        print(f"{name:20} {medians[name]:6.0f} ms   {extra:5.0f} over bare{goal}")
    print(f"heavy packages that the import pulls in: {', '.join(map(str, found['heavy'])) or 'none'}")  # type: ignore[call-overload]  # a list of names


if __name__ == "__main__":
    main()
