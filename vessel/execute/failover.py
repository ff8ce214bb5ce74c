"""Whether a job may go to the failover vessel now, and what is said when it may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vessel.execute.plan import plan
from vessel.registry import Vessel, vessel_of
from vessel.routing.wayout import unaffordable
from vessel.upstream.outcome import Failure, Reason
from vessel.wire import OnOutage

if TYPE_CHECKING:
    from vessel.execute.process import Executor
    from vessel.jobs.model import Job
    from vessel.wire import Policy

_ABOUT_THE_REQUEST = frozenset(
    {
        *(Reason.BAD_REQUEST, Reason.RESPONSE_TOO_LARGE, Reason.TOO_LARGE, Reason.CONTEXT_LENGTH),
        *(Reason.MODEL_GONE, Reason.UNPROCESSABLE, Reason.LACKS_TOOLS),
    }
)
"""What the endpoint would say again: a job asks it once."""


class WayOut(NamedTuple):
    """The hop to go to, or why not and when to ask again (0: asking does not help)."""

    hop: int | None = None
    note: str = ""
    in_ms: int = 0


def way_out(executor: Executor, job: Job, policy: Policy) -> WayOut:
    """Look for the failover vessel among a job's hops, and at what stands against it."""
    hops = [at for at, hop in enumerate(job.hops) if vessel_of(hop.model) is Vessel.OPENAI]
    if policy.on_outage is not OnOutage.FAILOVER or not hops:
        return WayOut()
    against = _against(executor, job, policy, hops[0])
    if against:
        return WayOut(note=f"{against} It waits for Groq.")
    wait = executor.blocked_ms(executor.failover_model)
    if wait:
        return WayOut(note="The failover endpoint is held back as well, so it waits for either.", in_ms=wait)
    return WayOut(hops[0])


def _against(executor: Executor, job: Job, policy: Policy, hop: int) -> str:
    failover = executor.door.failover
    if failover is None:
        return "No failover model is set at this worker (VESSEL_FAILOVER_MODEL)."
    if any(vessel_of(a.model) is Vessel.OPENAI and a.reason in _ABOUT_THE_REQUEST for a in job.attempts):
        return "The failover model has refused this request."
    planned = plan(executor, job, policy, hop) if policy.max_cost_usd is not None else None
    return planned.message if isinstance(planned, Failure) else unaffordable(policy, failover)
