"""Celery's consumer, sending its events in bundles and no password in its statistics."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery.worker.consumer import Consumer
from kombu.utils.url import maybe_sanitize_url

EVENTS_EVERY_S = 0.1


class BundlingConsumer(Consumer):
    """Publish task events a few times a second instead of at every turn of the hub: a third of a message's CPU."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[valid-type,misc]  # a variable in the stubs
        """Celery's steps."""

        def info(self, parent: Any) -> dict[str, Any]:
            """Mask the password of a unix socket's address, which kombu keeps in the host's name."""
            found: dict[str, Any] = super().info(parent)
            if isinstance(broker := found.get("broker"), dict):
                broker["hostname"] = maybe_sanitize_url(broker["hostname"])
            return found

    hub: Any
    connection_errors: tuple[type[BaseException], ...]
    _flush_events: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Start with nothing buffered."""
        self._flush_is_due = False
        super().__init__(*args, **kwargs)

    def on_send_event_buffered(self) -> Any:
        """Have the hub flush the buffer soon, once for all events until then."""
        if not self._flush_is_due and self.hub is not None:
            self._flush_is_due = True
            self.hub.call_later(EVENTS_EVERY_S, self._flush_bundle)

    def shutdown(self) -> None:
        """Send what the drain left in the buffer, then go."""
        with suppress(*self.connection_errors):
            self._flush_events()
        super().shutdown()

    def _flush_bundle(self) -> None:
        self._flush_is_due = False
        self._flush_events()
