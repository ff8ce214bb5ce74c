"""A stand-in for the Groq API that behaves as the real one was seen to; it shares no code with what it tests."""

from vessel.simulator.answers import expected_text
from vessel.simulator.app import create_app
from vessel.simulator.world import Simulation, SimulatorConfig

__all__ = ["Simulation", "SimulatorConfig", "create_app", "expected_text", "serve"]


def serve(*args: object, **kwargs: object) -> None:
    """Serve until SIGTERM; see `vessel.simulator.serve.serve`."""
    from vessel.simulator.serve import serve as run  # noqa: PLC0415  uvicorn is only needed to serve

    run(*args, **kwargs)  # type: ignore[arg-type]
