"""A request counts against all quotas of its API key or, where one refuses it, against none."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from limits import parse_many

from vessel.api.auth import Gatekeeper, Principal
from vessel.api.faults import QuotaReached
from vessel.api.keys import KeyFile

if TYPE_CHECKING:
    from tests.contract.world import World
    from vessel.keyspace.connect import AsyncRunner

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")


@pytest.fixture
def keeper(world: World, runner: AsyncRunner) -> Gatekeeper:
    """Give a gatekeeper of the world's keys."""
    session: Any = SimpleNamespace(runner=runner, door=SimpleNamespace(keys=world.keys))
    return Gatekeeper(session, KeyFile(None))


async def asked(keeper: Gatekeeper, quota: str, times: int) -> dict[str, int]:
    """Ask so often at once, and tell how many were let in, and what is left of each quota."""
    who = Principal("t", "k", admin=False, quota=quota)
    answers = await asyncio.gather(*(keeper.charge(who) for _ in range(times)), return_exceptions=True)
    assert all(answer is None or isinstance(answer, QuotaReached) for answer in answers), answers
    left = {str(item): (await keeper._limiter.get_window_stats(item, "k")).remaining for item in parse_many(quota)}
    return {"let in": answers.count(None)} | left


@pytest.mark.parametrize("quota", ["100/day; 2/hour", "2/hour; 100/day", "2/day; 100/hour", "50/hour; 2/day"])
async def test_a_refused_request_uses_up_no_other_quota(keeper: Gatekeeper, quota: str) -> None:
    """In whatever order they stand, and whichever refuses; many at once too."""
    found = await asked(keeper, quota, 12)
    assert found.pop("let in") == 2
    assert found == {str(item): item.amount - 2 for item in parse_many(quota)}
