"""A stand-in for the Groq API that behaves as the real one was seen to; it shares no code with what it tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.simulator.answers import expected_text
from vessel.simulator.app import create_app
from vessel.simulator.config import BadConfig, SimulatorConfig, read_scenario
from vessel.simulator.world import Simulation

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["BadConfig", "Simulation", "SimulatorConfig", "create_app", "expected_text", "read_scenario", "serve"]


def serve(
    config: SimulatorConfig,
    host: str = "127.0.0.1",
    port: int = 0,
    url_file: Path | None = None,
    log_file: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; see `vessel.simulator.server.serve`."""
    from vessel.simulator.server import serve as run  # noqa: PLC0415  uvicorn is loaded only to serve

    run(config, host, port, url_file, log_file)
