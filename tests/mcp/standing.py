"""A whole vessel with its MCP server over HTTP, and the SDK's own client on it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Self

import httpx2
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from bench.stack import free_port
from tests.api.serving import Served
from vessel.api import keys as api_keys
from vessel.control import clear_maintenance, set_maintenance
from vessel.keyspace.names import Keys
from vessel.keyspace.server import clock
from vessel.submit import DEFAULT_TENANT
from vessel.watch import jobs_page
from vessel.wire import TERMINAL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from vessel.jobs.model import Job

VESSEL = (sys.executable, "-m", "vessel.cli.main")
HEADERS = {"accept": "application/json, text/event-stream"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Standing(Served):
    """A stack with `vessel mcp --http` processes."""

    def __init__(self, folder: Any, **env: Any) -> None:
        """Start nothing yet."""
        super().__init__(folder, **env)
        self.servers: list[subprocess.Popen[str]] = []
        self.mcp_url = ""

    def start_mcp(self, *arguments: str, **env: str) -> str:
        """Start a server and return its address once it listens."""
        with (self.folder / "mcp.log").open("ab") as log:
            process = subprocess.Popen(
                [*VESSEL, "mcp", "--http", "--json", "--port", str(free_port()), *arguments],
                env=self.environment() | env, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True,
            )  # fmt: skip
        self.servers.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, self.log("mcp")
        url: str = json.loads(line)["url"]
        return url

    def stop(self) -> None:
        """End everything."""
        for process in self.servers:
            if process.poll() is None:
                process.terminate()
                process.wait(30)
            if process.stdout is not None:
                process.stdout.close()
        super().stop()

    def key(self, tenant: str, namespace: str, quota: str = "") -> str:
        """Make an API key of a vessel in this Redis."""
        with self.inside() as (_, runner):
            made, key = api_keys.make(runner.run(clock()), tenant=tenant, quota=quota)
            runner.run(api_keys.store(Keys(namespace), made))
        return key

    @contextlib.contextmanager
    def held(self) -> Iterator[Self]:
        """Let all jobs wait meanwhile."""
        with self.inside() as (door, runner):
            runner.run(set_maintenance(door, None, None, "a test"))
            try:
                yield self
            finally:
                runner.run(clear_maintenance(door, None))

    def open_jobs(self) -> list[Job]:
        """Read every job that has not ended."""
        with self.inside() as (door, runner):
            names = [name for name, _ in runner.run(jobs_page(door.keys, 0, 1000, DEFAULT_TENANT))]
            jobs = [runner.run(door.store.peek(name)) for name in names]
        return [job for job in jobs if job is not None and job.state not in TERMINAL]

    @contextlib.asynccontextmanager
    async def client(self, url: str, *, mode: str = "auto", key: str = "", **options: Any) -> AsyncIterator[Client]:
        """Connect the SDK's client over HTTP."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http), mode=mode, **options) as opened,
        ):
            yield opened

    def child(self, **env: str) -> Any:
        """Describe `vessel mcp` on stdio for the SDK's client."""
        return stdio_client(
            StdioServerParameters(command=VESSEL[0], args=[*VESSEL[1:], "mcp"], env=self.environment() | env)
        )

    def spawn_stdio(self) -> subprocess.Popen[bytes]:
        """Start `vessel mcp` on pipes of ours."""
        return subprocess.Popen(
            [*VESSEL, "mcp"], env=self.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip


def request(method: str, params: dict[str, Any] | None = None, number: int = 1) -> dict[str, Any]:
    """Write a request of 2026-07-28, which stands alone."""
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": {**(params or {}), "_meta": META}}


def headers(method: str, name: str = "", **more: str) -> dict[str, str]:
    """Write the headers that go with it."""
    named = {"mcp-name": name} if name else {}
    return HEADERS | {"mcp-protocol-version": "2026-07-28", "mcp-method": method} | named | more


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
