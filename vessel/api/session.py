"""What the REST face holds while it runs: connections, the waiter, and the verbs of each tenant."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, assert_never

from fastapi import Depends, Request

from vessel.api.calling import Calling
from vessel.client.steps import Await, Effect, Flow, Listen, Run, Steps, drive_async, iterate_async
from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.submit import Door, redis_url
from vessel.watch.loops import AsyncWaiter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vessel.settings import Settings

T = TypeVar("T")
TENANTS_KNOWN = 1000


@dataclass(slots=True)
class Session:
    """One API process' way to everything below."""

    settings: Settings
    url: str
    door: Door
    runner: AsyncRunner
    waiter: AsyncWaiter
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is to end: whoever only waits is answered then."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _known: OrderedDict[str, Calling] = field(default_factory=OrderedDict)

    def asking(self, tenant: str) -> Calling:
        """Return the verbs of a tenant."""
        found = self._known.get(tenant)
        if found is None:
            found = self._known[tenant] = Calling(self.door, tenant)
            if len(self._known) > TENANTS_KNOWN:
                self._known.popitem(last=False)
        return found

    async def run(self, steps: Steps[T]) -> T:
        """Carry a verb to its end."""
        return await drive_async(steps, self._perform)

    async def iterate(self, flow: Flow[T]) -> AsyncIterator[T]:
        """Yield what a verb emits."""
        async for value in iterate_async(flow, self._perform):
            yield value

    def later(self, work: Any) -> None:
        """Do something that no request waits for."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        """Give up what nobody waits for, and close the connections."""
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.waiter.close()
        await self.runner.close()

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Run(calls):
                return await self.runner.run_all(calls)
            case Listen(after, block_ms):
                return await self.waiter.listen(after, block_ms=block_ms)
            case Await(job_id, timeout_s):
                return await self.waiter.wait(job_id, timeout_s)
            case _ as never:
                assert_never(never)


def open_session(settings: Settings) -> Session:
    """Open the connections of the running loop; nothing is sent yet. Raises NoRedis."""
    url, door = redis_url(settings), Door(settings)
    runner = AsyncRunner(connect_async(url))
    return Session(settings, url, door, runner, AsyncWaiter(url, door.keys, door.store, runner))


def session_of(request: Request) -> Session:
    """Return the app's session."""
    found: Session = request.app.state.session
    return found


async def _session(request: Request) -> Session:
    """Return the app's session; a plain function would be given a thread."""
    return session_of(request)


Here = Annotated[Session, Depends(_session)]
