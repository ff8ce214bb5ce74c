"""The served app with a keeper that sweeps in the same process, for tests and benchmarks of files and batches."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from vessel.api.app import create_app as served_app
from vessel.maintain.batches import BatchKeeper
from vessel.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi import FastAPI

    from vessel.settings import Settings

SWEEP = "TEST_SWEEPS"


def create_app(settings: Settings, *, sweeps: bool = True) -> FastAPI:
    """Make the app."""
    app = served_app(settings)
    opened = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with opened(app):
            keeper = BatchKeeper(app.state.door, app.state.runner)
            task = asyncio.ensure_future(_sweep(keeper)) if sweeps else None
            yield
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    app.router.lifespan_context = lifespan
    return app


async def _sweep(keeper: BatchKeeper) -> None:
    while True:
        await keeper.validate()
        await keeper.tick()
        await asyncio.sleep(0.02)


def from_environment() -> FastAPI:
    """Make the app of a process of its own."""
    return create_app(load_settings(), sweeps=os.environ.get(SWEEP, "1") == "1")
