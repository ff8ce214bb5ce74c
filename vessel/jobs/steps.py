"""What goes into the steps that change a job, and what comes out of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from vessel.gate.limiter import NOTHING
from vessel.wire import Priority

if TYPE_CHECKING:
    from vessel.gate.limiter import Charge, GiveBack
    from vessel.jobs.model import Job
    from vessel.keyspace.names import JobKeys
    from vessel.wire import JobState

LANES = {Priority.INTERACTIVE: "0", Priority.NORMAL: "1", Priority.BATCH: "2"}
"""The gate's lanes, in the order in which they go."""

UNKNOWN = "unknown"
ORPHANED = "orphaned"
FAILED = "failed"
"""How the ledger calls a call without an answer of use; the others end as their jobs do."""

STREAM_BROKEN = "stream_broken"
BROKEN_BY_LOSS = (
    "Its worker was lost after the first part of the answer had been streamed. The call may be billed, and it was not "
    "made again, as another answer would not go on where that one ended. Submit the request again."
)


class Issue(StrEnum):
    """Where a new job waits for its worker."""

    MESSAGE_FOLLOWS = "0"
    TICKET = "1"  # or in the backlog, when others of its lane already wait there
    BACKLOG = "2"


@dataclass(frozen=True, slots=True)
class Held:
    """A running job as the process that claimed it knows it: the fence of every further step."""

    job: Job
    generation: int
    owner: str
    keys: JobKeys


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: its row, its ledger row (empty: not charged) and what goes back into the gate.

    `charge` names the gate; an ending without a call has one when a start was booked there.
    """

    number: int
    label: str
    row: str
    ledger_row: str = ""
    charge: Charge | None = None
    back: GiveBack = NOTHING


NO_ATTEMPT = Ending(0, "", "")


@dataclass(frozen=True, slots=True)
class Final:
    """What a job ends with."""

    state: JobState
    fields: dict[str, str | bytes] = field(default_factory=dict, repr=False)
    valid: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """A script's answer: a word, a number or text that goes with it, and the limit it is about."""

    word: str
    detail: str = ""
    limit: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """A call about to be made: what it charges, and how far ahead it may be booked."""

    attempt: int
    row: str
    unknown_row: str
    tier: str
    charge: Charge
    book_ms: int
    call_ms: int = 120_000
    channel: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why and how long a job waits: for a time, or (`for_gate`) in the backlog until the gate has room.

    In the backlog the delay is only what is told; `look_ms` is when it is to be looked at all the same, 0 for never.
    `unfit`: the hop that it leaves can never take it.
    """

    delay_ms: int
    reason: str
    message: str = ""
    for_gate: bool = False
    look_ms: int = 0
    unfit: bool = False


@dataclass(frozen=True, slots=True)
class Feed:
    """How a job gets its ticket out of the backlog: the tokens it counts in its flow's share, and where it goes.

    `least`: what its flow counts as given so far at least. `queue`: another than its own, which nobody serves.
    `waited_ms`: how long nobody of its lane has started at that gate, 0 where it is not known to wait.
    """

    tokens: int
    least: float = 0.0
    queue: str = ""
    waited_ms: int = 0


@dataclass(frozen=True, slots=True)
class Due:
    """What a sweep should look at."""

    parked: tuple[str, ...]
    leased: tuple[str, ...]
    deadlines: tuple[str, ...]
    now_ms: int
