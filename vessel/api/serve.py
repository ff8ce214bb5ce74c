"""Run the REST face on uvicorn until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from vessel.api.app import create_app
from vessel.api.keys import KeyFile, count
from vessel.api.protocol import Protocol
from vessel.api.tls import check_tls
from vessel.errors import SettingsError, Unreachable
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.names import Keys
from vessel.observe import systemd
from vessel.settings.values import LOOPBACK
from vessel.submit import redis_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fastapi import FastAPI

    from vessel.settings import Settings

BACKLOG = 2048
KEEP_ALIVE_S = 75
DRAIN_S = 20
"""How long requests under way may take to end; their jobs go on, and a repeat finds them."""


class _Server(uvicorn.Server):
    """uvicorn's server, which tells when it listens, and lets those who only wait go when it is to end."""

    def __init__(self, config: uvicorn.Config, app: object, started: Callable[[], None]) -> None:
        super().__init__(config)
        self.app, self.tell_started, self.asked = app, started, signal.SIGTERM

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.beating = asyncio.ensure_future(systemd.beat())
            self.tell_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT; uvicorn's own would raise them again afterwards."""
        loop = asyncio.get_running_loop()
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(one, self._stop, one)
        try:
            yield
        finally:
            for one in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(one)

    def _stop(self, number: signal.Signals) -> None:
        self.asked, self.should_exit = number, True
        systemd.stopping("ends: requests under way have a little time, jobs go on without it")
        session = getattr(getattr(self.app, "state", None), "session", None)
        if session is not None:
            session.closing.set()


def check(settings: Settings) -> None:
    """Make sure that it may listen there, off loopback only with a key, and with its certificate.

    Raises SettingsError, Unreachable.
    """
    check_tls(settings)
    file = KeyFile(settings.api_key_file)
    url = redis_url(settings)
    with contextlib.closing(connect(url)) as client:
        keys = SyncRunner(client).run(count(Keys(settings.namespace)))
    if settings.api_host in LOOPBACK or keys or file:
        return
    raise SettingsError(
        [
            (
                f"VESSEL_API_HOST: {settings.api_host} is not loopback, and there is no API key, so anybody could "
                "spend your money; make one with `vessel keys create`, or name a file with one in VESSEL_API_KEY_FILE"
            )
        ]
    )


def serve(
    settings: Settings,
    started: Callable[[str], None],
    make: Callable[[Settings], FastAPI] = create_app,
    setting: str = "VESSEL_API_PORT",
) -> signal.Signals:
    """Serve until SIGTERM or SIGINT and return which it was; `started` is told the address once it listens.

    `make` makes what is served, `setting` names where its port is set. Raises what `check` does, and Unreachable when
    the address is taken.
    """
    check(settings)
    _raise_open_files()
    with contextlib.closing(_listen(settings.api_host, settings.api_port, setting)) as listening:
        app = make(settings)
        secure = settings.api_tls_cert is not None
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # whoever is behind a proxy is told by the proxy, which anybody can pretend to be
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
            ssl_certfile=settings.api_tls_cert,
            ssl_keyfile=settings.api_tls_key,
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        shown = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
        url = f"{'https' if secure else 'http'}://{shown}:{listening.getsockname()[1]}"
        server = _Server(config, app, lambda: _tell(started, url))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(server.serve(sockets=[listening]))
        return server.asked


def _tell(started: Callable[[str], None], url: str) -> None:
    systemd.ready(f"listens on {url}")
    started(url)


def _raise_open_files() -> None:
    """Allow as many connections as the system lets us: the usual soft limit of 1,024 is a few hundred streams."""
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listen(host: str, port: int, setting: str) -> socket.socket:
    listening: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        if listening is not None:
            listening.close()
        why = error.strerror or type(error).__name__
        text = f"Vessel cannot listen on {host}:{port}: {why}. Choose another {setting} or --port."
        raise Unreachable(text) from None
    return listening
