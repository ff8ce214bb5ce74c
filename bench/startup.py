"""Measure what a user waits for before anything happens: `vessel --help` and `import groq_vessel`.

Prints medians over a bare interpreter, in ms; the contract asks for 200 and 300.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 9
VESSEL = str(Path(sys.executable).with_name("vessel"))


def median_ms(*command: str) -> float:
    """Run the command a few times; give the median wall time in ms."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append((time.perf_counter() - started) * 1000)
    return statistics.median(times)


def main() -> None:
    """Print the bare interpreter, then each start beside it."""
    bare = median_ms(sys.executable, "-c", "pass")
    print(f"bare interpreter      {bare:6.0f} ms")
    for label, command, goal in (
        ("vessel --help", (VESSEL, "--help"), 200),
        ("import groq_vessel", (sys.executable, "-c", "import groq_vessel"), 300),
    ):
        took = median_ms(*command)
        print(f"{label:20}  {took:6.0f} ms, {took - bare:4.0f} over bare (goal {goal})")


if __name__ == "__main__":
    main()
