"""What docs/webhooks.md says is so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.telling import Telling, delivered
from vessel.notify import store
from vessel.notify.backoff import DELAYS_S
from vessel.notify.delivery import read_delivery
from vessel.wire import parse_duration_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import redis

    from tests.conftest import RedisServer

pytestmark = pytest.mark.redis("valkey")
PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"


@pytest.fixture
async def telling(redis_client: redis.Redis, redis_server: RedisServer) -> AsyncIterator[Telling]:
    """Give a world on an empty server."""
    telling = Telling(redis_client, redis_server)
    yield telling
    await telling.close()


def blocks(kind: str) -> list[str]:
    """Read the page's fenced blocks."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


async def test_the_receiver_of_the_docs_receives(telling: Telling) -> None:
    """It verifies, takes a repeat without acting twice, and refuses what another secret signed."""
    (text,) = blocks("python")
    env = os.environ | {"WEBHOOK_SECRET": telling.secret, "PORT": "0"}
    command, pipe = [sys.executable, "-c", text], subprocess.PIPE
    with subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe) as shown:  # noqa: ASYNC220  it is short
        try:
            assert shown.stdout is not None
            port = int(shown.stdout.readline().split()[-1])
            first = telling.ended(f"http://127.0.0.1:{port}/")
            courier = telling.courier()
            for _ in range(2):
                await delivered(courier)
                telling.world.run(store.retry(telling.world.keys, first))
            telling.world.run(store.rotate(telling.world.keys, "t", store.new_secret(), 0))
            await delivered(courier)
            shown.kill()
            assert shown.stdout.read().decode().splitlines() == [f"job.succeeded {first}"]
        finally:
            shown.kill()
    assert [one.status for one in telling.delivery(first).tries] == [204, 204, 401]


async def test_the_messages_of_the_docs_are_what_is_sent(telling: Telling) -> None:
    """The same fields, in the same places."""
    sent = [json.loads(telling.delivery(telling.ended("http://a/")).payload())]
    record = {"id": "batch_1", "kind": "batch", "state": "completed", "url": "http://a/", "at": "1"}
    batch = read_delivery({name: value.encode() for name, value in record.items()})
    assert batch is not None
    sent.append(json.loads(batch.payload()))
    shown = [json.loads(text) for text in blocks("json")]
    assert [(s.keys(), s["data"].keys()) for s in shown] == [(s.keys(), s["data"].keys()) for s in sent]


def test_the_waits_of_the_docs_are_those_that_are_kept() -> None:
    """The table's row, in its order."""
    row = re.search(r"^\| it waits \|(.*)\|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert row is not None
    assert [parse_duration_s(cell.strip().replace("min", "m")) for cell in row[1].split("|")] == list(DELAYS_S)
