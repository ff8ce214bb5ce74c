"""Settings that are good each by itself and cannot hold together."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vessel.settings.values import LOOPBACK, env_name

if TYPE_CHECKING:
    from vessel.settings import Settings


def contradictions(settings: Settings) -> list[str]:
    """List every contradiction between settings, each with what to do about it."""
    return [*_half_tls(settings), *_open_flower(settings), *_shared_ports(settings), *_failover_faults(settings)]


def _half_tls(settings: Settings) -> list[str]:
    half = (settings.api_tls_cert is None) != (settings.api_tls_key is None)
    return ["VESSEL_API_TLS_CERT and VESSEL_API_TLS_KEY: set both for TLS, or neither"] if half else []


def _open_flower(settings: Settings) -> list[str]:
    text = "VESSEL_FLOWER_HOST: off loopback Flower asks for a login; name its file in VESSEL_FLOWER_AUTH_FILE"
    return [] if settings.flower_host in LOOPBACK or settings.flower_auth_file else [text]


def _shared_ports(settings: Settings) -> list[str]:
    used: dict[int, list[str]] = {}
    for field in ("api_port", "mcp_port", "flower_port", "metrics_port"):
        used.setdefault(getattr(settings, field), []).append(env_name(field))
    return [
        f"{' and '.join(names)}: {port} can serve only one of them"
        for port, names in used.items()
        if port and len(names) > 1
    ]


def _failover_faults(settings: Settings) -> list[str]:
    faults = []
    if (settings.failover_price_input is None) != (settings.failover_price_output is None):
        faults.append("VESSEL_FAILOVER_PRICE_INPUT and VESSEL_FAILOVER_PRICE_OUTPUT: set both, or neither")
    if settings.failover_model is None:
        return faults
    if settings.openai_base_url is None:
        if settings.openai_api_key is None:
            faults.append("VESSEL_FAILOVER_MODEL: arms the failover, which needs OPENAI_API_KEY or an OPENAI_BASE_URL")
    elif _own_address(settings, settings.openai_base_url):
        faults.append("OPENAI_BASE_URL: is Vessel's own address; a failover would come back to where it started")
    return faults


def _own_address(settings: Settings, url: str) -> bool:
    """Tell whether an address is that of our own REST face, as far as that can be said without asking a resolver."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = (parts.hostname or "").rstrip(".")
    if port != settings.api_port:
        return False
    try:
        address = ip_address(host)
    except ValueError:
        return host in {*LOOPBACK, settings.api_host.lower(), socket.gethostname().lower()}
    return address.is_loopback or address.is_unspecified or host == settings.api_host
