"""What a Redis server says about itself: its clock, version, persistence, memory, replication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vessel.keyspace.script import Call, command, word


@dataclass(frozen=True, slots=True)
class Server:
    """A server as INFO tells it; a field that it does not tell (no right, other product) reads as empty or 0."""

    fields: Mapping[str, str]

    def text(self, name: str) -> str:
        """Return a field, empty where there is none."""
        return self.fields.get(name, "")

    def number(self, name: str) -> int:
        """Return a field as a whole number, 0 where there is none."""
        value = self.text(name)
        return int(value) if value.lstrip("-").isdecimal() else 0

    @property
    def product(self) -> str:
        """Name the product and its version."""
        if self.text("server_name").lower() == "valkey" or self.text("valkey_version"):
            return f"Valkey {self.text('valkey_version')}"
        return f"Redis {self.text('redis_version') or 'of unknown version'}"

    @property
    def version(self) -> tuple[int, ...]:
        """Return the version of Redis whose commands it has; Valkey tells one as well. Empty where it tells none."""
        return tuple(int(part) for part in self.text("redis_version").split(".") if part.isdecimal())

    @property
    def appends(self) -> bool:
        """Tell whether every write goes to an append-only file."""
        return self.text("aof_enabled") == "1"

    @property
    def writes_fail(self) -> str:
        """Name what the last write to disk failed at; empty where nothing did."""
        failed = [
            name
            for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
            if self.text(name) not in {"", "ok"}
        ]
        return ", ".join(failed)

    @property
    def memory_part(self) -> float | None:
        """Return the part of `maxmemory` that is used; None where there is no bound."""
        bound = self.number("maxmemory")
        return self.number("used_memory") / bound if bound else None


def info() -> Call[Server]:
    """Ask the server about itself. An ACL user needs `+info` for it."""
    return command("INFO", parse=_server)


def configured(name: str) -> Call[str]:
    """Read one setting of the server; empty where it has none. An ACL user needs `+config|get` for it."""
    return command("CONFIG", "GET", name, parse=_setting)


def clock() -> Call[int]:
    """Ask for the time in epoch milliseconds, by the only clock of jobs and gates."""
    return command("TIME", parse=lambda raw: int(raw[0]) * 1000 + int(raw[1]) // 1000)


def _server(raw: Any) -> Server:
    if isinstance(raw, Mapping):  # as redis-py's own callback reads it
        return Server({str(name): _plain(value) for name, value in raw.items()})
    lines = (line.partition(":") for line in word(raw).splitlines() if line and not line.startswith("#"))
    return Server({name: value for name, _, value in lines})


def _plain(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _setting(raw: Any) -> str:
    values = list(raw.values()) if isinstance(raw, Mapping) else list(raw or [])[1:2]
    return _plain(values[0]) if values else ""
