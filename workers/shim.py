"""Two corrections to kombu 5.7.0's Redis transport; a test fails when the versions change.

- Outage: Celery 5.7.0 closes the broker connection a second time after `collect()` has taken its client away
  (https://github.com/celery/celery/pull/10242). With late-acknowledged work in flight, kombu then asks the missing
  client for its address, and the AttributeError, no connection error, ends the worker. Each channel's last client is
  remembered and lent while a pool is built.
- Cost: kombu builds a new redis-py client for every command, a quarter of a message's CPU. One per channel is kept.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import wraps
from importlib.metadata import version
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from kombu.transport import redis as transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AFFECTED = ("5.7.0", "5.7.0")
"""The versions of celery and kombu that have both faults."""


def affected() -> bool:
    """Tell whether the installed versions have the faults."""
    return (version("celery"), version("kombu")) == AFFECTED


def _lending(get_pool: Callable[[Any, bool], Any]) -> Callable[..., Any]:
    @wraps(get_pool)
    def lent(channel: Any, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002  kombu's own signature
        held = channel.connection
        if getattr(held, "client", None) is not None:
            channel.vessel_last = SimpleNamespace(client=held.client, default_port=held.default_port)
            return get_pool(channel, asynchronous)
        channel.connection = getattr(channel, "vessel_last", held)
        try:
            return get_pool(channel, asynchronous)
        finally:
            channel.connection = held

    lent.vessel_shim = True  # type: ignore[attr-defined]  # our mark on it
    return lent


@contextmanager
def _kept_client(channel: Any, client: Any = None) -> Iterator[Any]:
    if client is None:
        client = getattr(channel, "vessel_client", None)
        # The pool is dropped when a connection fails; its clients go with it.
        if client is None or client.connection_pool is not channel.pool:
            client = channel.vessel_client = channel._create_client()  # noqa: SLF001  the method it replaces does so
    yield client


def install() -> bool:
    """Patch kombu's Redis channels where it is needed, once; tell whether the patch is in place."""
    if not affected():
        return False
    channels: tuple[Any, ...] = (transport.Channel, transport.SentinelChannel)
    for channel in channels:
        if not hasattr(channel._get_pool, "vessel_shim"):  # noqa: SLF001  nothing public builds the pool
            channel._get_pool = _lending(channel._get_pool)  # noqa: SLF001  as above
    channels[0].conn_or_acquire = _kept_client
    return True
