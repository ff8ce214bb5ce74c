"""What holds jobs back, and holding them: limits, tiers, maintenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vessel.api import examples
from vessel.api.auth import Admin, Tenant
from vessel.api.bodies import JsonBody
from vessel.api.faults import documented
from vessel.api.moments import epoch_ms
from vessel.api.session import Here
from vessel.client import documents
from vessel.client.gates import budgets, limits, maintained, refusals
from vessel.client.survey import tiers
from vessel.control import clear_maintenance, set_maintenance
from vessel.errors import InvalidRequest
from vessel.keyspace.server import clock
from vessel.observe.moments import moment
from vessel.wire import LONGEST_S

if TYPE_CHECKING:
    from vessel.api.session import Session

router = APIRouter(tags=["vessel"])
_HELD = {"total": 3, "backlog": 2, "tickets": 1, "parked": 0}
_MAINTENANCE = {"active": True, "at": "2026-11-27T12:00:00.000Z", "held": _HELD, "maintenance": [
    {"tier": "power", "since": "2026-11-27T11:00:00.000Z", "until": "2026-11-27T13:00:00.000Z", "remaining_s": 3600.0,
     "reason": "keys rotate", "held": 3}]}  # fmt: skip
_SET = examples.answers("Maintenance", "What is in maintenance, and what is held.", _MAINTENANCE)
_BODY = examples.body("MaintenanceRequest", {"tier": "power", "until": "2h", "reason": "keys rotate"})


class MaintenanceRequest(BaseModel):
    """What to hold, until when, and why."""

    model_config = ConfigDict(extra="forbid")

    tier: Annotated[str, Field(max_length=64)] | None = Field(None, description="Only this tier; else everything.")
    until: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="The planned end: a span like 2h, or ISO 8601. Without it until it is ended by hand."
    )
    reason: str = Field("", description="Told to whoever waits: one line of at most 200 characters.")


@router.get(
    "/limits",
    summary="Show the headroom of every limit",
    responses={200: examples.answers("Limits", "Every gate in use.", {"object": "limits", "org": "default",
               "plan": "developer", "breaker": None, "models": [], "refusals": [], "budgets": []}), **documented()},
)  # fmt: skip
async def show_limits(tenant: Tenant, here: Here) -> dict[str, Any]:
    """Show what is left of each limit now, what holds calls back, who waits, and what was refused in the last day."""
    asking = here.asking(tenant)
    now = await here.runner.run(clock())
    found, caps = await here.run(limits(asking, failover=True)), await here.run(budgets(here.door))
    refused = await here.run(refusals(asking))
    settings = here.settings
    return {
        "object": "limits",
        "at": moment(now),
        "org": settings.org,
        "plan": settings.groq_plan,
        "breaker": documents.breaker(found[0].view.provider) if found else None,
        "models": [documents.gate(gate) for gate in found],
        "refusals": [documents.refused(one) for one in refused],
        "budgets": [documents.budget(cap) for cap in caps if cap.tenant in {None, tenant}],
    }


@router.get(
    "/tiers",
    summary="List the tiers",
    responses={200: examples.answers("TierList", "The tiers.", {"object": "list", "data": [{"name": "power", "object":
               "tier", "model": "openai/gpt-oss-120b", "served_by": "openai/gpt-oss-120b", "live_workers": 1,
               "waiting": 0}]}), **documented()},
)  # fmt: skip
async def show_tiers(tenant: Tenant, here: Here) -> dict[str, Any]:
    """List the tiers: what serves each now, its live workers, and how many jobs wait."""
    found = await here.run(tiers(here.asking(tenant)))
    data = [
        {"name": tier.name, "object": "tier", "model": tier.model, "served_by": tier.served_by,
         "live_workers": tier.live_workers, "waiting": tier.waiting}
        for tier in found
    ]  # fmt: skip
    return {"object": "list", "data": data}


@router.get("/maintenance", summary="Show maintenance", responses={200: _SET, **documented()})
async def show(tenant: Tenant, here: Here) -> dict[str, Any]:
    """Tell what is in maintenance, why and until when, and how many jobs are held."""
    return await _shown(here, tenant)


@router.put(
    "/maintenance",
    summary="Begin or change a maintenance",
    responses={200: _SET, **documented(408, 415)},
    openapi_extra={"requestBody": _BODY},
)
async def begin(who: Admin, here: Here, body: JsonBody) -> dict[str, Any]:
    """Hold all jobs, or those of a tier: they are accepted, wait and use no attempt. Calls under way end."""
    asked = _read(body.value)
    set_maintenance(here.door, asked.tier, None, asked.reason)  # a bad tier or reason is told before Redis is asked
    until: int | None = None
    if asked.until is not None:
        at = await here.runner.run(clock())
        until = epoch_ms("until", asked.until, at, ahead=True)
        if until - at > LONGEST_S * 1000:
            raise InvalidRequest("until: at most 366 days ahead. Leave it out for an open end.", param="until")
    await here.runner.run(set_maintenance(here.door, asked.tier, until, asked.reason))
    return await _shown(here, who.tenant)


@router.delete("/maintenance", summary="End maintenance", responses={200: _SET, **documented()})
async def end(
    who: Admin,
    here: Here,
    tier: Annotated[str | None, Query(max_length=64, description="Only that of this tier; else all.")] = None,
) -> dict[str, Any]:
    """End maintenance; held jobs go on, no faster than the limits allow."""
    await here.runner.run(clear_maintenance(here.door, tier))
    return await _shown(here, who.tenant)


def _read(value: dict[str, Any]) -> MaintenanceRequest:
    try:
        return MaintenanceRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        param = ".".join(str(part)[:64] for part in first["loc"])
        raise InvalidRequest(f"{param}: {first['msg']}.", param=param) from None


async def _shown(here: Session, tenant: str) -> dict[str, Any]:
    return documents.maintenance(await here.run(maintained(here.asking(tenant))))
