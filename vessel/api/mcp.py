"""`/mcp`: the MCP server behind the checks of this API, mounted in it and as an application of its own."""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.routing import Route

from vessel import __version__
from vessel.api import faults, health
from vessel.api.auth import Gatekeeper
from vessel.api.faults import Forbidden
from vessel.api.guard import LOCAL_NAMES, Guard
from vessel.api.keys import KeyFile
from vessel.api.session import open_session
from vessel.api.usage import usage
from vessel.errors import VesselError
from vessel.settings.values import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import Receive, Scope, Send

    from vessel.api.session import Session
    from vessel.mcp.http import Http
    from vessel.mcp.server import VesselServer
    from vessel.mcp.surveying import Sums
    from vessel.settings import Settings

    Make = Callable[[Settings, Sums], VesselServer]

PATHS = ("/mcp", "/mcp/")
INVALID_REQUEST, INTERNAL_ERROR = -32600, -32603
SERVER_FAULT = 500


class McpFace:
    """The ASGI application of `/mcp`. The SDK is loaded with the first request: it is a third of an API's memory."""

    def __init__(self, settings: Settings, make: Make | None = None) -> None:
        """Start nothing yet; `make` makes another server than Vessel's."""
        self._settings, self._make = settings, make
        self._http, self._starting = cast("Http | None", None), asyncio.Lock()
        self._names = LOCAL_NAMES | set(LOOPBACK) | set(filter(None, settings.api_hosts.lower().split(",")))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        request = Request(scope)
        keeper: Gatekeeper = request.app.state.gatekeeper
        try:
            self._check_origin(request)
            who = await keeper.identify(request)
        except VesselError as error:
            await refusal(error)(scope, receive, send)
            return
        request.state.tenant = who.tenant
        http = await self.start(request.app.state.session)
        catalog = importlib.import_module("vessel.mcp.catalog")
        visitor = catalog.Visitor(who.tenant, charge=partial(keeper.charge, who))
        await http.serve(visitor, scope, receive, send)

    def _check_origin(self, request: Request) -> None:
        """Refuse pages of elsewhere, with a key as well: the specification asks for it. Raises Forbidden."""
        origin = request.headers.get("origin")
        if origin is None or "*" in self._names:
            return
        host = origin.partition("://")[2].lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if not (name in self._names or host == request.headers.get("host", "").lower() or _is_loopback(name)):
            text = "A page of this origin may not speak MCP to Vessel. Add its host to VESSEL_API_HOSTS if it may."
            raise Forbidden(text)

    async def start(self, session: Session) -> Http:
        """Load and start the server, once."""
        async with self._starting:
            if self._http is None:
                served, http = await asyncio.to_thread(_load)
                make: Make = self._make or served.make_server
                self._http = http.Http(make(self._settings, sums_of(session)), session.closing)
                await self._http.start()
        return self._http

    async def stop(self) -> None:
        """End what was started."""
        if self._http is not None:
            await self._http.stop()


def refusal(error: VesselError) -> JSONResponse:
    """Answer as the API does, with a body that MCP clients read: they show no other."""
    answered = faults.answer(error)
    about = json.loads(bytes(answered.body))["error"]
    code = INTERNAL_ERROR if answered.status_code >= SERVER_FAULT else INVALID_REQUEST
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": about.pop("message"), "data": about}}
    headers = {name: value for name, value in answered.headers.items() if not name.startswith("content-")}
    return JSONResponse(body, answered.status_code, headers)


def _load() -> tuple[Any, Any]:
    return importlib.import_module("vessel.mcp.vessel"), importlib.import_module("vessel.mcp.http")


def _is_loopback(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def sums_of(session: Session) -> Sums:
    """Give the sums of the ledger as `/v1/usage` does."""

    async def sums(tenant: str, since: str | None, until: str | None, by: str) -> dict[str, Any]:
        kind = cast("Literal['model', 'tier', 'day', 'tag', 'vessel']", by)
        return await usage(tenant=tenant, here=session, since=since, until=until, by=kind)

    return sums


def mount(app: FastAPI, face: McpFace) -> None:
    """Serve the face at its paths, whatever the method: the protocol answers those that it does not take."""
    app.router.routes.extend(Route(path, endpoint=face, include_in_schema=False) for path in PATHS)


def create_mcp_app(settings: Settings, make: Make | None = None) -> FastAPI:
    """Make an application that serves MCP alone, with `/health` and `/ready`. It raises NoRedis when it starts."""
    face = McpFace(settings, make)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        session = open_session(settings)
        app.state.session, app.state.door = session, session.door
        app.state.gatekeeper = Gatekeeper(session, KeyFile(settings.api_key_file))
        await face.start(session)
        try:
            yield
        finally:
            await face.stop()
            await session.close()

    app = FastAPI(title="Vessel MCP", version=__version__, lifespan=lifespan, openapi_url=None, docs_url=None,
                  redoc_url=None, redirect_slashes=False)  # fmt: skip
    app.add_middleware(Guard, settings=settings)
    faults.install(app)
    mount(app, face)
    app.router.routes.extend(r for r in health.router.routes if getattr(r, "path", "") in {"/health", "/ready"})
    return app
