"""What a client for coroutines holds of the outside: one set of connections per event loop, opened when needed."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar, assert_never

from vessel.client import core
from vessel.client.steps import Await, Effect, Flow, Listen, Run, Steps, drive_async, iterate_async
from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.submit import redis_url
from vessel.watch import BLOCK_MS
from vessel.watch.loops import AsyncWaiter

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Session:
    """What an event loop opens once: connections and the tail that wakes its waiters."""

    loop: asyncio.AbstractEventLoop
    url: str
    runner: AsyncRunner
    waiter: AsyncWaiter
    keeper: AsyncGenerator[None] = field(init=False)

    def __post_init__(self) -> None:
        """Let the loop close it where nobody else does: at its end, or once the client is dropped."""
        keeper = _kept(self.waiter, self.runner)
        object.__setattr__(self, "keeper", keeper)
        with contextlib.suppress(StopIteration):
            keeper.__anext__().send(None)


async def _kept(waiter: AsyncWaiter, runner: AsyncRunner) -> AsyncGenerator[None]:
    # A loop ends the generators that were begun in it, before it closes and when they are dropped.
    try:
        yield
    finally:
        await waiter.close()
        await runner.close()


class AsyncSession(core.Configured):
    """The connections of a client. Every event loop has its own."""

    def _begin(self) -> None:
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}

    @property
    def runner(self) -> AsyncRunner:
        """The running loop's connections, opened when first needed. Raises NoRedis."""
        return self._opened().runner

    @property
    def waiter(self) -> AsyncWaiter:
        """What wakes the running loop's waiting calls. Raises NoRedis."""
        return self._opened().waiter

    async def close(self) -> None:
        """Close the connections, once; later calls raise ClientClosed.

        Calls that wait end with it, too, while their jobs go on.
        """
        self._closed = True
        sessions, self._sessions = self._sessions, {}
        for loop, session in sessions.items():
            if loop is asyncio.get_running_loop():
                await session.keeper.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(session.keeper.aclose(), loop)

    async def __aenter__(self) -> Self:
        """Use as a context. Raises ClientClosed."""
        self._check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    def _opened(self) -> _Session:
        loop = asyncio.get_running_loop()
        session = self._sessions.get(loop)
        if session is not None:
            return session
        self._check_open()
        for known in [known for known in list(self._sessions) if known.is_closed()]:
            self._sessions.pop(known, None)
        url = redis_url(self._core.settings)
        runner = AsyncRunner(connect_async(url))
        session = _Session(loop, url, runner, AsyncWaiter(url, self.door.keys, self.door.store, runner))
        self._sessions[loop] = session
        return session

    async def _run(self, steps: Steps[T]) -> T:
        return await drive_async(steps, self._perform)

    async def _iterate(self, flow: Flow[T]) -> AsyncIterator[T]:
        # A blocking read would keep the shared connections from others, so an iteration has its own.
        listener = AsyncRunner(connect_async(self._opened().url, blocking_s=BLOCK_MS / 1000))

        async def perform(effect: Effect) -> Any:
            return await (listener.run(effect.call) if isinstance(effect, Listen) else self._perform(effect))

        try:
            async for value in iterate_async(flow, perform):
                yield value
        finally:
            await listener.close()

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Run(calls):
                return await self.runner.run_all(calls)
            case Listen():
                return await self.runner.run(effect.call)
            case Await(job_id, timeout_s):
                return await self.waiter.wait(job_id, timeout_s)
            case _ as never:
                assert_never(never)
