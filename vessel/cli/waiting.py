"""Waiting for jobs, and telling on standard error what holds those that do not end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from vessel.cli import times
from vessel.cli.output import complain
from vessel.errors import JobNotFound, WaitTimeout
from vessel.keyspace.server import clock
from vessel.watch.waiting import Why

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from vessel.client import GroqClient, JobFailed, Result, Waiting

FIRST_LOOK_S, LOOK_S = 1.5, 15.0
"""When it is first told why jobs wait, and how often it is looked whether that has changed."""

LOOKED_AT = 10
"""Of how many jobs the reason is asked at a look."""

SOON_S = 5.0
_PASSING = frozenset({Why.TURN, Why.TICKET, Why.BOOKED})
"""A job that waits for them runs within seconds."""

_TIMED = frozenset({Why.QUOTA, Why.RETRY, Why.RETRY_AFTER})


def endings(client: GroqClient, ids: Iterable[str], timeout_s: float | None) -> Iterator[Result | JobFailed]:
    """Yield each job's ending as it comes; what holds the others is told on standard error, once for each reason.

    Raises JobNotFound, WaitTimeout.
    """
    left = dict.fromkeys(ids)
    size = len(left)
    until = math.inf if timeout_s is None else time.monotonic() + timeout_s
    pause_s, told = FIRST_LOOK_S, set[str]()
    while left:
        try:
            for ended in client.wait(list(left), max(0.001, min(pause_s, until - time.monotonic()))):
                left.pop(ended.job_id)
                yield ended
        except WaitTimeout:
            if time.monotonic() >= until:
                raise WaitTimeout(_late(list(left), size, timeout_s or 0)) from None
            pause_s, told = LOOK_S, _tell(client, left, told)


def _tell(client: GroqClient, left: Iterable[str], told: set[str]) -> set[str]:
    """Tell why the first of these jobs wait, as far as that is new; returns what holds them now."""
    open_ids, now = list(left), client.runner.run(clock())
    found: dict[str, list[Waiting]] = {}
    for job_id in open_ids[:LOOKED_AT]:
        waiting = _worth_telling(client, job_id, now)
        if waiting is not None:
            # How many are before it changes all the time.
            reason = waiting.why if waiting.why is Why.QUOTA else waiting.detail
            found.setdefault(reason, []).append(waiting)
    for reason, held in found.items():
        if reason not in told:
            complain(f"{_who(open_ids, len(held))}: {waiting_line(held[0], now)}.")
    return set(found)


def _worth_telling(client: GroqClient, job_id: str, now: int) -> Waiting | None:
    try:
        waiting = client.waiting(job_id)
    except JobNotFound:
        return None
    if waiting is None or waiting.why in _PASSING:
        return None
    soon = waiting.why in _TIMED and waiting.until is not None and waiting.until - now < SOON_S * 1000
    return None if soon else waiting


def _late(open_ids: list[str], size: int, timeout_s: float) -> str:
    if size == 1:
        return (
            f"Job {open_ids[0]} did not end within {timeout_s:g} s; it goes on. `vessel wait {open_ids[0]}` waits "
            "again, `vessel job` with its id says what it waits for."
        )
    return (
        f"{len(open_ids)} of {size} jobs did not end within {timeout_s:g} s; they go on. Ask again with `vessel wait`."
    )


def _who(open_ids: list[str], held: int) -> str:
    if len(open_ids) == 1:
        return f"Job {open_ids[0]} waits"
    among = f" of the first {LOOKED_AT}" if len(open_ids) > LOOKED_AT else ""
    return f"{held}{among} of {len(open_ids):,} jobs {'waits' if held == 1 else 'wait'}"


def waiting_line(waiting: Waiting, now_ms: int) -> str:
    """Say why a job waits and, as far as that is known, until when."""
    if waiting.until is None:
        return waiting.detail
    if waiting.estimated:
        return f"{waiting.detail}; about {times.span((waiting.until - now_ms) / 1000)}"
    return f"{waiting.detail}; until {times.until(waiting.until, now_ms)}"
