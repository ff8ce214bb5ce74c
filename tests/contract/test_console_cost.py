"""A tick of the console sends a bounded number of commands and reads a bounded number of things, whatever is stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bench.console import Cost, fill, look
from vessel.keyspace.names import Keys

if TYPE_CHECKING:
    from pathlib import Path

    import redis

pytestmark = pytest.mark.redis("valkey")
COMMANDS, ELEMENTS = 320, 7000
"""Of one tick with three tenants looking, with a thousand batches of which two hundred are open and six gates in use;
what scripts call is counted as a command as well. The elements are mostly those of ledger entries."""


def looked(client: redis.Redis, url: str, folder: Path, stored: int) -> list[Cost]:
    """Take the cost of each tick at a vessel that holds so many jobs."""
    client.flushall()
    fill(client, Keys("bench"), stored)
    costs = asyncio.run(look(url, folder, 15))
    client.flushall()
    return costs


def test_a_tick_costs_the_same_with_many_jobs_as_with_few(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    """Ten times the jobs, hundreds of flows in the backlog: no tick is above the bounds, the first one neither."""
    few = looked(redis_client, redis_url, tmp_path, 600)
    many = looked(redis_client, redis_url, tmp_path, 6000)
    for ticks in (few, many):
        assert max(tick.commands for tick in ticks) <= COMMANDS
        assert max(tick.elements for tick in ticks) <= ELEMENTS
    assert many[-1].commands <= few[-1].commands + 5
