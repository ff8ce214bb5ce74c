"""The reads that watching is made of, each ready for either runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.errors import JobFailed
from vessel.keyspace.script import Call, command, pairs, timed, word, words
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.jobs.model import Job
    from vessel.keyspace.names import Keys

Event = tuple[str, dict[str, str]]
BLOCK_MS = 2000
"""How long a blocking read waits at the server; below every socket timeout."""


def read_streams(
    after: Mapping[str, str], *, block_ms: int = BLOCK_MS, most: int = 500
) -> Call[dict[str, list[Event]]]:
    """Wait for entries of streams, each after an id; streams without any are left out. 0 ms: do not wait."""

    def parse(raw: Any) -> dict[str, list[Event]]:
        streams = raw.items() if isinstance(raw, dict) else raw or ()
        return {word(name): events_in(rows) for name, rows in streams if rows}

    wait = ("BLOCK", block_ms) if block_ms > 0 else ()
    return command("XREAD", "COUNT", most, *wait, "STREAMS", *after, *after.values(), parse=parse)


def read_stream(stream: str, after: str, *, block_ms: int = BLOCK_MS) -> Call[list[Event]]:
    """Wait for entries of a stream after an id; an empty list when none came in time."""
    call = read_streams({stream: after}, block_ms=block_ms)
    return Call(call.command, lambda raw: call.parse(raw).get(stream, []))


def last_id(stream: str) -> Call[str]:
    """Ask for the id of a stream's last entry, `0` when it has none."""
    return command("XREVRANGE", stream, "+", "-", "COUNT", 1, parse=lambda raw: word(raw[0][0]) if raw else "0")


def events_of(keys: Keys, job_id: str) -> Call[list[Event]]:
    """Read a job's life so far, oldest first."""
    return command("XRANGE", keys.events(job_id), "-", "+", parse=events_in)


def jobs_page(keys: Keys, start: int, size: int, tenant: str) -> Call[list[tuple[str, int]]]:
    """Name a tenant's jobs by rank with their creation time, newest first; by rank, as many share a millisecond."""
    return command("ZRANGE", keys.own_index(tenant), start, start + size - 1, "REV", "WITHSCORES", parse=timed)


def jobs_since(keys: Keys, tenant: str, newest: int | None, skip: int, size: int) -> Call[list[tuple[str, int]]]:
    """Name a tenant's jobs with their creation time, newest first, from those of a millisecond on; `skip` so many."""
    begin: int | str = "+inf" if newest is None else newest
    return command("ZRANGE", keys.own_index(tenant), begin, "-inf", "BYSCORE", "REV", "LIMIT", skip, size, "WITHSCORES",
                   parse=timed)  # fmt: skip


def jobs_at(keys: Keys, tenant: str, created: int) -> Call[list[str]]:
    """Name a tenant's jobs of one millisecond, in the order of a listing."""
    return command("ZRANGE", keys.own_index(tenant), created, created, "BYSCORE", "REV",
                   parse=words)  # fmt: skip


def succeeded(job: Job) -> Job:
    """Return a job that succeeded; raise JobFailed, holding every attempt, for any other ending."""
    if job.state is JobState.SUCCEEDED:
        return job
    raise JobFailed(job.id, str(job.state), job.reason or str(job.state), job.message or "no reason was recorded",
                    job.attempts)  # fmt: skip


def order_of(event_id: str) -> tuple[int, int]:
    """Read an entry's id as what it is ordered by."""
    first, _, second = event_id.partition("-")
    return int(first), int(second or 0)


def events_in(rows: Any) -> list[Event]:
    """Read a stream's entries."""
    return [(word(i), {k: word(v) for k, v in pairs(fields).items()}) for i, fields in rows]
