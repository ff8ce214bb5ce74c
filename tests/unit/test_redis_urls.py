"""What an address of Redis makes of connections, and what a reply of Redis that is no answer means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from redis._parsers.base import BaseParser

from vessel.dispatch.app import broker_url
from vessel.errors import RedisRefused, RedisUnreachable, SettingsError
from vessel.keyspace.connect import SOCKET_TIMEOUT_S, as_vessel_error, connect, connect_async
from vessel.settings.redis_urls import sentinels_of

if TYPE_CHECKING:
    from vessel.errors import VesselError

MIXED = "sentinel://user:p%40ss@one,[::1]:26380/main/3"


def test_a_sentinel_address_is_read_whole() -> None:
    """Escapes of a password, IPv6, ports and database; what is left out has the usual value."""
    found = sentinels_of(MIXED)
    assert found.nodes == (("one", 26379), ("::1", 26380))
    assert (found.master, found.database, found.username, found.password) == ("main", 3, "user", "p@ss")
    assert sentinels_of("sentinel://h").master == "mymaster"
    assert "p@ss" not in repr(found)


def test_the_primary_of_sentinels_is_opened_as_the_address_says() -> None:
    """Both kinds of client, and a blocking read has its time on the primary as well."""
    for client in (connect(MIXED), connect_async(MIXED, blocking_s=20)):
        given = client.connection_pool.connection_kwargs
        assert (given["db"], given["username"], given["password"]) == (3, "user", "p@ss")
        assert given["socket_timeout"] == SOCKET_TIMEOUT_S + (0 if client.__module__ == "redis.client" else 20)
    pool: Any = connect(MIXED).connection_pool
    nodes = pool.sentinel_manager.sentinels
    assert [node.connection_pool.connection_kwargs["host"] for node in nodes] == ["one", "::1"]


def test_the_broker_is_told_the_same_of_sentinels() -> None:
    """Kombu takes one address for each, escaped."""
    url, options = broker_url(MIXED)
    assert url == "sentinel://user:p%40ss@one:26379/3;sentinel://user:p%40ss@[::1]:26380/3"
    assert options == {"master_name": "main"}


@pytest.mark.parametrize("options", ["nonsense=1", "ssl_cert_reqs=perhaps", "ssl_include_verify_flags=NO"])
@pytest.mark.parametrize("opened", [connect, connect_async])
def test_options_that_the_client_does_not_know_are_a_fault_of_the_settings(opened: object, options: str) -> None:
    """They are met before anything is sent, and end with exit code 2."""
    assert callable(opened)
    with pytest.raises(SettingsError, match="VESSEL_REDIS_URL has an option"):
        opened(f"rediss://h/0?{options}")


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL.", RedisUnreachable),
        ("LOADING Redis is loading the dataset in memory", RedisUnreachable),
        ("MASTERDOWN Link with MASTER is down", RedisUnreachable),
        ("TRYAGAIN Multiple keys request during rehashing of slot", RedisUnreachable),
        ("CLUSTERDOWN The cluster is down", RedisUnreachable),
        ("READONLY You can't write against a read only replica.", RedisRefused),
        ("ERR DB index is out of range", RedisRefused),
        ("OOM command not allowed when used memory > 'maxmemory'.", RedisRefused),
    ],
)
def test_a_reply_that_is_over_soon_is_waited_for(reply: str, kind: type[VesselError]) -> None:
    """What would else be an unknown error, at which a paid answer is thrown away and threads end."""
    assert type(as_vessel_error(BaseParser.parse_error(reply))) is kind


def test_an_error_of_a_script_is_no_outage() -> None:
    """It would be tried again for ever."""
    error = BaseParser.parse_error("ERR user_script:1: attempt to index a nil value")
    assert as_vessel_error(error) is error
