"""The Celery app: every transport and worker option that Vessel depends on, in one table.

The broker only carries wake-ups. JSON alone is accepted, nothing is stored as a result, and no secret but the broker's
own password (which Celery masks) stands in the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from celery import Celery
from kombu import Exchange, Queue
from kombu.utils.scheduling import round_robin_cycle

from vessel.dispatch.queues import BATCH_SUFFIX, key_prefix, queues_of
from vessel.settings.redis_urls import SENTINEL, sentinels_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from urllib.parse import SplitResult

    from vessel.settings.redis_urls import Sentinels

POOL = "workers.pool:AsyncioPool"
CONSUMER = "workers.consumer:BundlingConsumer"
TASK_MODULES = ("workers.tasks",)
SLOTS = 200
CALL_TIMEOUT_S = 120.0
VISIBILITY_S = 300.0
VISIBILITY_CALLS = 2.5
"""A message is restored so many call deadlines (at least VISIBILITY_S) after its receipt, whether or not its work goes
on; a message restored too early costs a claim that is refused."""
RESTORE_INTERVAL_S = 5
SOCKET_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 1024
"""A cap, not a pool size. It must exceed the slots: kombu raises at the cap and then the ack is lost."""


class LaneCycle(round_robin_cycle):  # type: ignore[type-arg]  # generic only in its stubs
    """Poll the queues in turn, but every interactive lane before any batch lane."""

    def consume(self, n: int) -> Any:
        """Give the next `n` queues in the order Redis shall look at them."""
        return sorted(list(self.items or ())[:n], key=lambda queue: queue.endswith(BATCH_SUFFIX))


def _credentials(parts: SplitResult) -> str:
    user, found, _ = parts.netloc.rpartition("@")
    return user + found


def _sentinel(found: Sentinels) -> tuple[str, dict[str, Any]]:
    named = f"{quote(found.username or '', safe='')}:{quote(found.password, safe='')}@" if found.password else ""
    hosts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in found.nodes]
    urls = [f"sentinel://{named}{host}/{found.database}" for host in hosts]
    return ";".join(urls), {"master_name": found.master}


def broker_url(url: str) -> tuple[str, dict[str, Any]]:
    """Turn a redis-py URL into kombu's form and the transport options that go with it.

    kombu takes the database from the path only, calls a unix socket `redis+socket`, and checks no certificate unless
    told to, where redis-py does.
    """
    if url.startswith(SENTINEL):
        return _sentinel(sentinels_of(url))
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "unix":
        path = quote(unquote(parts.path))
        return f"redis+socket://{_credentials(parts)}{path}?virtual_host={query.get('db', '0')}", {}
    db = query.get("db") or parts.path.strip("/") or "0"
    plain = f"{parts.scheme}://{parts.netloc}/{db}"
    if parts.scheme == "rediss":
        tls = {"ssl_cert_reqs": "required"} | {k: v for k, v in query.items() if k.startswith("ssl_")}
        return f"{plain}?{urlencode(tls)}", {}
    return plain, {}


def _transport(namespace: str, call_timeout_s: float) -> dict[str, Any]:
    return {
        "global_keyprefix": key_prefix(namespace),
        "visibility_timeout": max(VISIBILITY_S, VISIBILITY_CALLS * call_timeout_s),
        "unacked_restore_interval": RESTORE_INTERVAL_S,
        "unacked_restore_throttle": 1,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": SOCKET_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 25,
        "max_connections": MAX_CONNECTIONS,
        "queue_order_strategy": "vessel.dispatch.app:LaneCycle",
        # One list per queue instead of four, and bodies that are readable and a third smaller.
        "priority_steps": [0],
        "body_encoding": "utf-8",
    }


def _broker_conf(url: str, namespace: str, call_timeout_s: float) -> dict[str, Any]:
    broker, more = broker_url(url)
    return {
        "broker_url": broker,
        "broker_transport_options": _transport(namespace, call_timeout_s) | more,
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A Redis that refuses writes (out of memory) answers a channel error; without this the worker exits.
        "broker_channel_error_retry": True,
    }


_TASK_CONF: dict[str, Any] = {
    "accept_content": ["json"],
    "task_serializer": "json",
    "result_serializer": "json",
    "event_serializer": "json",
    "result_backend": None,
    "task_ignore_result": True,
    "task_store_errors_even_if_ignored": False,
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_create_missing_queues": False,
    "task_send_sent_event": False,
}

_WORKER_CONF: dict[str, Any] = {
    "worker_pool": POOL,
    "worker_consumer": CONSUMER,
    "worker_prefetch_multiplier": 1,
    "worker_send_task_events": True,
    "worker_enable_remote_control": True,
    "worker_disable_rate_limits": True,
    # A dropped connection must not cancel calls that are already paid for; leases fence the redelivered copies.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}


def _queues(names: Sequence[str]) -> list[Queue]:
    return [Queue(name, Exchange(name, type="direct"), routing_key=name) for name in names]


def make_app(
    redis_url: str, *, namespace: str, tiers: Sequence[str], slots: int = SLOTS, call_timeout_s: float = CALL_TIMEOUT_S
) -> Celery:
    """Build the app for the tiers of the registry; nothing is connected yet.

    `slots` is how many messages a worker holds at once unless its command line says otherwise.
    """
    names = queues_of(tiers)
    app = Celery("vessel", set_as_current=True)
    app.conf.update(_TASK_CONF | _WORKER_CONF | _broker_conf(redis_url, namespace, call_timeout_s))
    app.conf.update(
        worker_concurrency=slots,
        task_queues=_queues(names),
        task_default_queue=names[0],
        include=list(TASK_MODULES),
    )
    return app
