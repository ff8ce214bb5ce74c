"""What a decision looks at, and the five things it can be."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.jobs.model import Hop
    from vessel.wire import JobState, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that a decision may look at. Attempt counts include the outcome's own call; times are epoch ms of Redis.

    `unavailable`: models of the chain that nobody serves any more. `unfit`: hops that can never take this job. `tried`:
    models that were called for it before. `wait_ms`: models known to be blocked, and for how long. `jitter`: a random
    number in [0, 1). `outage`: the model's breaker is open, so failures are no fault of the job. `failover`: the hop of
    the failover vessel, where this job may go there now; otherwise `failover_note` says why not, and `failover_in_ms`
    when to ask again, 0 where asking does not help. `streamed`: a reader may have seen the beginning of this call's
    answer.
    """

    hops: tuple[Hop, ...]
    hop: int
    policy: Policy
    counted_attempts: int
    uncounted_attempts: int
    attempts_on_this_hop: int
    now_ms: int
    created_at: int
    deadline_at: int | None = None
    jitter: float = 0.5
    unavailable: frozenset[str] = frozenset()
    unfit: frozenset[int] = frozenset()
    tried: frozenset[str] = frozenset()
    outage: bool = False
    wait_ms: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    failover: int | None = None
    failover_note: str = ""
    failover_in_ms: int = 0
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class Complete:
    """The answer is the job's result."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Try the same hop again after a delay."""

    delay_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reroute:
    """Go on with another hop of the chain, at once."""

    hop: int
    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """Wait for quota, key or outage without using an attempt, then go on with `hop`.

    `timed`: by the clock, also when it was the gate that refused. `note` adds to what is said about the wait.
    """

    delay_ms: int
    reason: str
    hop: int = 0
    timed: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Fail:
    """End the job without a result; `message` says what happened, what was done and what to do."""

    state: JobState
    reason: str
    message: str


Decision = Complete | Retry | Reroute | Park | Fail
