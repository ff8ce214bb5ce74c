"""What to do with an outcome: finish, try again, wait, step down the chain, or fail. A pure function of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from vessel.upstream.outcome import Failure, Outcome, Reason, Success
from vessel.wire import JobState, OnOutage, Policy, Priority, SpeedPriority

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.jobs.model import Hop

TRIES_PER_HOP = 2
MOST_UNCOUNTED = 50
"""A job that was put off so often without its own fault is given up: somebody should look."""

BASE_MS = 500
MOST_BACKOFF_MS = 20_000
MOST_OUTAGE_MS = 30_000
PATIENCE_S = {Priority.INTERACTIVE: 2.0, Priority.NORMAL: 10.0, Priority.BATCH: 60.0}
"""How long a lane waits for quota before the next model of the chain is asked instead."""


@dataclass(frozen=True, slots=True)
class Complete:
    """The job has its result."""


@dataclass(frozen=True, slots=True)
class Retry:
    """The same hop again, after a delay."""

    delay_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reroute:
    """The hop of this index, at once."""

    hop: int
    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """The same hop later: nothing was wrong with the job, and no attempt is used."""

    delay_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """The job ends without a result."""

    state: JobState
    reason: str
    message: str


Decision = Complete | Retry | Reroute | Park | Fail


@dataclass(frozen=True, slots=True)
class Situation:
    """Everything a decision depends on; the attempt that just ended is in the counts. `jitter` is in [0, 1)."""

    hops: tuple[Hop, ...]
    hop: int
    policy: Policy
    counted_attempts: int
    uncounted_attempts: int
    attempts_on_this_hop: int
    now_ms: int
    deadline_at: int | None
    jitter: float
    unavailable: frozenset[str]
    wait_ms: Mapping[str, int]
    created_at: int


def decide(situation: Situation, outcome: Outcome) -> Decision:
    """Decide what follows from an outcome; a failure message says what happened, what was done and what to do."""
    if isinstance(outcome, Success):
        return Complete()
    return _in_time(situation, _after(situation, outcome))


def _after(situation: Situation, failure: Failure) -> Decision:  # noqa: PLR0911  one answer per group of reasons
    match failure.reason:
        case Reason.CANCELLED:
            return Fail(JobState.CANCELLED, "cancelled", failure.message)
        case Reason.BAD_REQUEST | Reason.FORBIDDEN | Reason.SPEND_LIMIT | Reason.RESPONSE_TOO_LARGE:
            return _failed(failure, "It was not sent again, because no other model would answer it either.")
        case Reason.TOO_LARGE | Reason.CONTEXT_LENGTH:
            return _next(situation, failure) or _failed(failure, "No model of its chain has more room.")
        case Reason.MODEL_GONE:
            return _next(situation, failure) or _failed(failure, "No other model of its chain is served.")
        case Reason.UNAUTHORIZED | Reason.NO_KEY:
            return _without_key(situation, failure)
        case Reason.RATE_LIMITED:
            return _quota(situation, failure)
        case Reason.OVER_CAPACITY | Reason.CONNECT_FAILED:
            return _outage(situation, failure)
        case (
            Reason.SERVER_ERROR
            | Reason.CONNECTION_LOST
            | Reason.TIMEOUT
            | Reason.PROTOCOL_ERROR
            | Reason.TOOL_USE_FAILED
            | Reason.JSON_VALIDATE_FAILED
            | Reason.DEPENDENCY_FAILED
        ):
            return _again(situation, failure)
        case _ as never:
            assert_never(never)


def _failed(failure: Failure, done: str) -> Fail:
    return Fail(JobState.FAILED, str(failure.reason), f"{failure.message} {done}")


def _next(situation: Situation, failure: Failure) -> Reroute | None:
    for index in range(situation.hop + 1, len(situation.hops)):
        if situation.hops[index].model not in situation.unavailable:
            return Reroute(index, str(failure.reason))
    return None


def _backoff_ms(situation: Situation, tries: int, most: int = MOST_BACKOFF_MS) -> int:
    """Full jitter over an exponentially growing span, never below a tenth of a second."""
    span = min(most, BASE_MS * 2 ** min(tries, 16))
    return 100 + int(situation.jitter * span)


def _again(situation: Situation, failure: Failure) -> Decision:
    if situation.counted_attempts >= situation.policy.max_attempts:
        return _failed(failure, f"All {situation.policy.max_attempts} attempts are used up. Retry it later.")
    if situation.attempts_on_this_hop < TRIES_PER_HOP:
        return Retry(_backoff_ms(situation, situation.attempts_on_this_hop), str(failure.reason))
    return _next(situation, failure) or Retry(_backoff_ms(situation, situation.counted_attempts), str(failure.reason))


def _outage(situation: Situation, failure: Failure) -> Decision:
    """Step down while there is another model; then wait for the first one, or fail if the job asks for that."""
    if situation.uncounted_attempts + situation.counted_attempts >= MOST_UNCOUNTED:
        return _failed(failure, f"It was put off {MOST_UNCOUNTED} times. Check groqstatus.com and retry it.")
    step = _next(situation, failure)
    if step is not None:
        return step
    if situation.policy.on_outage is OnOutage.FAIL:
        return _failed(failure, "The job asked to fail in an outage (on_outage=fail).")
    return Park(_backoff_ms(situation, situation.uncounted_attempts + 1, MOST_OUTAGE_MS), str(failure.reason))


def _without_key(situation: Situation, failure: Failure) -> Decision:
    if situation.policy.on_outage is OnOutage.FAIL:
        return _failed(failure, "The job asked to fail in an outage (on_outage=fail).")
    if situation.uncounted_attempts >= MOST_UNCOUNTED:
        return _failed(failure, f"It was put off {MOST_UNCOUNTED} times. Set a good key and retry it.")
    return Park(5000 + _backoff_ms(situation, 6, MOST_OUTAGE_MS - 5000), str(failure.reason))


def _quota(situation: Situation, failure: Failure) -> Decision:
    wait_ms = int((failure.retry_after_s if failure.retry_after_s is not None else 1.0) * 1000)
    patience = PATIENCE_S[situation.policy.priority]
    if situation.policy.speed_priority is SpeedPriority.FAST:
        patience /= 2
    if situation.policy.max_wait is not None:
        patience = min(patience, situation.policy.max_wait)
    if wait_ms > patience * 1000 and (step := _next(situation, failure)):
        return step
    waited_s = (situation.now_ms - situation.created_at + wait_ms) / 1000
    if situation.policy.max_wait is not None and waited_s > situation.policy.max_wait:
        return _failed(failure, f"Waiting longer would pass max_wait={situation.policy.max_wait:g} s.")
    if situation.uncounted_attempts >= MOST_UNCOUNTED:
        return _failed(failure, f"It was put off {MOST_UNCOUNTED} times. `vessel limits` shows who uses the quota.")
    return Park(max(50, wait_ms), str(failure.reason))


def _in_time(situation: Situation, decision: Decision) -> Decision:
    """End a job whose wait would pass its deadline now: waiting would only hide it."""
    if situation.deadline_at is None or not isinstance(decision, (Retry, Park)):
        return decision
    if situation.now_ms + decision.delay_ms < situation.deadline_at:
        return decision
    text = f"Its deadline would pass before it could be tried again ({decision.reason}). Give a longer deadline."
    return Fail(JobState.EXPIRED, "deadline", text)
