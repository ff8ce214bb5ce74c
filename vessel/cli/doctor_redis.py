"""What `vessel doctor` looks at in Redis: version, persistence, memory, replication, clock."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vessel.cli.doctor_findings import error, note, warning
from vessel.errors import RedisRefused
from vessel.keyspace.server import clock, configured, info
from vessel.settings.values import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vessel.cli.check_cures import Cures
    from vessel.cli.doctor_findings import Finding
    from vessel.keyspace.connect import SyncRunner
    from vessel.keyspace.server import Server

OLDEST, TESTED = (6, 2), (7, 0)
"""ZRANGE BYSCORE and its like came with 6.2; the tests run on 7.0 and on Valkey."""
HEADROOM = 0.8
"""The part of maxmemory that may be used: a fifth is kept for results and acknowledgements (reliability facts 2)."""
NEARLY_FULL = 0.95
CLIENTS_PART = 0.8
DRIFT_MS, DRIFT_FAR_MS = 2_000, 60_000
SAMPLES = 5
SCRIPTS_MANY = 1000


def of_redis(runner: SyncRunner, url: str, cures: Cures) -> Iterator[Finding]:
    """Look at the server. Raises RedisUnreachable."""
    try:
        server = runner.run(info())
    except RedisRefused:
        yield error(
            "redis_hidden",
            "Redis does not let its user run INFO",
            "whether it keeps what it accepts cannot be seen",
            cures.redis_user(),
        )
        return
    fsync, least = _setting(runner, "appendfsync"), _setting(runner, "min-replicas-to-write")
    yield from of_server(server, fsync, least, local=_is_local(url), cures=cures)
    yield from _of_clock(runner)


def of_server(server: Server, fsync: str, least_replicas: str, *, local: bool, cures: Cures) -> Iterator[Finding]:
    """Look at what a server says of itself; `local`: it runs on this machine."""
    yield from _of_version(server, cures)
    yield from _of_persistence(server, fsync, cures)
    yield from _of_memory(server, cures, local=local)
    yield from _of_replication(server, least_replicas, cures)
    yield from _of_clients(server, cures)


def _of_version(server: Server, cures: Cures) -> Iterator[Finding]:
    told = server.product
    if server.version and server.version[:2] < OLDEST:
        yield error(
            "redis_too_old",
            f"{told} is too old",
            "scripts use commands that came with Redis 6.2",
            "install Redis 7 or Valkey 8 or newer",
        )
    elif server.version and server.version[:2] < TESTED:
        yield warning(
            "redis_not_tested",
            f"{told} is older than what Vessel is tested with (7.0)",
            "it should work; nobody has shown it",
            "install Redis 7 or Valkey 8 or newer",
        )
    if server.number("number_of_cached_scripts") > SCRIPTS_MANY:
        yield warning(
            "scripts_unknown",
            f"Redis holds {server.number('number_of_cached_scripts')} scripts; ours are fewer than 100",
            "another program makes scripts up as it goes, which fills memory for good",
            f"find who sends EVAL: {cures.redis_cli('INFO commandstats')}; {cures.redis_scripts()}",
        )


def _of_persistence(server: Server, fsync: str, cures: Cures) -> Iterator[Finding]:
    if server.text("loading") == "1":
        yield warning(
            "redis_loading",
            "Redis is still reading its file",
            "it answers nothing until it is done",
            f"wait; {cures.redis_cli('INFO persistence')} tells how far it is",
        )
    if not server.appends:
        yield error(
            "redis_not_persistent",
            "Redis keeps no append-only file",
            "a crash or power cut loses every job since its last snapshot, if it makes any",
            cures.redis_setting("appendonly", "yes"),
        )
    elif fsync == "no":
        yield warning(
            "redis_fsync_off",
            "Redis leaves it to the kernel when its file is on disk (appendfsync no)",
            "a power cut loses half a minute of accepted jobs",
            cures.redis_setting("appendfsync", "everysec"),
        )
    if server.writes_fail:
        yield error(
            "redis_write_failed",
            f"Redis failed at writing to disk ({server.writes_fail})",
            "it refuses all writes until one is done",
            f"`df -h`; free space on its disk; then {cures.redis_cli('BGREWRITEAOF')}",
        )


def _of_memory(server: Server, cures: Cures, *, local: bool) -> Iterator[Finding]:
    policy, bound, used = server.text("maxmemory_policy"), server.number("maxmemory"), server.number("used_memory")
    mend = cures.redis_setting("maxmemory-policy", "noeviction")
    if policy and policy != "noeviction":
        tell = error if bound else warning
        yield tell(
            "redis_evicts",
            f"Redis is set to throw keys away when it is full ({policy})",
            "jobs, batches and the ledger are what it would throw away",
            mend,
        )
    if server.number("evicted_keys"):
        yield error(
            "redis_has_evicted",
            f"Redis has thrown {server.number('evicted_keys')} keys away since its start",
            "jobs or results among them are lost: what was accepted is not there any more",
            f"{mend}; then compare `{cures.program} jobs` and `{cures.program} usage` with what was sent",
        )
    whole = server.number("total_system_memory")
    if not bound:
        share = f"{whole * 6 // 10 >> 20}mb" if whole else "2gb"
        yield note(
            "redis_unbounded",
            "Redis has no maxmemory",
            "the kernel ends it when the machine is full, instead of it refusing new jobs while results still fit",
            cures.redis_setting("maxmemory", share),
        )
    elif used > bound * HEADROOM:
        tell = error if used > bound * NEARLY_FULL else warning
        yield tell(
            "redis_memory_low",
            f"Redis uses {used * 100 // bound} % of its memory ({used >> 20} of {bound >> 20} MiB)",
            "a fifth is to stay free for results of calls that are under way",
            f"ops/runbooks/redis-full.md: {cures.redis_setting('maxmemory', '<more>')}; or lower VESSEL_RESULT_TTL",
        )
    if local and (free := _memory_available_kib()) is not None and whole and free << 10 < whole // 10:
        yield warning(
            "memory_low",
            f"{free >> 10} MiB of memory are free on this machine, where Redis runs",
            "rewriting its file takes as much again as what changes meanwhile",
            "`ps aux --sort=-rss | head` names what holds it",
        )


def _of_replication(server: Server, least: str, cures: Cures) -> Iterator[Finding]:
    if server.text("role") in {"slave", "replica"}:
        yield error(
            "redis_is_replica",
            "VESSEL_REDIS_URL names a replica",
            "it takes no writes",
            "name the primary, or the sentinels: sentinel://host1,host2/mymaster",
        )
    elif server.number("connected_slaves") and least in {"", "0"}:
        yield note(
            "redis_replicas_unbound",
            "Redis has replicas, and takes writes without them (min-replicas-to-write 0)",
            "after a failover what the old primary took alone is gone",
            cures.redis_setting("min-replicas-to-write", "1"),
        )


def _of_clients(server: Server, cures: Cures) -> Iterator[Finding]:
    most, now = server.number("maxclients"), server.number("connected_clients")
    if most and now > most * CLIENTS_PART:
        yield warning(
            "redis_clients",
            f"{now} of {most} connections to Redis are used",
            "the next program is refused",
            f"{cures.redis_cli('INFO clients')}; {cures.redis_setting('maxclients', '20000')}",
        )


def _of_clock(runner: SyncRunner) -> Iterator[Finding]:
    """Compare clocks by the fastest of a few looks, whose error is at most half its time."""
    looks = []
    for _ in range(SAMPLES):
        before = time.time()
        there = runner.run(clock())
        after = time.time()
        looks.append((after - before, there - (before + after) * 500))
    drift = min(looks)[1]
    if abs(drift) < DRIFT_MS:
        return
    tell = error if abs(drift) > DRIFT_FAR_MS else warning
    behind = "behind" if drift > 0 else "ahead of"
    yield tell(
        "clock_drift",
        f"This machine's clock is {abs(drift) / 1000:.1f} s {behind} that of Redis",
        "jobs go by Redis' clock, but webhooks are signed and models retired by this one",
        "`timedatectl set-ntp true`, then `timedatectl status`",
    )


def _setting(runner: SyncRunner, name: str) -> str:
    try:
        return runner.run(configured(name))
    except RedisRefused:
        return ""


def _is_local(url: str) -> bool:
    return url.startswith("unix:") or (urlsplit(url).hostname or "") in LOOPBACK


def _memory_available_kib() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123  no path of ours
            return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
