"""`/health`, `/ready` and `/metrics`. Nothing here calls the upstream: a probe must not cost a request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from vessel.api import examples
from vessel.api.auth import Scraper, SeenBy
from vessel.api.faults import documented
from vessel.api.metrics import Measured, exposition, only_away
from vessel.api.session import Here
from vessel.client import documents
from vessel.client.gates import GateInfo, MaintenanceInfo, limits, maintained
from vessel.client.survey import TierInfo, tiers
from vessel.errors import Unreachable
from vessel.keyspace.server import clock
from vessel.observe.moments import moment
from vessel.submit import DEFAULT_TENANT

if TYPE_CHECKING:
    from vessel.api.session import Session

router = APIRouter(tags=["health"])
BELIEVED_S = 1.0
"""How long a look is believed: probes are open to all and must not load Redis."""

EXPOSED = 'vessel_workers_live{tier="power"} 1.0\n'
HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"
_EXAMPLE = {"status": HEALTHY, "models_available": 4, "api_reachable": True, "timestamp": "2026-11-27T12:00:00.000Z",
            "redis": True, "workers": {"power": 1}, "breaker": None, "maintenance": []}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen of the vessel at a moment of the monotonic clock."""

    at: float
    redis: bool
    tiers: list[TierInfo] = field(default_factory=list)
    gates: list[GateInfo] = field(default_factory=list)
    info: MaintenanceInfo | None = None
    models: int = 0
    listed: bool = False

    @property
    def status(self) -> str:
        """Say how it is: `unhealthy` when nothing can be accepted or served, `degraded` when part of it waits."""
        if not self.redis or not any(tier.live_workers for tier in self.tiers):
            return UNHEALTHY
        asleep = any(not tier.live_workers for tier in self.tiers)
        open_gate = any("open" in {gate.view.model.state, gate.view.provider.state} for gate in self.gates)
        held = self.info is not None and bool(self.info.active)
        return DEGRADED if asleep or open_gate or held else HEALTHY

    @property
    def reachable(self) -> bool | None:
        """Tell whether Groq answers, as workers saw it last; None where none has asked yet."""
        if not self.gates or not self.listed:
            return None
        return self.gates[0].view.provider.state != "open"


async def look(here: Session, known: Look | None) -> Look:
    """Look, unless what is known is fresh."""
    now = time.monotonic()
    if known is not None and now - known.at < BELIEVED_S:
        return known
    asking = here.asking(DEFAULT_TENANT)
    try:
        found, gates, info = (
            await here.run(tiers(asking)),
            await here.run(limits(asking)),
            await here.run(maintained(asking)),
        )
        availability, _ = await here.run(asking.seen(alive=False))
    except Unreachable:
        return Look(now, redis=False)
    served = sum(availability.serves(model) for model in here.door.registry.models.values())
    return Look(
        now, redis=True, tiers=found, gates=gates, info=info, models=served, listed=availability.listed is not None
    )


async def _look(request: Request, here: Session) -> Look:
    found = await look(here, getattr(request.app.state, "look", None))
    request.app.state.look = found
    return found


@router.get(
    "/health",
    summary="Tell how the vessel is",
    responses={
        200: examples.answers("Health", "It serves: healthy, or degraded.", _EXAMPLE),
        503: examples.answers("Health", "It cannot accept or serve jobs.", {"status": UNHEALTHY}),
        **{status: what for status, what in documented().items() if status == 400},
    },
)
async def health(request: Request, here: Here, who: SeenBy) -> JSONResponse:
    """Tell how the vessel is. Without a key only the status is told."""
    seen = await _look(request, here)
    body: dict[str, Any] = {"status": seen.status}
    if who is not None:
        first = seen.gates[0].view.provider if seen.gates else None
        body |= {
            "models_available": seen.models,
            "api_reachable": seen.reachable,
            "timestamp": moment(time.time_ns() // 1_000_000),
            "redis": seen.redis,
            "workers": {tier.name: tier.live_workers or 0 for tier in seen.tiers},
            "breaker": documents.breaker(first) if first else None,
            "maintenance": documents.maintenance(seen.info)["maintenance"] if seen.info else [],
        }
    return JSONResponse(body, 503 if seen.status == UNHEALTHY else 200)


@router.get(
    "/ready",
    summary="Tell whether jobs are accepted",
    responses={
        200: examples.answers("Ready", "Jobs are accepted.", {"status": "ready"}),
        503: examples.answers("Ready", "Jobs are not accepted now.", {"status": "not_ready"}),
        **{status: what for status, what in documented().items() if status == 400},
    },
)
async def ready(here: Here) -> JSONResponse:
    """Tell whether this process can accept jobs: Redis answers, and the process is not about to end."""
    try:
        await here.runner.run(clock())
    except Unreachable:
        return JSONResponse({"status": "not_ready"}, 503)
    return JSONResponse({"status": "not_ready"}, 503) if here.closing.is_set() else JSONResponse({"status": "ready"})


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type":
               "string"}, "example": EXPOSED}}}, **documented()},
)  # fmt: skip
async def metrics(request: Request, here: Here, known: Scraper) -> Response:
    """Give the vessel's gauges, read from Redis, and this process' request counters."""
    if not known:
        return Response(only_away(), headers={"content-type": CONTENT_TYPE_LATEST})
    seen = await _look(request, here)
    measured: Measured = request.app.state.measured
    return Response(await exposition(measured, seen, here), headers={"content-type": CONTENT_TYPE_LATEST})
