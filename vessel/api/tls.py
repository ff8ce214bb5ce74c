"""The certificate of the REST face, looked at before anything is started."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from vessel.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.settings import Settings

_CERT, _KEY = "VESSEL_API_TLS_CERT", "VESSEL_API_TLS_KEY"


def check_tls(settings: Settings) -> None:
    """Make sure that the certificate and its key can be served with. Raises SettingsError naming what to set right."""
    cert, key = settings.api_tls_cert, settings.api_tls_key
    if cert is None or key is None:
        return
    faults = [fault for name, path in ((_CERT, cert), (_KEY, key)) if (fault := _unreadable(name, path))]
    if not faults and (fault := _unusable(cert, key)):
        faults = [fault]
    if faults:
        raise SettingsError(faults)


def _unreadable(name: str, path: Path) -> str:
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return f"{name}: {path} cannot be read: {error.strerror or type(error).__name__}"


def _unusable(cert: Path, key: Path) -> str:
    asked: list[bool] = []

    def no_phrase() -> str:
        asked.append(True)
        return ""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cert)
    except (ssl.SSLError, OSError):
        return (
            f"{_CERT}: {cert} holds no certificate; a PEM file with the certificate, and its chain below it, is needed"
        )
    try:
        context.load_cert_chain(cert, key, no_phrase)
    except (ssl.SSLError, OSError) as error:
        if asked:
            return (
                f"{_KEY}: {key} is locked with a pass phrase, which nobody could type at a start; store it without one"
            )
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            return f"{_KEY}: {key} is not the key of the certificate in {cert}"
        return f"{_KEY}: {key} holds no private key; a PEM file is needed"
    return ""
