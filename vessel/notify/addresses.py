"""Where webhooks may go: the form of an address, and which machines it may lead to.

The lists are the IANA special-purpose registries. `ipaddress.is_global` is not asked: what it says of mapped, 6to4 and
other ranges differs between the patch releases of Python that Vessel runs on.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vessel.errors import InvalidRequest

if TYPE_CHECKING:
    from urllib.parse import SplitResult

LONGEST = 2048
LONGEST_HOST = 253
PLAIN = {"http": 80, "https": 443}
PARAM = "vessel.webhook"

_NEVER = [ip_network(text) for text in (
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "168.63.129.16/32",  # Azure's host agent, on a public address
    "100.100.100.200/32", "fd00:ec2::/32",  # the metadata of Alibaba Cloud and AWS, on private ones
    "::/128", "fe80::/10", "ff00::/8",
)]  # fmt: skip
"""Link-local (cloud metadata), multicast, reserved and documentation addresses: no setting opens them."""

_PRIVATE = [ip_network(text) for text in (
    "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "::1/128",
    "fc00::/7",
)]  # fmt: skip
_GLOBAL = ip_network("2000::/3")
_NOT_GLOBAL = [ip_network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""The middle of an IPv6 address that holds an IPv4 one, whatever its prefix."""

_PORTS_OF_OTHERS = frozenset({
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
    111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532,
    540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3306, 3659, 4045, 4190, 5060,
    5061, 5432, 6000, 6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080, 11211, 27017,
})  # fmt: skip
"""The Fetch standard's bad ports and those of common databases: what speaks there may take a request for its own."""

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_QUAD = re.compile(r"(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}", re.ASCII)
_NUMERIC = re.compile(r"\d+|0[xX][0-9A-Fa-f]*", re.ASCII)


class InvalidWebhookUrl(InvalidRequest):
    """The address of the webhook cannot be used; nothing was accepted."""

    code = "invalid_webhook_url"


def may_go_to(address: IPv4Address | IPv6Address, *, allow_private: bool = False) -> bool:
    """Tell whether a webhook may be sent to a machine: one on the public internet, or a private one where allowed.

    An IPv6 address that stands for an IPv4 one (mapped, 6to4, NAT64, Teredo, ISATAP) is refused, whichever that is.
    """
    if any(address in network for network in _NEVER):
        return False
    if any(address in network for network in _PRIVATE):
        return allow_private
    if isinstance(address, IPv4Address):
        return True
    if address.scope_id is not None or address not in _GLOBAL:
        return False
    embeds = (int(address) >> 32) & 0xFFFFFFFF in _ISATAP
    return not embeds and not any(address in network for network in _NOT_GLOBAL)


def check_url(url: object, *, allow_private: bool = False, param: str = PARAM) -> str:
    """Check an address and return it in its plain form; names are not looked up yet. Raises InvalidWebhookUrl.

    What could be read in two ways (escapes, backslashes, numbers that are an IPv4 address in disguise) is refused.
    """
    if not isinstance(url, str) or not url or len(url) > LONGEST:
        raise _refused(f"it must be a text of at most {LONGEST} characters", param)
    if not re.fullmatch(r"[!-~]+", url) or re.search(r'[\\<>"^`{|}]', url):
        raise _refused(
            "it holds a character that an address may not hold as it is; write names as xn--... and escape the rest",
            param,
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("its host or port cannot be read", param) from None
    if parts.scheme not in PLAIN:
        raise _refused("it must begin with https:// or http://", param)
    if "@" in parts.netloc:
        raise _refused("it must hold no user name and password; receivers know Vessel by its signature", param)
    if port is not None and (port == 0 or port in _PORTS_OF_OTHERS):
        raise _refused(f"port {port} is not one where a web server listens", param)
    host = _host(parts, param, allow_private=allow_private)
    shown = "" if port in {None, PLAIN[parts.scheme]} else f":{port}"
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{host}{shown}{parts.path or '/'}{query}"


def _host(parts: SplitResult, param: str, *, allow_private: bool) -> str:
    if "%" in parts.netloc:
        raise _refused("its host must not be escaped, and an IPv6 address has no zone", param)
    bracketed = parts.netloc.startswith("[")
    host = (parts.hostname or "").lower()
    if bracketed or _QUAD.fullmatch(host.removesuffix(".")):
        return _literal(host.removesuffix("."), param, allow_private=allow_private)
    host = host.removesuffix(".")
    labels = host.split(".")
    if not host or len(host) > LONGEST_HOST or not all(map(_LABEL.fullmatch, labels)):
        raise _refused("it has no valid host name", param)
    if _NUMERIC.fullmatch(labels[-1]):
        raise _refused("write an IPv4 address as four decimal numbers, as in 192.0.2.1", param)
    if labels[-1] == "localhost" and not allow_private:
        raise _refused(_PRIVATE_TEXT, param)
    return host


_PRIVATE_TEXT = (
    "it leads to a private, loopback or otherwise special address; VESSEL_WEBHOOK_ALLOW_PRIVATE=on allows private ones"
)


def _literal(host: str, param: str, *, allow_private: bool) -> str:
    try:
        address = ip_address(host)
    except ValueError:
        raise _refused("its host is no valid address", param) from None
    if not may_go_to(address, allow_private=allow_private):
        raise _refused(_PRIVATE_TEXT, param)
    return f"[{address}]" if address.version == 6 else str(address)  # noqa: PLR2004  IPv6


def _refused(why: str, param: str) -> InvalidWebhookUrl:
    return InvalidWebhookUrl(f"{param}: {why}. Nothing was accepted.", param=param)


def shown(url: str) -> str:
    """Return an address as it may be shown and logged: without its query, which may hold a token."""
    plain, asks, _ = url.partition("?")
    return f"{plain}?..." if asks else plain
