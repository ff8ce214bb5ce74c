"""What the state machine's model believes about jobs, and what its workers hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.contract.world import TIER
from vessel.jobs.steps import FAILED, UNKNOWN
from vessel.wire import TERMINAL, JobState

if TYPE_CHECKING:
    from vessel.jobs.steps import Ending, Held


@dataclass
class Shadow:
    """What the model believes about a job."""

    id: str
    has_deadline: bool
    state: JobState = JobState.QUEUED
    generation: int = 0
    owner: str = ""
    ended_by: str = ""
    lapsed: bool = False
    backlog: bool = False
    due: bool = False
    """Whether it is noted as parked until a time."""
    cancel: bool = False
    kills: int = 0
    lapses: int = 0
    queue: str = TIER
    response: bytes | None = None
    started: int = 0
    labels: dict[int, str] = field(default_factory=dict)
    ledger: dict[int, str] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Tell whether it has not ended."""
        return self.state not in TERMINAL

    def end_attempt(self, ending: Ending, label: str) -> None:
        """Record a call's ending once, and book it once; a guess yields to the truth, also to that it cost nothing."""
        if ending.number and ending.number not in self.labels:
            self.labels[ending.number] = label
            if ending.ledger_row and self.ledger.get(ending.number, UNKNOWN) == UNKNOWN:
                self.ledger[ending.number] = label
            elif self.ledger.get(ending.number) == UNKNOWN:
                self.ledger[ending.number] = FAILED

    def cut_call(self) -> bool:
        """Book the call in flight as unknown, if there is one."""
        flying = bool(self.started) and self.started not in self.labels and self.started not in self.ledger
        if flying:
            self.ledger[self.started] = UNKNOWN
        return flying

    def leave(self, state: JobState) -> None:
        """Give up the lease, and every place where it waited."""
        self.state, self.owner = state, ""
        self.backlog = self.due = False

    def park(self, *, for_gate: bool, look: bool) -> None:
        """Wait: in the backlog, where a look may be noted too, or for a time, which a flagged job has behind it."""
        self.leave(JobState.PARKED)
        self.backlog = for_gate and not self.cancel
        self.due = not self.backlog or look


@dataclass
class Handle:
    """What a worker holds after a claim: maybe stale by now."""

    held: Held
    ticket: int
    queue: str
    attempt: int = 0

    @property
    def id(self) -> str:
        """The job's id."""
        return self.held.job.id
