"""A process' own metrics over HTTP, from a thread: they are there also while its event loop is busy or stuck.

Several processes of one host take consecutive ports from VESSEL_METRICS_PORT on, each the first that is free.
"""

from __future__ import annotations

import errno
import socketserver
import threading
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import ProcessCollector, make_wsgi_app

from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import CollectorRegistry

    from vessel.settings import Settings

PORTS = 32
"""How many ports are tried."""
READ_S = 10.0
"""How long a client may take to say what it wants."""

log = get_logger(__name__)
Start = Any


class _Handler(WSGIRequestHandler):
    timeout = READ_S

    def log_message(self, *_: object) -> None:
        """Say nothing of scrapes."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def server_bind(self) -> None:
        """Bind without asking a resolver for our own name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that leave early."""


def _only_metrics(registry: CollectorRegistry) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    expose = make_wsgi_app(registry)

    def app(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == "/metrics" and environ.get("REQUEST_METHOD") in {"GET", "HEAD"}:
            found: Iterable[bytes] = expose(environ, start)
            return found
        start("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"Metrics are at /metrics.\n"]

    return app


def export(settings: Settings, registry: CollectorRegistry) -> str | None:
    """Serve a registry until the process ends, and return where; None where it is off or no port is free.

    A process without metrics is worth more than none, so that is only logged.
    """
    if not settings.metrics_port:
        return None
    host, first = settings.metrics_host, settings.metrics_port
    for port in range(first, min(first + PORTS, 65536)):
        try:
            server = _Server((host, port), _Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            log.warning("metrics.off", reason=error.strerror, host=host, port=port, then="set VESSEL_METRICS_HOST")
            return None
        ProcessCollector(registry=registry)
        server.set_app(_only_metrics(registry))
        threading.Thread(target=server.serve_forever, name="vessel-metrics", daemon=True).start()
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{port}/metrics"
        log.info("metrics.served", url=url)
        return url
    log.warning("metrics.off", reason="no port is free", host=host, port=first, tried=PORTS)
    return None
