"""The contract's world, and a look at what every test leaves behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.world import World
from vessel.keyspace.connect import AsyncRunner
from vessel.keyspace.lives import TTL_CLASSES, Life, family
from vessel.settings import load_settings
from vessel.submit import Door

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    import redis

    from tests.conftest import RedisServer


@pytest.fixture
def world(redis_client: redis.Redis) -> World:
    """Give a store on an empty server."""
    return World(redis_client)


@pytest.fixture
def door(world: World, tmp_path: Path) -> Door:
    """Give the door of the world's namespace."""
    place = {"redis_url": "redis://localhost", "data_dir": tmp_path, "namespace": world.keys.namespace}
    return Door(load_settings({}, **place, result_ttl=1))


@pytest.fixture
async def runner(redis_server: RedisServer) -> AsyncIterator[AsyncRunner]:
    """Give an async runner of the world's server."""
    runner = AsyncRunner(redis_server.async_client())
    yield runner
    await runner.close()


@pytest.fixture(autouse=True)
def no_key_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail when a key is left that neither has a time to live nor may stay."""
    client: Any = None
    if "redis_server" in request.fixturenames:
        client = request.getfixturevalue("redis_client")
    yield
    if client is not None:
        assert leaks(client) == []


def leaks(client: Any) -> list[str]:
    """Name the keys that would stay for ever, each with why it must not."""
    found = []
    for raw in client.scan_iter():
        name = raw.decode()
        which = family(name.partition(":")[2])
        if which is None:
            found.append(f"{name}: of no family in TTL_CLASSES")
        elif client.pttl(raw) < 0 and not _may_stay(client, name, TTL_CLASSES[which].life):
            found.append(f"{name}: {which} without a time to live")
        elif which == "queue" and client.type(raw) != b"list":
            found.append(f"{name}: no list, so no queue either")
    return found


def _may_stay(client: Any, name: str, life: Life) -> bool:
    match life:
        case Life.PERMANENT:
            return True
        case Life.TIMED:
            return False
        case Life.WITH_JOB:
            return _job_is_open(client, name)


def _job_is_open(client: Any, name: str) -> bool:
    namespace, kind, rest = name.split(":", 2)
    job_id = rest.partition(":")[0]
    if kind == "idem":
        job_id = (client.get(name) or b"").decode().partition(" ")[0]
    state, finished = client.hmget(f"{namespace}:job:{job_id}", "state", "finished")
    return state is not None and finished is None
