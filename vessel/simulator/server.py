"""Run the simulator on uvicorn with httptools and uvloop, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from vessel.simulator.app import create_app
from vessel.simulator.connection import Protocol
from vessel.simulator.world import Simulation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vessel.simulator.config import SimulatorConfig

BACKLOG = 2048
KEEP_ALIVE_S = 75
DRAIN_S = 1


class _Server(uvicorn.Server):
    """uvicorn's server, which tells its address once it listens and takes a signal as the wish to end well."""

    def __init__(self, config: uvicorn.Config, url: str, url_file: Path | None, what: str) -> None:
        super().__init__(config)
        self.url, self.url_file, self.what = url, url_file, what

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.url_file is not None:
            partial = self.url_file.with_name(self.url_file.name + ".partial")
            partial.write_text(self.url, "utf-8")
            partial.replace(self.url_file)
        print(f"Groq simulator ({self.what}) on {self.url}", file=sys.stderr, flush=True)  # noqa: T201  its one line

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT; uvicorn's own would raise them again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._stop)
        try:
            yield
        finally:
            for one in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(one)

    def _stop(self) -> None:
        self.should_exit = True


def serve(
    config: SimulatorConfig,
    host: str = "127.0.0.1",
    port: int = 0,
    url_file: Path | None = None,
    log_file: Path | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then return.

    Port 0 takes a free one; `url_file` gets the base URL, whole or not at all, once connections are taken; `log_file`
    gets a line of JSON per call. Raises OSError when the address is taken, ValueError for faults in the settings.
    """
    with contextlib.ExitStack() as stack:
        log = None if log_file is None else stack.enter_context(log_file.open("a", encoding="utf-8"))
        simulation = Simulation(config, log=log)
        listening = stack.enter_context(_listen(host, port))
        shown = f"[{host}]" if ":" in host else host
        options = uvicorn.Config(
            create_app(simulation=simulation),
            http=Protocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        url = f"http://{shown}:{listening.getsockname()[1]}"
        server = _Server(options, url, url_file, f"{config.world}, {config.plan}")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve(sockets=[listening]))


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
