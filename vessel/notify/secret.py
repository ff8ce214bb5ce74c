"""Signing by Standard Webhooks, and secrets that were set instead of made."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from standardwebhooks import Webhook

from vessel.errors import SettingsError
from vessel.settings.values import WEBHOOK_SECRET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.settings import Settings

LARGEST_FILE = 4096


def configured(settings: Settings) -> tuple[str, ...]:
    """Return the secrets that were set, the file's read now; none where each tenant has its own.

    Raises SettingsError for a file that cannot be read or holds something else; its text shows no secret.
    """
    if settings.webhook_secret_file is None:
        given = settings.webhook_secret
        return tuple(given.get_secret_value().split()) if given else ()
    try:
        with settings.webhook_secret_file.open("rb") as file:
            found = file.read(LARGEST_FILE).decode("ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no ASCII text"
        raise SettingsError([f"VESSEL_WEBHOOK_SECRET_FILE: the file cannot be read: {why}"]) from None
    if not found or not all(map(WEBHOOK_SECRET.fullmatch, found)):
        raise SettingsError(["VESSEL_WEBHOOK_SECRET_FILE: must hold whsec_ and 24 to 64 bytes in base64"])
    return tuple(found)


def headers(secrets: Sequence[str], message_id: str, now_ms: int, payload: bytes) -> dict[str, str]:
    """Sign a message with every secret, as of a time of Redis' clock; receivers refuse one that is minutes off."""
    at = datetime.fromtimestamp(now_ms // 1000, UTC)
    signed = [Webhook(secret).sign(message_id, at, payload.decode()) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(now_ms // 1000),
        "webhook-signature": " ".join(signed),
    }
