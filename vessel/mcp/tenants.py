"""One client of the library for each tenant, shared by all of its calls."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from vessel.client.concurrent import AsyncGroqClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vessel.settings import Settings

KEPT = 100
IDLE_S = 2 * 3600.0
"""Longer than any call may wait: a client that nobody has asked for since then serves none."""


class TenantClients:
    """Clients by tenant."""

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet."""
        self._settings = settings
        self._held: OrderedDict[str, tuple[AsyncGroqClient, float]] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, tenant: str) -> AsyncGroqClient:
        """Return a tenant's client."""
        now = asyncio.get_running_loop().time()
        found = self._held.pop(tenant, None)
        client = found[0] if found else AsyncGroqClient(settings=self._settings, tenant=tenant)
        self._held[tenant] = (client, now)
        oldest, (idle, asked_at) = next(iter(self._held.items()))
        if len(self._held) > KEPT and now - asked_at > IDLE_S:
            del self._held[oldest]
            task = asyncio.ensure_future(idle.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        return client

    async def close(self) -> None:
        """Close all of them."""
        held = [client for client, _ in self._held.values()]
        self._held.clear()
        await asyncio.gather(*self._closing, *(client.close() for client in held), return_exceptions=True)


@asynccontextmanager
async def open_clients(settings: Settings) -> AsyncIterator[TenantClients]:
    """Open clients for as long as a server runs."""
    clients = TenantClients(settings)
    try:
        yield clients
    finally:
        await clients.close()
