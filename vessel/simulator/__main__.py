"""`python -m vessel.simulator`: the simulator without the rest of Vessel."""

from __future__ import annotations

import argparse
from pathlib import Path

from vessel.simulator.serve import read_scenario, serve
from vessel.simulator.world import SimulatorConfig


def parser() -> argparse.ArgumentParser:
    """Describe the options."""
    options = argparse.ArgumentParser(prog="vessel simulate", description="Serve a stand-in for the Groq API.")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=0)
    options.add_argument("--world", choices=("today", "seed"), default=None)
    options.add_argument("--plan", choices=("developer", "free"), default=None)
    options.add_argument("--scenario", type=Path)
    options.add_argument("--latency-scale", type=float, default=None)
    options.add_argument("--latency-ms", type=float, default=None)
    options.add_argument("--seed", type=int, default=None)
    options.add_argument("--key", action="append", default=[])
    options.add_argument("--url-file", type=Path)
    options.add_argument("--log", type=Path)
    return options


def main() -> None:
    """Read the options and serve."""
    options = parser()
    given = options.parse_args()
    try:
        fields = read_scenario(given.scenario) if given.scenario else {}
    except (OSError, ValueError) as error:
        options.error(f"--scenario: {error}")
    for name in ("world", "plan", "latency_scale", "latency_ms", "seed"):
        if getattr(given, name) is not None:
            fields[name] = getattr(given, name)
    if given.key:
        fields["keys"] = tuple(given.key)
    serve(SimulatorConfig(**fields), given.host, given.port, url_file=given.url_file, log_file=given.log)


if __name__ == "__main__":
    main()
