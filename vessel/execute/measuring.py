"""What a worker process counts of its own work."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

from vessel.errors import Unreachable
from vessel.gate.limiter import PERIOD_MS
from vessel.gate.refusals import GATE, Kind, note
from vessel.observe.metrics import Instruments, Source
from vessel.upstream.outcome import Failure, Outcome, Reason, Success
from vessel.usage.rows import SUCCEEDED
from vessel.wire import JobState

if TYPE_CHECKING:
    from vessel.execute.process import Executor
    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner
    from vessel.keyspace.names import Keys
    from vessel.usage.rows import Call

_ENDED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED})
_LEFT = frozenset({*JobState, "late", "superseded", "missing", "released", "spooled"})
"""The words in which a claim can end; another one is counted as `other`."""
_REFUSED = frozenset({Reason.RATE_LIMITED, Reason.OVER_CAPACITY, Reason.TOO_LARGE, Reason.SPEND_LIMIT})
"""What an upstream answers instead of doing a call that it could do at another time, or under another plan."""


class Measured:
    """The metrics of one worker process."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.instruments = Instruments(Source.WORKER)
        self._beat_at = time.monotonic()
        self._refusals: Counter[Kind] = Counter()

    def watch(self, executor: Executor) -> None:
        """Have the gauges read from an executor at each scrape."""
        told = self.instruments
        told.set("vessel_worker_info", 1, ",".join(executor.tiers))
        told.set("vessel_worker_slots", executor.slots)
        told.gauge("vessel_worker_jobs").set_function(lambda: executor.held)
        told.gauge("vessel_worker_heartbeat_age_seconds").set_function(lambda: time.monotonic() - self._beat_at)
        told.gauge("vessel_spool_files").set_function(lambda: sum(1 for _ in executor.spool.waiting()))
        if executor.sweeper is not None:
            told.gauge("vessel_usage_log_behind_seconds").set_function(executor.sweeper.usage_log_behind_s)

    def beaten(self) -> None:
        """Note that Redis has taken a heartbeat."""
        self._beat_at = time.monotonic()

    def refused(self, call: Call, refusal: Failure) -> None:
        """Count a call that the gate did not let go."""
        self.instruments.count("vessel_gate_refusals_total", call.model.id, call.tier, str(refusal.reason))
        why = refusal.limit_name if refusal.reason is Reason.RATE_LIMITED else str(refusal.reason)
        self._refusals[Kind(GATE, why or str(refusal.reason), call.model.id)] += 1

    async def keep_refusals(self, runner: AsyncRunner, keys: Keys) -> None:
        """Tell Redis what was refused since the last time. Raises Unreachable; it is told with the next beat then."""
        taken, self._refusals = self._refusals, Counter()
        if not taken:
            return
        try:
            await runner.run(note(keys, taken))
        except Unreachable:
            self._refusals.update(taken)
            raise

    def attempt(self, call: Call, outcome: Outcome, now_ms: int) -> None:
        """Count a call that has ended."""
        told, job = self.instruments, call.job
        label = SUCCEEDED if isinstance(outcome, Success) else str(outcome.reason)
        told.count("vessel_attempts_total", call.model.id, call.tier, label)
        if isinstance(outcome, Failure) and outcome.reason in _REFUSED:
            why = outcome.limit_name if outcome.limit_name in PERIOD_MS else label
            self._refusals[Kind(str(call.model.vessel), why, call.model.id)] += 1
        told.observe("vessel_attempt_seconds", outcome.duration_ms / 1000, call.model.id)
        if call.number == 1:
            waited = (now_ms - job.created_at - outcome.duration_ms) / 1000
            told.observe("vessel_job_first_call_seconds", waited, call.tier, str(job.priority))

    def served(self, job: Job, state: str, now_ms: int) -> None:
        """Count a claim that has ended."""
        self.instruments.count("vessel_jobs_served_total", job.tier, state if state in _LEFT else "other")
        if state in _ENDED:
            took = (now_ms - job.created_at) / 1000
            self.instruments.observe("vessel_job_seconds", took, job.tier, str(job.priority))
