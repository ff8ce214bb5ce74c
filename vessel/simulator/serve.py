"""Run the simulator on uvicorn with httptools and uvloop."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import tomllib
from typing import IO, TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from vessel.simulator.app import create_app
from vessel.simulator.world import Simulation, SimulatorConfig

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

BACKLOG = 2048


class _Protocol(HttpToolsProtocol):
    """Lets a fault reach the connection, to reset it."""

    transport: asyncio.Transport

    def on_message_begin(self) -> None:
        """Put the transport into the scope of the request that begins."""
        super().on_message_begin()
        self.scope["simulator.transport"] = self.transport  # type: ignore[typeddict-unknown-key]  # ours beside ASGI's


def read_scenario(path: Path) -> dict[str, Any]:
    """Read a scenario file, TOML or JSON: fields of SimulatorConfig. Raises ValueError with what is wrong."""
    text = path.read_text("utf-8")
    found = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    known = set(SimulatorConfig.__dataclass_fields__)
    if not isinstance(found, dict) or set(found) - known:
        raise ValueError(f"a scenario is a table of: {', '.join(sorted(known))}")
    return {name: tuple(value) if name in {"faults", "keys"} else value for name, value in found.items()}


def serve(
    config: SimulatorConfig, host: str = "127.0.0.1", port: int = 0, *, url_file: Path | None = None,
    log_file: Path | None = None,
) -> None:  # fmt: skip
    """Serve until SIGTERM or SIGINT. Port 0 takes a free one; `url_file` gets the address once it listens."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listen(host, port))
        log: IO[str] | None = stack.enter_context(log_file.open("a", encoding="utf-8")) if log_file else None
        simulation = Simulation(config, log=log)
        url = f"http://{host}:{listening.getsockname()[1]}"
        if url_file is not None:
            partial = url_file.with_name(url_file.name + ".partial")
            partial.write_text(url, "utf-8")
            partial.replace(url_file)
        print(f"Groq simulator ({config.world}) on {url}", file=sys.stderr, flush=True)  # noqa: T201  its one line
        options = uvicorn.Config(
            create_app(simulation=simulation), loop="uvloop", http=_Protocol, log_level="critical", access_log=False,
            lifespan="off", timeout_graceful_shutdown=1, server_header=False, h11_max_incomplete_event_size=None,
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(options).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.listen(BACKLOG)
    return listening
