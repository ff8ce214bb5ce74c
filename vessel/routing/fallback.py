"""What happens to a job after an outcome: a value from a pure function, carried out by `execute`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from vessel.jobs.steps import STREAM_BROKEN
from vessel.registry import Vessel, vessel_of
from vessel.routing.decision import Complete, Decision, Fail, Park, Reroute, Retry, Situation
from vessel.upstream.outcome import NEVER, Failure, Reason, Success
from vessel.wire import JobState, OnOutage, Priority, SpeedPriority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.upstream.outcome import Outcome

__all__ = ["Complete", "Decision", "Fail", "Park", "Reroute", "Retry", "Situation", "decide", "unfit"]

MAX_UNCOUNTED = 50
"""Calls that count against nobody (429, 404, 503, bad key) may not go on for ever either."""

MAX_IN_OUTAGE = 1000
"""A request that itself breaks the upstream, while nothing else runs, must not look like an outage for ever."""

TRIES_PER_HOP = 2
LEAST_DELAY_MS = 50
BACKOFF_BASE_MS, BACKOFF_CAP_MS = 500, 20_000
OUTAGE_BASE_MS = 1_000
KEY_BASE_MS, KEY_CAP_MS = 10_000, 30_000
UNTIL_LIFTED_MS = 60_000
"""What is told as the wait where maintenance has no planned end; its end is noticed at once."""

LOOK_AGAIN_MS = 5_000
"""How long a job sleeps at most for the failover vessel's sake: as often a breaker lets one call look at Groq."""

PATIENCE_MS: Mapping[Priority, int] = {Priority.INTERACTIVE: 2_000, Priority.NORMAL: 10_000, Priority.BATCH: 60_000}
"""How long a job waits for a model's quota before it steps down to the next one; half of it with `fast`."""

OUTAGE_CAP_MS: Mapping[Priority, int] = {
    Priority.INTERACTIVE: 10_000,
    Priority.NORMAL: 20_000,
    Priority.BATCH: 30_000,
}
"""How long a job waits at most that met an outage itself; how often anybody meets it is the breaker's to bound."""


def decide(situation: Situation, outcome: Outcome) -> Decision:
    """Decide what to do after an outcome."""
    match outcome:
        case Success():
            return Complete()
        case Failure():
            cut = outcome.reason is Reason.CANCELLED and outcome.status is None
            if situation.streamed and not cut:
                return _broken(outcome)
            stopped = _stopped(situation, outcome)
            if stopped is not None:
                return _last_resort(situation, outcome, stopped)
            if _on_failover(situation) and not cut:
                return _back(situation, outcome)
            return _fail_over(situation, outcome, _after(situation, outcome))
        case _ as never:
            assert_never(never)


def unfit(failure: Failure) -> bool:
    """Tell whether a model says of a request that it can never take it, asked again or not."""
    return failure.reason in _UNFIT or (failure.reason is Reason.OVER_BUDGET and failure.detail == NEVER)


def _broken(failure: Failure) -> Fail:
    """End a job whose answer broke off before readers: another call's would not go on where this one ended."""
    rest = "Readers had the first part of the answer by then, so no other call was made. Submit the request again."
    return Fail(JobState.FAILED, STREAM_BROKEN, f"{failure.message} {rest}")


def _after(s: Situation, failure: Failure) -> Decision:  # noqa: C901, PLR0911  one case for each group of reasons
    match failure.reason:
        case Reason.CANCELLED:
            # With a status it was the upstream's 499; nobody here asked for it.
            state = JobState.CANCELLED if failure.status is None else JobState.FAILED
            return Fail(state, str(Reason.CANCELLED), failure.message)
        case Reason.BAD_REQUEST | Reason.RESPONSE_TOO_LARGE:
            return _fail(s, failure, "No other model was tried, since it would end the same way.")
        case Reason.RATE_LIMITED:
            return _wait_for_quota(s, failure)
        case Reason.TOO_LARGE | Reason.CONTEXT_LENGTH:
            return _step_down(s, failure) or _fail(
                s, failure, f"No other model of the chain takes it{_sizes(failure)}."
            )
        case Reason.LACKS_TOOLS:
            return _step_down(s, failure) or _fail(s, failure, "No other model of the chain has them.")
        case Reason.MODEL_GONE:
            return _replace_model(s, failure)
        case Reason.UNAUTHORIZED | Reason.NO_KEY | Reason.FORBIDDEN | Reason.SPEND_LIMIT:
            return _wait_for_key(s, failure)
        case Reason.MAINTENANCE | Reason.BREAKER_OPEN | Reason.OVER_BUDGET:
            return _held_back(s, failure)
        case Reason.CONNECT_FAILED | Reason.OVER_CAPACITY:
            return _wait_out_outage(s, failure)
        case (
            Reason.SERVER_ERROR
            | Reason.CONNECTION_LOST
            | Reason.TIMEOUT
            | Reason.PROTOCOL_ERROR
            | Reason.TOOL_USE_FAILED
            | Reason.JSON_VALIDATE_FAILED
            | Reason.DEPENDENCY_FAILED
            | Reason.UNPROCESSABLE
        ):
            if s.outage and failure.reason in _OF_AN_OUTAGE:
                return _wait_out_outage(s, failure)
            return _try_again(s, failure)
        case _ as never:
            assert_never(never)


def _stopped(s: Situation, failure: Failure) -> Fail | None:
    """End a job whose deadline or budget of calls is over; what cannot be repeated anyway ends for its own reason."""
    if failure.reason in _FINAL:
        return None
    if s.deadline_at is not None and s.now_ms >= s.deadline_at:
        return _expired(s, failure)
    in_outage = s.outage and failure.reason in _OF_AN_OUTAGE
    outside = failure.reason in _VESSEL_WIDE or in_outage or _on_failover(s)
    if in_outage and s.uncounted_attempts >= MAX_IN_OUTAGE:
        return _fail(s, failure, f"It was tried {MAX_IN_OUTAGE} times in what looked like an outage.")
    if not outside and s.uncounted_attempts >= MAX_UNCOUNTED:
        return _fail(s, failure, f"It was refused {MAX_UNCOUNTED} times without a real try. Submit it again later.")
    # Outages are waited out: they say nothing about the job.
    if s.counted_attempts >= s.policy.max_attempts and not outside:
        return _fail(s, failure, f"All {s.policy.max_attempts} attempts are used up (max_attempts){_sizes(failure)}.")
    return None


_FINAL = frozenset({Reason.CANCELLED, Reason.BAD_REQUEST, Reason.RESPONSE_TOO_LARGE})
_OF_AN_OUTAGE = frozenset({Reason.SERVER_ERROR, Reason.TIMEOUT, Reason.CONNECTION_LOST, Reason.FORBIDDEN})
"""What an outage looks like beside refusals; alone it may be the job's own trouble."""

_UNFIT = frozenset({Reason.TOO_LARGE, Reason.CONTEXT_LENGTH, Reason.LACKS_TOOLS})
_VESSEL_WIDE = frozenset(
    {
        *(Reason.CONNECT_FAILED, Reason.OVER_CAPACITY, Reason.UNAUTHORIZED, Reason.NO_KEY),
        *(Reason.SPEND_LIMIT, Reason.MAINTENANCE, Reason.BREAKER_OPEN, Reason.OVER_BUDGET),
    }
)
"""They say nothing about the job, and the breaker bounds how often they are met: no number of them ends a job."""


_FAILED_OVER = frozenset(_VESSEL_WIDE - {Reason.OVER_BUDGET} | {Reason.FORBIDDEN})
"""What another vessel does not suffer from; our own spend caps hold there too."""


def _on_failover(s: Situation) -> bool:
    """Tell whether the job is at the failover vessel, with a chain to go back to."""
    vessels = [vessel_of(hop.model) for hop in s.hops]
    return vessels[s.hop] is Vessel.OPENAI and Vessel.GROQ in vessels


def _fail_over(s: Situation, failure: Failure, otherwise: Decision) -> Decision:
    """Go to the failover vessel instead of waiting out an outage, or of failing because of it."""
    outage = failure.reason in _FAILED_OVER or (s.outage and failure.reason in _OF_AN_OUTAGE)
    gone = failure.reason is Reason.MODEL_GONE and isinstance(otherwise, Fail)
    if not (outage or gone) or isinstance(otherwise, (Reroute, Retry)):
        return otherwise
    if s.failover is not None:
        return Reroute(s.failover, str(failure.reason))
    if not isinstance(otherwise, Park):
        return otherwise
    if not s.failover_in_ms:
        return replace(otherwise, note=s.failover_note)
    return replace(otherwise, delay_ms=_look_again_ms(s, s.failover_in_ms), timed=True, note=s.failover_note)


def _last_resort(s: Situation, failure: Failure, stopped: Fail) -> Decision:
    """Ask the failover vessel before a job fails whose attempts all ended as in an outage, breaker or not."""
    used_up = stopped.state is JobState.FAILED and failure.reason in _OF_AN_OUTAGE
    return Reroute(s.failover, str(failure.reason)) if used_up and s.failover is not None else stopped


def _back(s: Situation, failure: Failure) -> Decision:
    """Wait on the chain after the failover vessel did not serve either: Groq is asked first, then it once more."""
    longest = OUTAGE_CAP_MS[s.policy.priority]
    grown = _grow(OUTAGE_BASE_MS, longest, _tries(s) - 1, 0.5 + s.jitter / 2)
    delay = max(grown, _look_again_ms(s, _asked_ms(failure)))
    return _too_late(s, failure, delay) or Park(delay, str(failure.reason), _first_usable(s), timed=True)


def _look_again_ms(s: Situation, wait_ms: int) -> int:
    """Spread the returns of many jobs, and let none sleep long past the moment when Groq is back."""
    return max(LEAST_DELAY_MS, int(min(wait_ms, LOOK_AGAIN_MS) * (0.75 + s.jitter / 4)))


def _wait_for_quota(s: Situation, failure: Failure) -> Decision:
    wait = _backoff_ms(s, _tries(s)) if failure.retry_after_s is None else max(1, round(failure.retry_after_s * 1000))
    if wait <= _patience_ms(s) and _too_late(s, failure, wait) is None:
        return Retry(wait, str(failure.reason))
    return _step_down(s, failure) or _park(s, failure, *_first_free(s, wait))


def _replace_model(s: Situation, failure: Failure) -> Decision:
    down = _step_down(s, failure)
    if _usable(s, s.hop) and not isinstance(down, Reroute):  # a successor serves in its name
        return Retry(0, str(failure.reason))
    whole = "No other model of the chain can take the job" if s.unfit else "No model of the chain is served any more"
    return down or _fail(s, failure, f"{whole}. `vessel models --refresh` shows what is served; name one of those.")


def _wait_for_key(s: Situation, failure: Failure) -> Decision:
    if s.policy.on_outage is OnOutage.FAIL:
        return _fail(s, failure, "on_outage is `fail`, so it was not kept waiting for a new key.")
    delay = _grow(KEY_BASE_MS, KEY_CAP_MS, s.uncounted_attempts - 1, 0.5 + s.jitter / 2)
    return _park(s, failure, delay, s.hop)


def _held_back(s: Situation, failure: Failure) -> Decision:
    """Wait until the gate opens; use another model while only this one is held back, or is too dear for a cap."""
    if failure.reason is Reason.OVER_BUDGET and failure.detail == NEVER:
        cheaper = next((hop for hop in range(s.hop + 1, len(s.hops)) if _usable(s, hop)), None)
        if cheaper is not None:
            return Reroute(cheaper, str(failure.reason))
        return _go_back(s, failure, _worth_going_back(s, failure)) or _fail(s, failure, "")
    if failure.reason is Reason.BREAKER_OPEN and failure.detail == "model":
        down = _step_down(s, failure)
        if down is not None:
            return down
    if s.policy.on_outage is OnOutage.FAIL:
        return _fail(s, failure, "on_outage is `fail`, so it was not kept waiting.")
    if failure.reason is Reason.MAINTENANCE and not failure.retry_after_s:
        # It may be lifted before any deadline; until one is over, or max_wait, nothing is too late.
        return _too_late(s, failure, 0) or Park(UNTIL_LIFTED_MS, str(failure.reason), s.hop)
    return _park(s, failure, max(LEAST_DELAY_MS, _asked_ms(failure)), s.hop)


def _wait_out_outage(s: Situation, failure: Failure) -> Decision:
    """Use another model while one has no capacity; wait while Groq cannot be reached: that holds for all models."""
    if failure.reason is Reason.OVER_CAPACITY:
        down = _step_down(s, failure)
        if down is not None:
            return down
    tries = _tries(s)
    if s.policy.on_outage is OnOutage.FAIL:
        if tries >= s.policy.max_attempts:
            return _fail(s, failure, f"It was tried {tries} times and on_outage is `fail`. Submit it again later.")
        return _retry(s, failure)
    if failure.reason is Reason.CONNECT_FAILED and tries < TRIES_PER_HOP:
        return _retry(s, failure)
    rounds = tries // len(s.hops) if failure.reason is Reason.OVER_CAPACITY else tries - TRIES_PER_HOP
    delay = _grow(OUTAGE_BASE_MS, OUTAGE_CAP_MS[s.policy.priority], rounds, 0.5 + s.jitter / 2)
    return _park(s, failure, max(delay, _asked_ms(failure)), _first_usable(s))


def _try_again(s: Situation, failure: Failure) -> Decision:
    tries = 1 if _hurried(s) else TRIES_PER_HOP
    delay = max(_backoff_ms(s, s.counted_attempts), _asked_ms(failure))
    stays = s.attempts_on_this_hop < tries and delay <= max(BACKOFF_CAP_MS, _patience_ms(s))
    if stays and _too_late(s, failure, delay) is None:
        return Retry(delay, str(failure.reason))
    return _step_down(s, failure) or _retry(s, failure)


def _retry(s: Situation, failure: Failure) -> Decision:
    delay = max(_backoff_ms(s, _tries(s)), _asked_ms(failure))
    return _too_late(s, failure, delay) or Retry(delay, str(failure.reason))


def _park(s: Situation, failure: Failure, delay_ms: int, hop: int) -> Decision:
    return _too_late(s, failure, delay_ms) or Park(delay_ms, str(failure.reason), hop)


def _step_down(s: Situation, failure: Failure) -> Decision | None:
    """Go to the next hop that can serve; wait for one that may serve later; None when the chain is exhausted."""
    after = [hop for hop in range(s.hop + 1, len(s.hops)) if _usable(s, hop)]
    for hop in after:
        if _blocked_ms(s, hop) <= _patience_ms(s):
            return Reroute(hop, str(failure.reason))
    if failure.reason is Reason.RATE_LIMITED:
        return None  # the current model competes with the blocked ones
    return _go_back(s, failure, after + _worth_going_back(s, failure))


def _go_back(s: Situation, failure: Failure, hops: Sequence[int]) -> Decision | None:
    """Wait for the hop that is free first; one that was asked before and is not blocked has a pause all the same."""
    if not hops:
        return None
    soonest = min(hops, key=lambda hop: (_blocked_ms(s, hop), hop))
    model, blocked = s.hops[soonest].model, _blocked_ms(s, soonest)
    if blocked or soonest > s.hop or model not in s.tried:
        return _park(s, failure, max(LEAST_DELAY_MS, blocked), soonest)
    delay = _backoff_ms(s, _tries(s))
    told = f"What {model} said before may pass, so the job goes back to it."
    return _too_late(s, failure, delay) or Park(delay, str(failure.reason), soonest, timed=True, note=told)


def _worth_going_back(s: Situation, failure: Failure) -> list[int]:
    """Name the earlier hops that may serve yet: where this one never will, all that did not say the same of the job."""
    never = unfit(failure) or failure.reason is Reason.MODEL_GONE
    return [hop for hop in range(s.hop) if _usable(s, hop) and (never or _blocked_ms(s, hop) > 0)]


def _usable(s: Situation, hop: int) -> bool:
    return hop not in s.unfit and s.hops[hop].model not in s.unavailable


def _first_free(s: Situation, wait_ms: int) -> tuple[int, int]:
    """Return how long to park until the first model has quota again, and its hop; the better one where they tie."""
    waits = [(wait_ms, s.hop)]
    for hop, candidate in enumerate(s.hops):
        passed_over = hop < s.hop and candidate.model not in s.tried
        if hop != s.hop and _usable(s, hop) and (_blocked_ms(s, hop) or passed_over):
            waits.append((max(LEAST_DELAY_MS, _blocked_ms(s, hop)), hop))
    return min(waits)


def _first_usable(s: Situation) -> int:
    chain = [hop for hop, candidate in enumerate(s.hops) if vessel_of(candidate.model) is Vessel.GROQ]
    return next((hop for hop in chain if _usable(s, hop)), chain[0] if chain else s.hop)


def _blocked_ms(s: Situation, hop: int) -> int:
    return s.wait_ms.get(s.hops[hop].model, 0)


def _tries(s: Situation) -> int:
    return s.counted_attempts + s.uncounted_attempts


def _hurried(s: Situation) -> bool:
    return s.policy.speed_priority is not SpeedPriority.BALANCED


def _patience_ms(s: Situation) -> int:
    patience = PATIENCE_MS[s.policy.priority]
    return patience // 2 if _hurried(s) else patience


def _asked_ms(failure: Failure) -> int:
    return round((failure.retry_after_s or 0) * 1000)


def _backoff_ms(s: Situation, tries: int) -> int:
    """Full jitter over an exponentially growing span."""
    return _grow(BACKOFF_BASE_MS, BACKOFF_CAP_MS, tries - 1, s.jitter)


def _grow(base_ms: int, cap_ms: int, doublings: int, share: float) -> int:
    return max(LEAST_DELAY_MS, int(min(cap_ms, base_ms << min(max(doublings, 0), 20)) * share))


def _too_late(s: Situation, failure: Failure, delay_ms: int) -> Fail | None:
    """Say why a delay cannot be waited: the job's deadline, or its max_wait."""
    at = s.now_ms + delay_ms
    if s.deadline_at is not None and at >= s.deadline_at:
        return _expired(s, failure)
    if s.policy.max_wait is not None and at > s.created_at + s.policy.max_wait * 1000:
        more = f"Waiting {delay_ms / 1000:.1f} s more would pass" if delay_ms else "It has waited longer than"
        passed = f"{more} max_wait={s.policy.max_wait:g} s."
        return Fail(JobState.FAILED, "max_wait", f"{failure.message} {passed} Raise it, or allow more fallbacks.")
    return None


def _expired(s: Situation, failure: Failure) -> Fail:
    text = f"{failure.message} The next try would come after the job's deadline{_done(s)}. Give a longer deadline."
    return Fail(JobState.EXPIRED, "deadline", text)


def _fail(s: Situation, failure: Failure, rest: str) -> Fail:
    return Fail(JobState.FAILED, str(failure.reason), f"{failure.message} {rest}".rstrip() + _made(s))


def _made(s: Situation) -> str:
    tries = _tries(s)
    return f" Calls made: {tries}, the last one on {s.hops[s.hop].model}." if tries > 1 else ""


def _done(s: Situation) -> str:
    tries = _tries(s)
    return f", after {tries} calls" if tries > 1 else ""


def _sizes(failure: Failure) -> str:
    if failure.requested is None or failure.limit_value is None:
        return ""
    return f": {failure.requested} tokens are asked for, {failure.limit_value} are allowed"
