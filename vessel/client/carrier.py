"""Which queue carries a job while its tier has no worker: what `on_outage` asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, assert_never

from vessel.dispatch.queues import queue_for
from vessel.errors import NoWorkers
from vessel.wire import OnOutage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vessel.submit import Prepared


def outage_of(prepared: Prepared) -> OnOutage:
    """Tell what a job is to do in an outage."""
    return OnOutage(prepared.new.policy.get("on_outage", OnOutage.QUEUE))


def carried(prepared: Prepared, alive: Mapping[str, int]) -> Prepared:
    """Return the job as it should be queued: by its own tier while that lives, or as `on_outage` says.

    `queue` holds it for its own tier, `failover` gives it to the first living tier, those of its chain before others.
    Raises NoWorkers for `fail`. `alive` may be empty for `queue`.
    """
    tier = prepared.new.hops[0].tier
    if alive.get(tier):
        return prepared
    match outage_of(prepared):
        case OnOutage.QUEUE:
            return prepared
        case OnOutage.FAIL:
            raise no_worker(tier, "Nothing was enqueued, because on_outage is fail.")
        case OnOutage.FAILOVER:
            chain = [hop.tier for hop in prepared.new.hops]
            living = next((name for name in (*chain, *alive) if alive.get(name)), tier)
            return replace(prepared, queue=queue_for(living, prepared.new.priority))
        case _ as never:
            assert_never(never)


def no_worker(tier: str, then: str) -> NoWorkers:
    """Say that nobody serves a tier, and what was done about it."""
    return NoWorkers(f"No worker serves tier {tier}. {then} Start one with `vessel worker --tiers {tier}`.")
