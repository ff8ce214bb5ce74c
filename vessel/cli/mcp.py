"""The MCP server as this process: on standard input and output, or over HTTP."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from vessel.cli.faults import INTERRUPTED, BadUse
from vessel.cli.output import emit, note, say
from vessel.cli.preflight import check_redis
from vessel.observe.logs import configure_logs
from vessel.settings import load_settings
from vessel.submit import redis_url

if TYPE_CHECKING:
    from vessel.api.session import Session
    from vessel.settings import Settings


def serve_mcp(*, http: bool, host: str | None, port: int | None, as_json: bool) -> int:
    """Serve until the input ends or a signal comes. Raises SettingsError, NoRedis and Unreachable before that."""
    if not http and (host is not None or port is not None):
        raise BadUse("--host and --port go with --http; without it MCP is spoken on standard input and output.",
                     param="--http")  # fmt: skip
    settings = load_settings(api_host=host, mcp_port=port)
    check_redis(redis_url(settings))
    configure_logs("json" if as_json else settings.log_format, settings.log_level)
    # The SDK tells of every session, with its id, which opens it.
    logging.getLogger("mcp").setLevel(logging.WARNING)
    return _over_http(settings, as_json=as_json) if http else _over_stdio(settings)


def _over_http(settings: Settings, *, as_json: bool) -> int:
    from vessel.api.mcp import create_mcp_app
    from vessel.api.serve import serve

    def started(url: str) -> None:
        if as_json:
            emit({"event": "listening", "url": f"{url}/mcp", "pid": os.getpid()})
        else:
            say(f"Vessel's MCP server on {url}/mcp (streamable HTTP)")

    asked = serve(settings.model_copy(update={"api_port": settings.mcp_port}), started, create_mcp_app,
                  "VESSEL_MCP_PORT")  # fmt: skip
    if as_json:
        emit({"event": "stopped", "signal": asked.name})
    return INTERRUPTED if asked is signal.SIGINT else 0


def _over_stdio(settings: Settings) -> int:
    """Say nothing on standard output but the protocol."""
    if sys.stdin.isatty():
        note("MCP is spoken on standard input and output: a host starts this command. docs/mcp.md shows how.")
    from vessel.mcp.stdio import serve_stdio
    from vessel.mcp.vessel import make_server

    sums = _Sums(settings)
    server = make_server(settings, sums)

    async def serve() -> signal.Signals | None:
        try:
            return await serve_stdio(server)
        finally:
            await sums.close()

    asked = asyncio.run(serve())
    return INTERRUPTED if asked is signal.SIGINT else 0


class _Sums:
    """The ledger's sums as REST gives them; what is needed for it is loaded when somebody asks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session: Session | None = None

    async def __call__(self, tenant: str, since: str | None, until: str | None, by: str) -> dict[str, Any]:
        from vessel.api.mcp import sums_of
        from vessel.api.session import open_session

        if self._session is None:
            self._session = open_session(self._settings)
        found: dict[str, Any] = await sums_of(self._session)(tenant, since, until, by)
        return found

    async def close(self) -> None:
        """Close what was opened."""
        if self._session is not None:
            await self._session.close()
