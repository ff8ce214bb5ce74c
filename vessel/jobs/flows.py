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


def flow_of(queue: str, tenant: str, *, outage: str = "") -> str:
    """Name a flow of a group: the jobs of one tenant whose tickets go into one queue.

    Those that do not wait out an outage (`outage`: failover or fail) have a flow of their own, as they go on where
    others are held. No tenant's name holds a bar.
    """
    return f"{queue}|{tenant}{f'|{outage}' if outage else ''}"


def parts_of(flow: str) -> tuple[str, str]:
    """Return the queue and the tenant of a flow."""
    queue, tenant, *_ = flow.split("|")
    return queue, tenant


def goes_anywhere(flow: str) -> bool:
    """Tell whether the jobs of a flow go on elsewhere in an outage."""
    return flow.endswith(f"|{OnOutage.FAILOVER}")


def waits_out(flow: str) -> bool:
    """Tell whether the jobs of a flow wait until an outage or a maintenance is over."""
    return not flow.endswith((f"|{OnOutage.FAILOVER}", f"|{OnOutage.FAIL}"))


def fails_over(job: Job | NewJob) -> bool:
    """Tell whether a job goes on elsewhere in an outage; batch work only with a cost cap."""
    capped = job.priority is not Priority.BATCH or job.policy.get("max_cost_usd") is not None
    return capped and job.policy.get("on_outage") == OnOutage.FAILOVER


def in_outage(job: Job | NewJob) -> str:
    """Say what a job does in an outage as its flow's name has it, "" where it waits."""
    if fails_over(job):
        return OnOutage.FAILOVER
    return OnOutage.FAIL if job.policy.get("on_outage") == OnOutage.FAIL else ""
