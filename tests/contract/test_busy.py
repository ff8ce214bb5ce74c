"""A Redis that takes no commands for a while: what was paid for is offered again, and whoever follows goes on."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest
from redis.exceptions import ResponseError

from tests.contract.world import World, success
from tests.waiting import wait_until
from vessel.errors import RedisRefused, RedisUnreachable
from vessel.execute.persist import persist
from vessel.keyspace.connect import SyncRunner, connect
from vessel.watch import threads
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from tests.conftest import RedisServer
    from vessel.keyspace.connect import AsyncRunner
    from vessel.keyspace.script import Call

T = TypeVar("T")
pytestmark = pytest.mark.redis("valkey", "redis")


@contextmanager
def busy(server: RedisServer) -> Iterator[redis.Redis]:
    """Keep a server busy with a script; whoever kills it ends that, at the latest the end of the block."""

    def spin() -> None:
        with server.client() as client, suppress(ResponseError):
            client.eval("while true do end", 0)

    with server.client() as client:
        client.config_set("lua-time-limit", 1)
        thread = threading.Thread(target=spin)
        thread.start()
        try:
            wait_until(lambda: refuses(client))
            yield client
        finally:
            with suppress(ResponseError):  # there is none any more
                client.script_kill()
            thread.join()
            client.config_set("lua-time-limit", 5000)


def refuses(client: redis.Redis) -> bool:
    """Tell whether the server says that it is busy."""
    try:
        client.ping()
    except ResponseError as error:
        return str(error).startswith("BUSY")
    return False


async def test_a_result_waits_until_redis_is_not_busy_any_more(
    world: World, redis_server: RedisServer, runner: AsyncRunner
) -> None:
    """A paid answer is offered again until it is taken."""
    held = world.started()
    with busy(redis_server) as client:
        with pytest.raises(RedisUnreachable, match="BUSY"):
            await runner.run(world.store.peek(held.job.id))
        taken = asyncio.ensure_future(persist(runner, world.store.finish(held, *success())))
        await asyncio.sleep(0)
        await asyncio.to_thread(client.script_kill)
        assert (await taken).word == "finished"
    assert world.job(held.job.id).state is JobState.SUCCEEDED
    assert world.booked() == [("1", JobState.SUCCEEDED)]


def test_who_waits_for_a_job_goes_on_after_a_busy_time(
    world: World, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that follows a process' replies lives through it, as through an outage."""
    held, refused = world.started(), threading.Event()

    class Told(SyncRunner):
        def run(self, call: Call[T]) -> T:
            try:
                return super().run(call)
            except Exception:
                refused.set()
                raise

    monkeypatch.setattr(threads, "SyncRunner", Told)
    waiter = threads.Waiter(redis_server.url, world.keys, world.store, world.runner)
    try:
        with busy(redis_server):
            waiter.register(held.job.id)
            assert refused.wait(20)
        world.client.hset(world.keys.job(held.job.id), "reply", waiter.reply)
        again = world.run(world.store.peek(held.job.id))
        assert again is not None
        world.finish(replace(held, keys=world.store.of(again)), success())
        assert waiter.wait(held.job.id, 20).state is JobState.SUCCEEDED
    finally:
        waiter.close()


def test_a_database_that_is_not_there_is_told_as_that(redis_server: RedisServer) -> None:
    """Only the server knows how many it has."""
    url = f"{redis_server.url.partition('?')[0]}?db=9999"
    with connect(url) as client, pytest.raises(RedisRefused, match="no database"):
        SyncRunner(client).run(World(client).store.peek("job_x"))
