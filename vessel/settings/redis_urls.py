"""Addresses of Redis: which ones are taken, and what a `sentinel://` one, which redis-py cannot read, says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

REDIS_SCHEMES = ("redis", "rediss", "unix", "sentinel")
SENTINEL = "sentinel://"

_SENTINEL_PORT = 26379
_MOST = 65535
_NODE = re.compile(r"(?:\[(?P<ip>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\],]+))(?::(?P<port>\d{1,5}))?")
_WHOLE = frozenset(
    {"db", "max_connections", "health_check_interval", "socket_read_size", "protocol", "ssl_min_version"}
)
_DECIMAL = frozenset({"socket_timeout", "socket_connect_timeout"})


@dataclass(frozen=True, slots=True)
class Sentinels:
    """What a `sentinel://` address names: the sentinels, and how the primary that they know is opened."""

    nodes: tuple[tuple[str, int], ...]
    master: str
    database: int
    username: str | None
    password: str | None = field(repr=False)


def sentinels_of(url: str) -> Sentinels:
    """Read `sentinel://user:password@host:port,host:port/master/database`. Raises ValueError with the rule."""
    if "?" in url:
        raise ValueError("takes no options after a '?' in a sentinel:// address")
    place, _, path = url.removeprefix(SENTINEL).partition("/")
    credentials, _, hosts = place.rpartition("@")
    user, _, password = (unquote(part) for part in credentials.partition(":"))
    master, _, database = path.strip("/").partition("/")
    if database and not database.isdecimal():
        raise ValueError("names the database by a number: sentinel://host:26379/mymaster/0")
    nodes = tuple(_node(host, "sentinel", _SENTINEL_PORT) for host in hosts.split(","))
    return Sentinels(nodes, unquote(master) or "mymaster", int(database or 0), user or None, password or None)


def _node(text: str, scheme: str, port: int) -> tuple[str, int]:
    found = _NODE.fullmatch(text)
    if not found or not 0 < int(found["port"] or port) <= _MOST:
        raise ValueError(f"needs a host and a numeric port, at most {_MOST}: {scheme}://host:{port}/0")
    return found["ip"] or found["host"], int(found["port"] or port)


def checked_redis_url(value: str) -> str:
    """Check the scheme and the shape; the address itself is tried when it is first used. Raises ValueError."""
    value = redis_url_named(value.strip())
    scheme = value.partition(":")[0]
    if scheme not in REDIS_SCHEMES:
        raise ValueError(_scheme_fault(scheme.lower()))
    if scheme == "sentinel":
        sentinels_of(value)
        return value
    try:
        parts = urlsplit(value)
    except ValueError:  # its text quotes what may be half of a password
        raise ValueError(f"needs a host and a numeric port: {scheme}://host:6379/0") from None
    _check_options(parts.query)
    if scheme == "unix":
        if not parts.path.startswith("/"):
            raise ValueError("needs an absolute path: unix:///run/redis/redis.sock")
        return value
    _node(parts.netloc.rpartition("@")[2], scheme, 6379)
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        raise ValueError(f"names the database by a number: {scheme}://host:6379/0")
    return value


def _check_options(query: str) -> None:
    for name, text in parse_qsl(query):
        if name in _WHOLE and not text.isdecimal():
            raise ValueError(f"needs a whole number as {name} after its '?'")
        if name in _DECIMAL and not re.fullmatch(r"\d+(\.\d*)?", text):
            raise ValueError(f"needs a number of seconds as {name} after its '?'")


def redis_url_named(value: str) -> str:
    """Read what a `file:` address names, so that a password in it need not be in the environment."""
    try:
        return Path(urlsplit(value).path).read_text("utf-8").strip() if value.startswith("file:") else value
    except (OSError, ValueError):
        raise ValueError("names a file that cannot be read; it holds the address, alone") from None


def _scheme_fault(scheme: str) -> str:
    if "cluster" in scheme:
        return "cannot be a Redis Cluster: a job's script touches keys of several slots; use one server or sentinel://"
    meant = {"valkey": "redis", "valkeys": "rediss", "redis+socket": "unix", "redis+unix": "unix", "tcp": "redis"}
    close = meant.get(scheme) or next(iter(get_close_matches(scheme, REDIS_SCHEMES, 1)), None)
    suggestion = f"; did you mean {close}://?" if close else ""
    return f"must start with redis://, rediss://, unix:// or sentinel://{suggestion}"
