"""How long a model's answers to a kind of work were, and the output bound that follows where the caller set none.

Groq charges the bound at admission (groq-facts 2), so a tighter one lets more calls start at once. But a bound that is
too tight cuts an answer that would have fitted the default, so history only speaks where it says enough:

- it is kept by the task type the caller named, since texts that nobody described say nothing about the next one, and
  apart for JSON and for function tools; not for `general`, nor for high reasoning effort, which may take any length;
- only answers without a bound of the caller's own teach, as his bound shows what he wanted, not what is needed;
- the bound is four times the longest answer remembered, not a quantile of them: a quantile cuts by its definition,
  while what is four times longer than everything before it is another kind of work than its name says;
- an answer that was cut counts as longer than every bound, so the default holds again until it is forgotten.

A learned bound never is above the default: what is said about a job before a worker plans it (the cost cap's check,
`vessel route`, the backlog's pace) is counted with the default and has to stay true.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vessel.keyspace.script import Call, command, load, pairs
from vessel.wire import TaskType

if TYPE_CHECKING:
    from vessel.wire import ChatRequest, Policy

Histogram = Mapping[int, float]
"""Answers by bucket; bucket `b` holds lengths up to 2^(b/2) tokens."""

SHAPES = ("text", "json", "tools")
KINDS = frozenset(f"{task}.{shape}" for task in TaskType if task is not TaskType.GENERAL for shape in SHAPES)
"""The kinds of work a history is kept of."""

LEAST_CAP = 256
LEAST_ANSWERS = 200
MARGIN = 4
LAST_BUCKET = 40
"""A million tokens, more than any model answers with."""

HALVED_AT = 2000
FORGOTTEN_BELOW = 0.2
"""Counts are halved at every two thousand answers; a single one is forgotten at the third time."""

TTL_MS = 30 * 86_400_000


def kind_of(request: ChatRequest, policy: Policy) -> str | None:
    """Name the kind of work a request is, one of KINDS; None where no history is kept."""
    if policy.task_type is None or request.reasoning_effort == "high":
        return None
    shape = (
        "tools" if request.tools else "json" if (request.response_format or {}).get("type", "text") != "text" else ""
    )
    kind = f"{policy.task_type}.{shape or 'text'}"
    return kind if kind in KINDS else None


def bucket_of(tokens: int) -> int:
    """Return the bucket of a length."""
    return min(LAST_BUCKET, math.ceil(2 * math.log2(tokens))) if tokens > 1 else 0


def longest(histogram: Histogram) -> int:
    """Return the length that no answer remembered is above, in tokens; 0 where there is none."""
    buckets = [bucket for bucket, count in histogram.items() if count > 0]
    return math.ceil(2 ** (max(buckets) / 2)) if buckets else 0


def learned_cap(histogram: Histogram, default: int) -> int | None:
    """Return the output bound that a history speaks for, below the default; None where the default is to hold."""
    if sum(histogram.values()) < LEAST_ANSWERS:
        return None
    cap = max(LEAST_CAP, MARGIN * longest(histogram))
    return cap if cap < default else None


def observe(key: str, kind: str, tokens: int) -> Call[float]:
    """Count an answer of so many tokens in a model's history; answers how many were counted since the last halving."""
    args: dict[str, str | int | float] = {
        "kind": kind,
        "bucket": bucket_of(tokens),
        "last_bucket": LAST_BUCKET,
        "halved_at": HALVED_AT,
        "forgotten_below": FORGOTTEN_BELOW,
        "ttl_ms": TTL_MS,
    }
    return load("observe_output").call({"output": key}, args, float)


def read_history(key: str) -> Call[dict[str, dict[int, float]]]:
    """Read a model's histories by kind; nothing is there before the first answer."""
    return command("HGETALL", key, parse=lambda raw: _by_kind(pairs(raw)))


def _by_kind(record: Mapping[str, bytes]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for name, value in record.items():
        kind, _, bucket = name.partition("|")
        if kind in KINDS and bucket.isdigit():
            found.setdefault(kind, {})[int(bucket)] = float(value)
    return found
