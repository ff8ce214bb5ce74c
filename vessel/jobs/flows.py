"""How the backlog is divided: groups by lane and model, and in each a flow for every queue and tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.jobs.steps import LANES
from vessel.wire import OnOutage, Priority

if TYPE_CHECKING:
    from vessel.jobs.model import Job
    from vessel.jobs.record import NewJob


def group_of(job_or_hop_model: str, priority: Priority) -> str:
    """Name the backlog's group: jobs of one lane that wait for one model."""
    return f"{LANES[priority]}|{job_or_hop_model}"


_ANYWHERE = "|failover"
"""No tenant's name holds a bar."""


def flow_of(queue: str, tenant: str, *, anywhere: bool = False) -> str:
    """Name a flow of a group: the jobs of one tenant whose tickets go into one queue.

    Those that an outage sends elsewhere (`anywhere`) have a flow of their own, as they go on where others are held.
    """
    return f"{queue}|{tenant}{_ANYWHERE if anywhere else ''}"


def parts_of(flow: str) -> tuple[str, str]:
    """Return the queue and the tenant of a flow."""
    queue, tenant, *_ = flow.split("|")
    return queue, tenant


def goes_anywhere(flow: str) -> bool:
    """Tell whether the jobs of a flow go on elsewhere in an outage."""
    return flow.endswith(_ANYWHERE)


def fails_over(job: Job | NewJob) -> bool:
    """Tell whether a job goes on elsewhere in an outage; batch work only with a cost cap."""
    capped = job.priority is not Priority.BATCH or job.policy.get("max_cost_usd") is not None
    return capped and job.policy.get("on_outage") == OnOutage.FAILOVER
