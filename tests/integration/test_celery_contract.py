"""What Vessel leans on in Celery and kombu: the envelope, broker addresses, masked secrets, the shim's versions."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

import pytest
from kombu import Connection
from kombu.transport import redis as transport

from vessel.dispatch.app import LaneCycle, broker_url, make_app
from vessel.dispatch.queues import key_prefix
from vessel.dispatch.ticket import TASK_NAME, parse, render
from workers import shim

if TYPE_CHECKING:
    import redis
    from celery import Celery

NAMESPACE = "contract"
SECRET = "hunter2-secret"
EMPTY: tuple[object, ...] = (None, 0, {}, [], "")


def app_for(url: str) -> Celery:
    """Build the app over a few tiers."""
    return make_app(url, namespace=NAMESPACE, tiers=("power", "balanced"))


def channel_of(connection: Connection) -> Any:
    """Open a channel; its type is the transport's own, of which the stubs know little."""
    return connection.channel()


def popped(client: redis.Redis) -> dict[str, Any]:
    """Take the one message of the power queue."""
    raw = cast("bytes", client.rpop(f"{NAMESPACE}:power"))
    assert parse(raw) == [("job_1", 3)]
    return cast("dict[str, Any]", json.loads(raw))


def shape(value: object) -> object:
    """Give a value's type, by field for objects."""
    return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else type(value)


def test_the_template_has_the_shape_of_a_real_message(redis_url: str, redis_client: redis.Redis) -> None:
    """Everything the template says has the type Celery itself sends, and it leaves out only what is empty there."""
    app = app_for(redis_url)
    with app.connection_for_write() as connection:
        app.send_task(
            TASK_NAME,
            args=([["job_1", 3]],),
            queue="power",
            task_id="job_1:3",
            ignore_result=True,
            connection=connection,
        )
    real = popped(redis_client)
    redis_client.lpush(f"{NAMESPACE}:power", render("power", [("job_1", 3)], "tag", "job_1:3", "job_1:3 power m"))
    ours = popped(redis_client)

    assert ours.keys() == real.keys()
    assert json.loads(ours["body"]) == json.loads(real["body"])
    for part in ("headers", "properties"):
        assert ours[part].keys() <= real[part].keys()
        assert shape(ours[part]) == shape({name: real[part][name] for name in ours[part]})
        left_out = {name: value for name, value in real[part].items() if name not in ours[part]}
        # reply_to is the app's own address for results, which nobody asks for here.
        assert {name for name, value in left_out.items() if value not in EMPTY} <= {"reply_to"}
    same = ("task", "id", "root_id", "lang", "kwargsrepr", "timelimit", "ignore_result")
    assert {name: ours["headers"][name] for name in same} == {name: real["headers"][name] for name in same}
    assert ours["properties"]["delivery_info"] == real["properties"]["delivery_info"]
    assert ours["properties"]["body_encoding"] == real["properties"]["body_encoding"]


def test_kombu_reads_restores_and_acknowledges_a_ticket(redis_url: str, redis_client: redis.Redis) -> None:
    """A ticket made without kombu decodes, goes back to its own queue when rejected, and leaves nothing when acked."""
    app = app_for(redis_url)
    redis_client.lpush(f"{NAMESPACE}:power", render("power", [("job_1", 3)], "tag", "job_1:3", "r"))
    with app.connection_for_read() as connection, channel_of(connection) as channel:
        message = channel.basic_get("power")
        assert message.payload[0] == [[["job_1", 3]]]
        assert redis_client.hkeys(f"{NAMESPACE}:unacked") == [b"tag"]
        message.reject(requeue=True)
        assert redis_client.llen(f"{NAMESPACE}:power") == 1
        again = channel.basic_get("power")
        assert again.delivery_info["redelivered"] is True
        again.ack()
    assert not redis_client.exists(f"{NAMESPACE}:power", f"{NAMESPACE}:unacked")


@pytest.mark.parametrize(
    ("url", "kombus", "options"),
    [
        ("redis://h", "redis://h/0", {}),
        ("redis://u:p@h:1/3", "redis://u:p@h:1/3", {}),
        ("redis://h:1?db=4&socket_timeout=9", "redis://h:1/4", {}),
        ("rediss://h:1/0", "rediss://h:1/0?ssl_cert_reqs=required", {}),
        ("rediss://h:1/0?ssl_cert_reqs=none", "rediss://h:1/0?ssl_cert_reqs=none", {}),
        ("unix:///run/r.sock?db=2", "redis+socket:///run/r.sock?virtual_host=2", {}),
        ("unix://u:p@/run/r.sock", "redis+socket://u:p@/run/r.sock?virtual_host=0", {}),
        ("sentinel://:p@a:1,b:2/main/5", "sentinel://:p@a:1/5;sentinel://:p@b:2/5", {"master_name": "main"}),
    ],
)
def test_every_redis_address_has_kombus_form(url: str, kombus: str, options: dict[str, str]) -> None:
    """Database, socket, TLS and sentinels arrive where kombu looks for them."""
    assert broker_url(url) == (kombus, options)


def test_kombu_understands_the_addresses() -> None:
    """Certificates are checked unless one asks otherwise; socket path, user, password and database are found."""
    tls = Connection(broker_url("rediss://h:1/0")[0])
    assert cast("Any", tls.ssl)["ssl_cert_reqs"].name == "CERT_REQUIRED"
    unix = Connection(broker_url(f"unix://me:{SECRET}@/run/my%20r.sock?db=2")[0])
    channel = transport.Channel.__new__(transport.Channel)
    cast("Any", channel).connection = type("T", (), {"client": unix, "default_port": 6379})
    found = cast("Any", channel)._connparams()
    assert (found["path"], found["username"], found["password"], found["db"]) == ("/run/my r.sock", "me", SECRET, 2)
    sentinels = Connection(broker_url(f"sentinel://:{SECRET}@a:1,b:2/main/5")[0])
    assert len(sentinels.alt) == 2
    assert (sentinels.password, sentinels.virtual_host) == (SECRET, "5")


@pytest.mark.parametrize(
    "url",
    [
        f"redis://me:{SECRET}@h:6379/0",
        f"rediss://:{SECRET}@h:6379/0",
        f"unix://me:{SECRET}@/run/r.sock",
        f"sentinel://:{SECRET}@a:1,b:2/main/0",
    ],
)
def test_the_brokers_password_is_never_shown(url: str) -> None:
    """`inspect conf`, `celery report` and the worker's banner mask it in every form of address."""
    app = app_for(url)
    shown = [repr(app.conf.table(with_defaults=True)), app.bugreport(), app.conf.humanize(), app.connection().as_uri()]
    assert all(SECRET not in text for text in shown)


def test_the_app_accepts_only_json_and_stores_no_result() -> None:
    """Whoever can push into a queue must not be able to run code; no answer may lie in a result backend."""
    conf = app_for("redis://h").conf
    assert conf.accept_content == ["json"]
    assert {conf.task_serializer, conf.result_serializer, conf.event_serializer} == {"json"}
    assert conf.result_backend is None
    assert conf.task_ignore_result
    assert conf.task_acks_late
    assert conf.task_reject_on_worker_lost
    assert conf.broker_connection_max_retries is None


def test_a_call_fits_into_the_visibility_timeout() -> None:
    """However long a call may take, its message is not restored while it runs."""
    for call in (10.0, 120.0, 900.0):
        app = make_app("redis://h", namespace="n", tiers=("power",), call_timeout_s=call)
        assert app.conf.broker_transport_options["visibility_timeout"] >= max(300, 2 * call)


def test_the_namespace_is_kombus_prefix(redis_url: str, redis_client: redis.Redis) -> None:
    """The list of a queue is where Vessel's scripts push, and no key of kombu lies outside the namespace."""
    app = app_for(redis_url)
    with app.connection_for_write() as connection:
        app.send_task("any.task", queue="power", connection=connection)
    assert redis_client.llen(key_prefix(NAMESPACE) + "power") == 1
    assert all(key.startswith(f"{NAMESPACE}:".encode()) for key in cast("list[bytes]", redis_client.keys()))


def test_interactive_lanes_come_first_and_take_turns() -> None:
    """Within a lane the queue used last goes to the end; batch lanes follow the interactive ones."""
    cycle = LaneCycle(["a.batch", "a", "b.batch", "b"])
    assert cycle.consume(4) == ["a", "b", "a.batch", "b.batch"]
    cycle.rotate("a")
    assert cycle.consume(4) == ["b", "a", "a.batch", "b.batch"]


def test_the_shim_fits_the_installed_versions() -> None:
    """When this fails, Celery or kombu has changed: see whether both faults of workers/shim.py are still there."""
    assert (version("celery"), version("kombu")) == shim.AFFECTED
    assert shim.install()
    channels: list[Any] = [transport.Channel, transport.SentinelChannel]
    assert all(hasattr(channel._get_pool, "vessel_shim") for channel in channels)


def test_a_channel_whose_client_was_taken_away_still_acknowledges(redis_url: str, redis_client: redis.Redis) -> None:
    """The fault itself: Celery 5.7.0 leaves the channel without its client before the last acknowledgement."""
    shim.install()
    app = app_for(redis_url)
    redis_client.lpush(f"{NAMESPACE}:power", render("power", [("job_1", 3)], "tag", "job_1:3", "r"))
    with app.connection_for_read() as connection:
        channel = channel_of(connection)
        message = channel.basic_get("power")
        client, channel.connection.client = channel.connection.client, None
        channel._disconnect_pools()
        message.ack()
        channel.connection.client = client
    assert not redis_client.exists(f"{NAMESPACE}:unacked")


def test_a_channel_keeps_one_client(redis_url: str) -> None:
    """Kombu would build a client for every command; a pool that was dropped takes its client along."""
    shim.install()
    with app_for(redis_url).connection_for_read() as connection:
        channel = channel_of(connection)
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
        channel._disconnect_pools()
        with channel.conn_or_acquire() as third:
            assert third is not first
            third.ping()
