"""`python -m vessel.simulator`: the simulator without the rest of Vessel."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from vessel.simulator.config import SimulatorConfig, read_scenario
from vessel.simulator.models import World
from vessel.simulator.plans import Plan
from vessel.simulator.server import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

_FIELDS = ("world", "plan", "latency_scale", "latency_ms", "seed")


def parser() -> argparse.ArgumentParser:
    """Describe the options."""
    options = argparse.ArgumentParser("python -m vessel.simulator", description="Serve a stand-in for the Groq API.")
    options.add_argument("--host", default="127.0.0.1")
    options.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options.add_argument("--world", choices=get_args(World), help="the models of October 2025, or today's (default)")
    options.add_argument("--plan", choices=get_args(Plan), help="whose limits hold; developer by default")
    options.add_argument("--scenario", type=Path, metavar="FILE", help="TOML or JSON; options win over it")
    options.add_argument("--latency-scale", type=float, metavar="X", help="1 is as fast as the models, 0 at once")
    options.add_argument("--latency-ms", type=float, metavar="MS", help="the same time for every answer")
    options.add_argument("--seed", type=int, metavar="N", help="of the dice of faults and latency")
    options.add_argument("--key", action="append", metavar="[ORG:]KEY", help="accept only such keys; may be repeated")
    options.add_argument("--url-file", type=Path, metavar="FILE", help="gets the base URL once it listens")
    options.add_argument("--log", type=Path, metavar="FILE", help="gets a line of JSON per call")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and serve until SIGTERM."""
    options = parser()
    given = options.parse_args(arguments)
    try:
        fields = read_scenario(given.scenario) if given.scenario else {}
        fields |= {name: value for name in _FIELDS if (value := getattr(given, name)) is not None}
        if given.key:
            fields["keys"] = tuple(given.key)
        serve(SimulatorConfig(**fields), given.host, given.port, given.url_file, given.log)
    except (OSError, ValueError) as error:
        options.error(str(error))


if __name__ == "__main__":
    main()
