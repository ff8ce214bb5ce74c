"""`/v1/usage`: what a tenant's calls took and cost, out of the ledger and the sums that are kept with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from vessel.api import examples
from vessel.api.auth import Tenant
from vessel.api.faults import documented
from vessel.api.moments import MOMENT, epoch_ms
from vessel.api.session import Here
from vessel.client.usage import BACKWARDS, backwards, report
from vessel.errors import InvalidRequest
from vessel.keyspace.server import clock

router = APIRouter(tags=["usage"])
By = Literal["model", "tier", "day", "tenant", "tag", "vessel"]

_ROW = {"group": "openai/gpt-oss-20b", "calls": 12, "unknown": 0, "orphaned": 0, "failed": 0, "estimated": 0,
        "input_tokens": 912, "cached_tokens": 0, "output_tokens": 2048, "cost_usd": 0.0006828,
        "unknown_cost_usd": 0.0}  # fmt: skip
_SAVING = {"tier": "power", "model": "openai/gpt-oss-120b", "cost_there_usd": 0.0013656, "cost_here_usd": 0.0006828,
           "saved_usd": 0.0006828, "saved_percent": 50.0}  # fmt: skip
EXAMPLE = {"object": "usage", "since": "2026-11-27T00:00:00.000Z", "until": "2026-11-28T00:00:00.000Z",
           "timezone": "UTC", "by": "model", "data": [_ROW], "total": _ROW | {"group": None},
           "saving": _SAVING}  # fmt: skip


@router.get(
    "/usage",
    summary="Sum up usage and cost",
    responses={200: examples.answers("Usage", "Sums by group, and of all.", EXAMPLE), **documented()},
)
async def usage(
    tenant: Tenant,
    here: Here,
    since: Annotated[
        str | None,
        Query(max_length=64, description="An age like 7d, or ISO 8601 in UTC; a day ago without it.", **MOMENT),
    ] = None,
    until: Annotated[
        str | None, Query(max_length=64, description="The same, itself not included; now without it.", **MOMENT)
    ] = None,
    by: Annotated[By, Query(description="What to group by; a call with several tags counts under each.")] = "model",
) -> dict[str, Any]:
    """Sum up the calls of this key's tenant, with tokens, exact cost, and what routing saved; days are those of UTC.

    Calls whose answer was not seen (`unknown`) are booked at the most they can have cost. Where entries have been
    trimmed (VESSEL_LEDGER_RETENTION) the span is widened to whole days; `since` and `until` tell it.
    """
    now = await here.runner.run(clock())
    start = None if since is None else epoch_ms("since", since, now)
    end = None if until is None else epoch_ms("until", until, now)
    if backwards(start, end, now):
        raise InvalidRequest(f"since: {BACKWARDS}", param="since")
    found = await here.run(report(here.door, since=start, until=end, by=by, tenant=tenant))
    return found.as_dict()
