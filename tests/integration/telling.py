"""A world on a real server whose webhooks are delivered by couriers of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.contract.world import HOUR_MS, World, success
from vessel.keyspace.connect import AsyncRunner
from vessel.keyspace.names import Keys
from vessel.notify import sender, store
from vessel.notify.courier import Courier
from vessel.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tests.conftest import RedisServer
    from vessel.notify.delivery import Delivery
    from vessel.notify.sender import Found


class Telling:
    """A world whose webhooks are delivered by couriers of this process."""

    def __init__(self, client: redis.Redis, server: RedisServer) -> None:
        """Bind to an empty server."""
        self.world = World(client, Keys("hooks"))
        self.server = server
        self.couriers: list[Courier] = []
        self.runners: list[AsyncRunner] = []

    def courier(self, lookup: Callable[[str, int], list[Found]] = sender.look_up, **more: Any) -> Courier:
        """Start another one."""
        settings = load_settings({}, namespace="hooks", **{"webhook_allow_private": True} | more)
        self.runners.append(AsyncRunner(self.server.async_client()))
        self.couriers.append(Courier(settings, self.world.keys, self.runners[-1], lookup))
        return self.couriers[-1]

    async def close(self) -> None:
        """End all of them."""
        for courier in self.couriers:
            await courier.close()
        for runner in self.runners:
            await runner.close()

    def ended(self, url: str) -> str:
        """End a job with a webhook; gives its id."""
        held = self.world.started(policy={"webhook": url})
        self.world.finish(held, success())
        return held.job.id

    def delivery(self, of: str) -> Delivery:
        """Read a delivery."""
        found = self.world.run(store.delivery(self.world.keys, of))
        assert found is not None
        return found

    @property
    def secret(self) -> str:
        """The tenant's secret."""
        kept: store.Secrets = self.world.runner.run_all(store.secret_of(self.world.keys, "t"))[-1]
        return kept.current

    def pass_time(self) -> None:
        """Let two days pass."""
        for member in self.world.client.zrange(self.world.keys.webhooks, 0, -1):
            self.world.client.zincrby(self.world.keys.webhooks, -48 * HOUR_MS, member)


async def delivered(courier: Courier) -> int:
    """Deliver what is due, to the end."""
    begun = await courier.tick()
    await courier.drained()
    return begun
