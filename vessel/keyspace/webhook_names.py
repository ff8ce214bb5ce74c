"""The names of what webhooks keep in Redis; `Keys` has them too."""

from __future__ import annotations

from abc import abstractmethod


class WebhookNames:
    """Names of deliveries, their lists and the secrets that sign them."""

    __slots__ = ()

    @abstractmethod
    def _key(self, *parts: str) -> str:
        """Put a name together."""

    def webhook(self, of: str) -> str:
        """Name the hash of the delivery that a job or batch has."""
        return self._key("webhook", of)

    @property
    def webhooks(self) -> str:
        """Name the sorted set of the webhooks to be delivered by when they are due."""
        return self._key("webhooks")

    @property
    def webhook_log(self) -> str:
        """Name the sorted set of all deliveries by when they came to be due."""
        return self._key("webhooks", "log")

    def webhook_secret(self, tenant: str) -> str:
        """Name the hash of the secrets that sign a tenant's webhooks."""
        return self._key("webhooks", "secret", tenant)
