"""A look of the console sends a bounded number of commands, however many jobs are stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from bench.console import fill, look
from vessel.keyspace.names import Keys

if TYPE_CHECKING:
    from pathlib import Path

    import redis

pytestmark = pytest.mark.redis("valkey")
MOST = 300
"""Commands of one look with three tenants looking, with a thousand batches of which two hundred are open; what scripts
call is counted as well."""


def looked(client: redis.Redis, url: str, folder: Path, stored: int) -> list[int]:
    """Count the commands of each look at a vessel that holds so many jobs."""
    client.flushall()
    fill(client, Keys("bench"), stored)
    counts = [calls for _, _, calls in asyncio.run(look(url, folder, 15))]
    client.flushall()
    return counts


def test_a_look_costs_the_same_with_many_jobs_as_with_few(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path
) -> None:
    """Ten times the jobs: not one command more once it is under way, and never more than the bound."""
    few = looked(redis_client, redis_url, tmp_path, 400)
    many = looked(redis_client, redis_url, tmp_path, 4000)
    assert max(many[5:]) <= max(few[5:]) + 5
    assert max(many[5:]) <= MOST
    assert max(many) <= 2 * MOST
