"""How long every key lives: the families of keys by their names behind the namespace."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Life(StrEnum):
    """When a key goes away."""

    PERMANENT = "permanent"
    WITH_JOB = "with its job"  # none while the job is open, VESSEL_RESULT_TTL from its end
    TIMED = "timed"  # has a time to live from its first write on


@dataclass(frozen=True, slots=True)
class KeyClass:
    """A family of keys: the names it has behind the namespace, its life, and what bounds it."""

    pattern: str
    life: Life
    note: str


TTL_CLASSES: dict[str, KeyClass] = {
    "events": KeyClass(r"job:[^:]+:events", Life.WITH_JOB, "stream of a job's transitions, the last 200 or so"),
    "tokens": KeyClass(
        r"job:[^:]+:tokens", Life.WITH_JOB, "stream of an answer's pieces as they came, the last 70,000 or so batches"
    ),
    "job": KeyClass(r"job:[^:]+", Life.WITH_JOB, "hash, the truth about a job"),
    "idempotency": KeyClass(r"idem:.+", Life.WITH_JOB, "string: id and body hash of the job that took the key"),
    "file": KeyClass(
        r"files?:.+", Life.TIMED, "a stored file, its chunks, and a tenant's list of them; 30 days or longer"
    ),
    "batch": KeyClass(
        r"batch(es)?:.+",
        Life.TIMED,
        "a batch, its index and lists, and a tenant's list: its window and VESSEL_RESULT_TTL",
    ),
    "open_batches": KeyClass(r"batches", Life.PERMANENT, "sorted set, one entry per open batch, by its window's end"),
    "gate": KeyClass(
        r"gate:.+", Life.TIMED, "two days: a model's buckets, what was learned, its breaker, its bookings"
    ),
    "inflight": KeyClass(r"inflight:.+", Life.TIMED, "two days; an entry ends with its call's deadline"),
    "output": KeyClass(
        r"output:.+", Life.TIMED, "30 days from its last answer: how long a model's answers were, by kind"
    ),
    "fed": KeyClass(r"fed:.+", Life.TIMED, "one minute from the last ticket that was fed"),
    "backlog": KeyClass(
        r"backlog(:.+)?", Life.PERMANENT, "set of groups, and sorted sets of jobs that have no ticket yet"
    ),
    "maintenance": KeyClass(r"maintenance", Life.PERMANENT, "one hash, a field for all or each tier in maintenance"),
    "budget": KeyClass(r"budget:.+", Life.PERMANENT, "one hash a tenant: its caps, and what is spent or reserved"),
    "budgets": KeyClass(r"budgets", Life.PERMANENT, "set of the tenants that have a cap, `*` for all"),
    "spend_events": KeyClass(r"budgets:events", Life.PERMANENT, "stream of caps nearly used or used, the last 1,000"),
    "live": KeyClass(r"live:.+", Life.TIMED, "one minute"),
    "slots": KeyClass(r"slots", Life.TIMED, "one minute; job slots of each live worker"),
    "release": KeyClass(r"release:.+", Life.TIMED, "one minute; string, the release that a live worker is of"),
    "reply": KeyClass(r"reply:.+", Life.TIMED, "one hour from its last entry"),
    "restoring": KeyClass(r"restoring", Life.PERMANENT, "string, from the beginning of a restore to its end"),
    "role": KeyClass(r"role:.+", Life.TIMED, "the length of the role's lease"),
    "sweep": KeyClass(r"sweep", Life.TIMED, "one day"),
    "index": KeyClass(r"jobs", Life.PERMANENT, "sorted set, trimmed to VESSEL_RESULT_TTL by the sweep"),
    "own_index": KeyClass(
        r"jobs:.+", Life.PERMANENT, "sorted set of a tenant's jobs, trimmed to VESSEL_RESULT_TTL by the sweep"
    ),
    "tenants": KeyClass(r"tenants", Life.PERMANENT, "set of the tenants that have jobs"),
    "failures": KeyClass(
        r"failures:.+", Life.TIMED, "sorted set, a tenant's last 100 jobs without a result; VESSEL_RESULT_TTL"
    ),
    "leases": KeyClass(r"leases", Life.PERMANENT, "sorted set, one entry per running job"),
    "parked": KeyClass(r"parked", Life.PERMANENT, "sorted set, one entry per parked job"),
    "deadlines": KeyClass(r"deadlines", Life.PERMANENT, "sorted set, one entry per open job with a deadline"),
    "tickets": KeyClass(r"tickets:.+", Life.PERMANENT, "sorted set, one entry per unclaimed ticket of a queue"),
    "ledger": KeyClass(r"ledger", Life.PERMANENT, "stream of charged calls, trimmed to VESSEL_LEDGER_RETENTION"),
    "ledger_log": KeyClass(r"ledger:log", Life.PERMANENT, "one hash: how far the usage log and trimming have come"),
    "sums": KeyClass(r"ledger:(sums|tags)", Life.PERMANENT, "hash of the ledger's sums, of the last two hours or so"),
    "day_sums": KeyClass(r"ledger:(day|hours|tags):\d+", Life.TIMED, "sums of a day; ten years, or as its entries"),
    "tally": KeyClass(r"tally", Life.PERMANENT, "one hash: sums of the ledger for metrics, by model and outcome"),
    "refusals": KeyClass(
        r"refusals", Life.TIMED, "one hash: what was refused in each of the last 24 hours; a day from the last"
    ),
    "models": KeyClass(r"models", Life.PERMANENT, "one hash"),
    "api_keys": KeyClass(
        r"apikeys", Life.PERMANENT, "one hash, a field per API key: what it may do, its secret hashed"
    ),
    "webhook": KeyClass(r"webhook:.+", Life.TIMED, "hash, a delivery: with its job or batch, a week at least"),
    "webhooks": KeyClass(r"webhooks", Life.PERMANENT, "sorted set, one entry per webhook that is to be delivered"),
    "webhook_log": KeyClass(r"webhooks:log", Life.TIMED, "30 days from the last one; the last 100,000 deliveries"),
    "webhook_secret": KeyClass(r"webhooks:secret:.+", Life.PERMANENT, "hash, a tenant's signing secrets"),
    "repeat": KeyClass(r"repeat:.+", Life.TIMED, "15 minutes; a POST's jobs, for an SDK that repeats it"),
    "quota": KeyClass(r"quota:.+", Life.TIMED, "two windows of the quota; written by `limits`"),
    "kombu": KeyClass(r"unacked(_index|_mutex)?|_kombu\..+", Life.PERMANENT, "Celery's own bookkeeping"),
    "queue": KeyClass(r"[a-z0-9_-]+(\.batch)?", Life.PERMANENT, "Celery's list of tickets, one per tier and lane"),
}
"""Every family of keys, the special ones before those whose pattern would take them too."""


def family(name: str) -> str | None:
    """Name the family of a key, given without its namespace; None for a key that is not Vessel's."""
    return next((which for which, kind in TTL_CLASSES.items() if re.fullmatch(kind.pattern, name)), None)
