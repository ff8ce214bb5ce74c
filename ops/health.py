"""Whether a container's process is well: exits 0 or 1. It uses little: it runs every few seconds.

health.py http PORT PATH     an answer below 400 (redirects are not followed)
health.py answers PORT PATH  an answer below 500: one that asks for a key or another method is a sign of life
health.py redis              Redis answers at VESSEL_REDIS_URL
health.py worker             this host's worker has told Redis lately that it is alive
health.py scheduler          this host's scheduler has
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

WITHIN_S = 5.0
SILENT_MS = 10_000
"""A worker's heartbeat comes every second or so."""


def _http(below: int, port: str, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=WITHIN_S)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status < below


def _client() -> redis.Redis:
    from vessel.keyspace.connect import connect
    from vessel.settings import load_settings

    url = load_settings().redis_url
    if url is None:
        raise OSError("VESSEL_REDIS_URL is not set")
    return connect(url)


def _redis() -> bool:
    with contextlib.closing(_client()) as client:
        return bool(client.ping())


def _namespace() -> str:
    return os.environ.get("VESSEL_NAMESPACE") or "vessel"


def _scheduler() -> bool:
    with contextlib.closing(_client()) as client:
        return bool(client.exists(f"{_namespace()}:release:scheduler@{socket.gethostname()}"))


def _worker() -> bool:
    from vessel.keyspace.script import word

    here, namespace = f"@{socket.gethostname()}:", _namespace()
    with contextlib.closing(_client()) as client:
        seconds, micros = client.time()
        since = seconds * 1000 + micros // 1000 - SILENT_MS
        workers = [word(name) for name in client.hkeys(f"{namespace}:slots")]
        return any(_tiers(client, namespace, name, since) for name in workers if here in name)


def _tiers(client: redis.Redis, namespace: str, worker: str, since: int) -> list[str]:
    from vessel.registry import load_registry
    from vessel.settings import load_settings

    known = load_registry(load_settings().registry).tiers
    scores = {tier: client.zscore(f"{namespace}:live:{tier}", worker) for tier in known}
    return [tier for tier, score in scores.items() if score is not None and score >= since]


def main(what: str, *arguments: str) -> int:
    """Look once."""
    looks: dict[str, Callable[..., bool]] = {
        "http": partial(_http, 400), "answers": partial(_http, 500), "redis": _redis, "worker": _worker,
        "scheduler": _scheduler,
    }  # fmt: skip
    try:
        return 0 if looks[what](*arguments) else 1
    except Exception as error:  # noqa: BLE001  whatever it is, the process is not well
        sys.stderr.write(f"{type(error).__name__}\n")  # no text: it may quote an address with its password
        return 1


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
