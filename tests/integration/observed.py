"""A vessel with all that can be looked at: API, worker, Flower, metrics, traces, logs at their most talkative."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import httpx

from bench.stack import free_port
from tests.api.serving import Served
from tests.integration.running_up import VESSEL
from tests.waiting import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

KEY = "gsk_canary4key5secret6canary4key5secret6"
LOGIN = ("ann", "canary-flower-pässword")
WATCHDOG_US = 3_000_000
TRACES = find_spec("opentelemetry") is not None and find_spec("opentelemetry.sdk") is not None
"""Whether the extra `otel` is installed."""


class Receiver:
    """What an OTLP collector gets."""

    def __init__(self) -> None:
        """Listen on a free port of this machine."""
        bodies: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.bodies = bodies
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()

    def spans(self) -> list[tuple[str, Any]]:
        """List the spans received, each with the service that sent it."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (  # noqa: PLC0415  an extra
            ExportTraceServiceRequest,
        )

        found = []
        for body in list(self.bodies):
            for group in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = next(a.value.string_value for a in group.resource.attributes if a.key == "service.name")
                found += [(service, span) for scope in group.scope_spans for span in scope.spans]
        return found


def attributes(span: Any) -> dict[str, Any]:
    """Read a span's attributes."""
    values = {a.key: a.value for a in span.attributes}
    return {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()}


class Told:
    """What a process tells systemd."""

    def __init__(self, address: str) -> None:
        """Listen at an abstract address, which begins with @."""
        self.address, self.heard = address, list[str]()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{address[1:]}")
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.heard += message.decode().split("\n")

    def close(self) -> None:
        """Listen no more."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as last:
            last.sendto(b"", f"\0{self.address[1:]}")
        self._listening.join()
        self._socket.close()


class Observed(Served):
    """A served vessel, its Flower and a collector of traces."""

    def __init__(self, folder: Path) -> None:
        """Choose ports, a login and a key that can be told in any output."""
        self.receiver = Receiver()
        self.flower_port, self.metrics_port = free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        logins = folder / "logins"
        logins.write_text(f"{':'.join(LOGIN)}\nbob:other\n")
        tracing = {"VESSEL_TRACING": "on"} if TRACES else {}
        super().__init__(
            folder,
            VESSEL_FLOWER_PORT=str(self.flower_port),
            VESSEL_FLOWER_AUTH_FILE=str(logins),
            VESSEL_METRICS_PORT=str(self.metrics_port),
            VESSEL_LOG_LEVEL="DEBUG",
            GROQ_API_KEY=KEY,
            OTEL_EXPORTER_OTLP_ENDPOINT=self.receiver.url,
            OTEL_BSP_SCHEDULE_DELAY="100",
            **tracing,
        )
        self.told = Told(f"@{folder}")
        self.flower_process: subprocess.Popen[bytes] | None = None
        self.key = ""
        self.asked: Any = None
        """The command that asked with a canary."""
        self.answer: Any = None
        """The answer of REST to another one."""

    def start_flower(self, *arguments: str) -> None:
        """Start Flower and wait until it answers and knows a worker."""
        self.more_env |= {"NOTIFY_SOCKET": self.told.address, "WATCHDOG_USEC": str(WATCHDOG_US)}
        self.flower_process = self.spawn([*VESSEL, "flower", *arguments], "flower")
        self.more_env = {k: v for k, v in self.more_env.items() if k not in {"NOTIFY_SOCKET", "WATCHDOG_USEC"}}
        self.until(self._flower_answers, "Flower", self.flower_process)
        with self.flower() as client:
            wait_until(lambda: client.get("/api/workers", params={"refresh": "1"}).json(), 30)

    def _flower_answers(self) -> bool:
        try:
            return httpx.get(f"{self.flower_url}/healthcheck").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def flower_url(self) -> str:
        """Where Flower is."""
        return f"http://127.0.0.1:{self.flower_port}"

    def flower(self, login: tuple[str, str] | None = LOGIN, **options: Any) -> httpx.Client:
        """Open a client of Flower."""
        return httpx.Client(base_url=self.flower_url, auth=_auth(login), timeout=30, **options)

    def stop(self) -> None:
        """End everything."""
        if self.flower_process is not None and self.flower_process.poll() is None:
            self.flower_process.terminate()
            self.flower_process.wait(20)
        super().stop()
        self.receiver.close()
        self.told.close()

    def logs(self) -> Iterator[tuple[str, str]]:
        """Read what every process of ours has written; the simulator's is the upstream's own."""
        for path in sorted(self.folder.glob("*.log")):
            if path.stem != "simulator":
                yield path.name, path.read_text("utf-8", "replace")


def _auth(login: tuple[str, str] | None) -> Any:
    return httpx.BasicAuth(login[0].encode(), login[1].encode()) if login else None
