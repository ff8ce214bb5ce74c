"""Every metric by name: what it tells, by which labels, and who exports it. docs/metrics.md is made from this table.

Labels hold what a registry bounds (models, tiers, limits) or what a program names (outcomes, routes): never an id, a
tenant, a key or anything that a caller wrote.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

CALL_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
API_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
WAIT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)

# A second series for each counter and histogram, of when it began, would say when the scrape was: those that come from
# Redis are built for each.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus-client forgot its type


class Kind(StrEnum):
    """What a figure is."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """Who exports a metric."""

    REDIS = "API, from Redis"
    API = "API process"
    WORKER = "worker process"


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table; counters end in `_total`, times are seconds, money is USD."""

    name: str
    kind: Kind
    source: Source
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def make(self, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
        """Make it in a registry, at zero."""
        match self.kind:
            case Kind.COUNTER:
                return Counter(self.name, self.help, self.labels, registry=registry)
            case Kind.GAUGE:
                return Gauge(self.name, self.help, self.labels, registry=registry)
            case Kind.HISTOGRAM:
                return Histogram(self.name, self.help, self.labels, buckets=self.buckets, registry=registry)

    @property
    def series(self) -> frozenset[str]:
        """Name the series that Prometheus gets of it."""
        if self.kind is Kind.HISTOGRAM:
            return frozenset(f"{self.name}_{end}" for end in ("bucket", "sum", "count"))
        return frozenset({self.name})


def _of(source: Source, *rows: tuple[Any, ...]) -> tuple[Metric, ...]:
    return tuple(Metric(name, kind, source, text, *more) for name, kind, text, *more in rows)


_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

METRICS: tuple[Metric, ...] = (
    *_of(
        Source.REDIS,
        ("vessel_redis_up", _G, "Whether Redis answered; without it the others of this group are missing."),
        ("vessel_workers_live", _G, "Live workers.", ("tier",)),
        ("vessel_slots", _G, "Job slots of all live workers."),
        ("vessel_jobs_waiting", _G, "Jobs that wait for a worker, with a ticket or without one.", ("tier",)),
        ("vessel_queue_age_seconds", _G, "Age of the oldest job that waits for a worker, 0: none.", ("tier",)),
        ("vessel_backlog_jobs", _G, "Jobs that wait at a model's gate for room.", ("model", "lane")),
        ("vessel_jobs_held", _G, "Jobs that wait: in the backlog, with a ticket, parked for a time.", ("place",)),
        ("vessel_batches_open", _G, "Batches that have not ended."),
        ("vessel_webhooks_waiting", _G, "Webhooks that are still to be delivered."),
        ("vessel_limit_capacity", _G, "Requests or tokens that a limit allows.", ("model", "limit")),
        ("vessel_limit_left", _G, "Requests or tokens that are left of a limit now.", ("model", "limit")),
        ("vessel_limit_left_ratio", _G, "Part of a limit that is left, 0 to 1.", ("model", "limit")),
        ("vessel_gate_closed_seconds", _G, ("How long a model's gate stays closed whatever is left of its limits, by "
         "what closes it."), ("model", "reason")),
        ("vessel_calls_running", _G, "Calls in flight.", ("model",)),
        ("vessel_calls_booked", _G, "Calls that wait for a start time that they have been given.", ("model",)),
        ("vessel_breaker_state", _G, "0 closed, 1 ramp, 2 open; model * stands for the whole upstream.", ("model",)),
        ("vessel_maintenance_active", _G, "How many maintenances are on."),
        ("vessel_ledger_calls_total", _C, ("Charged calls in the ledger; one of unknown outcome that answers after all "
         "is counted again under that outcome."), ("model", "outcome")),
        ("vessel_tokens_total", _C, "Tokens of charged calls; cached ones are part of input.", ("model", "kind")),
        ("vessel_cost_usd_total", _C, "Cost of charged calls in USD; unknown ones at the most they can have cost.",
         ("model", "outcome")),
        ("vessel_cache_hits_total", _C, "Charged calls of which the upstream had a part of the prompt cached.",
         ("model",)),
        ("vessel_budget_cap_usd", _G, "Spend cap of everybody, by day or month; missing where none is set.",
         ("cap",)),
        ("vessel_budget_spent_usd", _G, "What is spent of that cap, with what calls under way reserved.", ("cap",)),
        ("vessel_budget_reserved_usd", _G, ("What calls under way may cost at most: the part of what is spent that may "
         "come back; 0 where no cap is set.")),
        ("vessel_budget_tenants", _G, ("Tenants with a cap of their own, by what is used of it: free, warned (80 %), "
         "full (it holds jobs)."), ("cap", "used")),
        ("vessel_ledger_lag_seconds", _G, "Age of the first ledger entry that these counters do not hold; 0: none."),
    ),
    *_of(
        Source.API,
        ("vessel_api_requests_total", _C, "Requests answered, by the route's template.", ("method", "route", "status")),
        ("vessel_api_request_seconds", _H, "Time until an answer began.", ("route",), API_BUCKETS),
        ("vessel_api_requests_open", _G, "Requests that are being answered."),
    ),
    *_of(
        Source.WORKER,
        ("vessel_worker_info", _G, "1, with the tiers that the process serves.", ("tiers",)),
        ("vessel_worker_slots", _G, "Job slots of the process."),
        ("vessel_worker_jobs", _G, "Jobs that the process holds."),
        ("vessel_worker_heartbeat_age_seconds", _G, "Time since Redis last took a heartbeat of the process."),
        ("vessel_attempts_total", _C, "Calls of the upstream that have ended: succeeded, or why not.",
         ("model", "tier", "outcome")),
        ("vessel_attempt_seconds", _H, "Time of a call of the upstream, from its start to its whole answer.",
         ("model",), CALL_BUCKETS),
        ("vessel_gate_refusals_total", _C, "Calls that the gate did not let go, by why the job waits.",
         ("model", "tier", "reason")),
        ("vessel_jobs_served_total", _C, "Claims of a job that have ended, by the state it was left in.",
         ("tier", "state")),
        ("vessel_job_first_call_seconds", _H, "Time from a job's creation to its first call.", ("tier", "lane"),
         WAIT_BUCKETS),
        ("vessel_job_seconds", _H, "Time from a job's creation to its end.", ("tier", "lane"), WAIT_BUCKETS),
        ("vessel_spool_files", _G, "Ended jobs on this host's disk that Redis has not taken yet."),
        ("vessel_usage_log_behind_seconds", _G, ("Time since usage_log.jsonl was last level with the ledger; only from "
         "the process that writes it.")),
    ),
)  # fmt: skip
"""The table."""


class Instruments:
    """The metrics of some sources, by name, in a registry of their own."""

    def __init__(self, *sources: Source, only: Collection[str] | None = None) -> None:
        """Make them, or only some, at zero."""
        self.registry = CollectorRegistry()
        chosen = [m for m in METRICS if m.source in sources and (only is None or m.name in only)]
        self._made = {m.name: m.make(self.registry) for m in chosen}

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Raise a counter."""
        self._labelled(name, labels).inc(by)

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._labelled(name, labels).set(value)

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Put a time into a histogram; clocks of two machines may make it negative, which counts as 0."""
        self._labelled(name, labels).observe(max(0.0, seconds))

    def gauge(self, name: str) -> Gauge:
        """Return a gauge without labels."""
        found = self._made[name]
        if not isinstance(found, Gauge):
            raise TypeError(f"{name} is no gauge")
        return found

    def _labelled(self, name: str, labels: Sequence[str]) -> Any:
        found = self._made[name]
        return found.labels(*labels) if labels else found
