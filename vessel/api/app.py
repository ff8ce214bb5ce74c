"""The FastAPI application: what is mounted where, and what stands in front of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi

from vessel import __version__
from vessel.api import batches, chat, console, faults, files, health, jobs, models, pages, steering, usage
from vessel.api.auth import Gatekeeper, Tenant
from vessel.api.guard import Guard
from vessel.api.keys import KeyFile
from vessel.api.mcp import McpFace, mount
from vessel.api.metrics import Measured, Measuring
from vessel.api.schemas import SCHEMAS
from vessel.api.session import open_session
from vessel.api.tracing import Tracing
from vessel.api.watching import Watching
from vessel.observe.tracing import begin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vessel.settings import Settings

PREFIXES = ("/v1", "/openai/v1")
"""The openai SDK's base URL ends in the first, the groq SDK adds the second by itself."""

ABOUT = (
    "Groq behind a job queue. The openai and groq SDKs work against it with another base URL; every path below `/v1` "
    "is also below `/openai/v1`. Errors have OpenAI's body."
)


def create_app(settings: Settings) -> FastAPI:
    """Make the application; connections are opened when it starts. It raises NoRedis and SettingsError then."""
    begin(settings, "vessel-api")
    mcp = McpFace(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        session = open_session(settings)
        app.state.session, app.state.door = session, session.door
        app.state.runner, app.state.waiter = session.runner, session.waiter
        app.state.gatekeeper = Gatekeeper(session, KeyFile(settings.api_key_file))
        app.state.watching = Watching(session)
        session.later(app.state.watching.prepare())
        try:
            yield
        finally:
            await mcp.stop()
            await session.close()

    app = FastAPI(
        title="Vessel",
        version=__version__,
        description=ABOUT,
        lifespan=lifespan,
        openapi_url=None,  # served below, to those with a key
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.measured = Measured()
    app.add_middleware(Measuring, measured=app.state.measured)
    app.add_middleware(Tracing)
    app.add_middleware(Guard, settings=settings)
    faults.install(app)
    for prefix in PREFIXES:
        for router in _routers():
            app.include_router(router, prefix=prefix, include_in_schema=prefix == PREFIXES[0])
    app.include_router(health.router)
    app.include_router(pages.router)
    mount(app, mcp)
    _serve_openapi(app)
    return app


def _routers() -> list[APIRouter]:
    parts = (chat, models, jobs, usage, steering, console, files, batches)
    return [part.router for part in parts]


def _serve_openapi(app: FastAPI) -> None:
    document: dict[str, Any] = {}

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(tenant: Tenant) -> dict[str, Any]:
        """Describe the API, to those with a key."""
        del tenant
        return document

    document.update(_openapi(app))
    app.openapi = lambda: document  # type: ignore[method-assign]  # FastAPI's documented way


def _openapi(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes,
    )  # fmt: skip
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= SCHEMAS | console.SCHEMAS
    for operations in document["paths"].values():
        for operation in operations.values():
            # FastAPI adds its own 422 where there are parameters; ours are 400.
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422", "")):
                del answers["422"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document
