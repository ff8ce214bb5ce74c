"""Above maxmemory new work is refused, and what ends a call that was made is written all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.contract.world import World, failure, success
from vessel.errors import RedisRefused
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

pytestmark = pytest.mark.redis("valkey", "redis")


@pytest.fixture
def full(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """Give a client that fills the memory, and have room again afterwards."""
    yield redis_client
    redis_client.config_set("maxmemory", 0)


def test_a_result_is_written_where_new_work_is_refused(world: World, full: redis.Redis) -> None:
    """The headroom above maxmemory is for results: the answer and its ledger entry are there, a new job is not."""
    held = world.started()
    full.config_set("maxmemory", 1)
    with pytest.raises(RedisRefused):
        world.queued()
    assert world.finish(held, success()).word == "finished"
    full.config_set("maxmemory", 0)
    assert world.job(held.job.id).state is JobState.SUCCEEDED
    assert len(world.ledger()) == 1


def test_a_failed_call_is_booked_where_new_work_is_refused(world: World, full: redis.Redis) -> None:
    """What a call cost is known even if its job ends without a result."""
    held = world.started()
    full.config_set("maxmemory", 1)
    assert world.finish(held, failure()).word == "finished"
    full.config_set("maxmemory", 0)
    assert world.job(held.job.id).state is JobState.FAILED
