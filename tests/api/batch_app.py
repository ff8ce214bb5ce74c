"""The routers of files and batches in a small app of their own, with a keeper that sweeps, for tests and benchmarks."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from vessel.api import batches, files
from vessel.errors import VesselError
from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.maintain.batches import BatchKeeper
from vessel.settings import load_settings
from vessel.submit import Door, redis_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from vessel.settings import Settings

SWEEP = "TEST_SWEEPS"


def create_app(settings: Settings, *, sweeps: bool = True) -> FastAPI:
    """Make the app."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.door = Door(settings)
        app.state.runner = AsyncRunner(connect_async(redis_url(settings)))
        keeper = BatchKeeper(app.state.door, app.state.runner)
        task = asyncio.ensure_future(_sweep(keeper)) if sweeps else None
        yield
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await app.state.runner.close()

    app = FastAPI(lifespan=lifespan)
    for prefix in ("/v1", "/openai/v1"):
        app.include_router(files.router, prefix=prefix)
        app.include_router(batches.router, prefix=prefix)

    @app.exception_handler(VesselError)
    async def told(_: Request, error: VesselError) -> JSONResponse:
        return _error(error.http_status, error.message, error.code, error.param)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return _error(400, "not valid", "invalid_request", str(error.errors()[0]["loc"][-1]))

    return app


def _error(status: int, message: str, code: str, param: str | None) -> JSONResponse:
    told = {"message": message, "type": "invalid_request_error", "code": code, "param": param}
    headers = {"x-should-retry": "false"} if status == 409 else {}
    return JSONResponse({"error": told}, status, headers)


async def _sweep(keeper: BatchKeeper) -> None:
    while True:
        await keeper.validate()
        await keeper.tick()
        await asyncio.sleep(0.02)


def from_environment() -> FastAPI:
    """Make the app of a process of its own."""
    return create_app(load_settings(), sweeps=os.environ.get(SWEEP, "1") == "1")
