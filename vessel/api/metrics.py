"""The names of all metrics of the REST face: requests of this process, and gauges read from Redis at each scrape."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from vessel.client.gates import GateInfo, MaintenanceInfo
    from vessel.client.survey import TierInfo

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
BREAKERS = {"closed": 0, "ramp": 1, "open": 2}


class Measured:
    """What this process counts of its own requests, by the route's template: never by an id."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vessel_api_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "vessel_api_request_seconds", "Time until the answer began.", ("route",), buckets=BUCKETS,
            registry=self.registry,
        )  # fmt: skip
        self.open = Gauge("vessel_api_requests_open", "Requests that are being answered.", registry=self.registry)


class Measuring:
    """An ASGI middleware that counts."""

    def __init__(self, app: ASGIApp, measured: Measured) -> None:
        """Take where to count."""
        self.app, self.measured = app, measured

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, measured = time.perf_counter(), self.measured

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "unknown")
                measured.requests.labels(scope["method"], route, str(message["status"])).inc()
                measured.seconds.labels(route).observe(time.perf_counter() - began)
            await send(message)

        with measured.open.track_inprogress():
            await self.app(scope, receive, counted)


def rendered(
    measured: Measured,
    tiers: Iterable[TierInfo],
    gates: Iterable[GateInfo],
    info: MaintenanceInfo | None,
    *,
    up: bool,
) -> bytes:
    """Write everything in Prometheus' text format."""
    seen = CollectorRegistry()
    Gauge("vessel_redis_up", "Whether Redis answered.", registry=seen).set(up)
    workers = Gauge("vessel_workers_live", "Live workers.", ("tier",), registry=seen)
    waiting = Gauge("vessel_jobs_waiting", "Jobs that wait for a worker.", ("tier",), registry=seen)
    for tier in tiers:
        workers.labels(tier.name).set(tier.live_workers or 0)
        waiting.labels(tier.name).set(tier.waiting or 0)
    left = Gauge("vessel_limit_left_ratio", "Part of a limit that is left.", ("model", "limit"), registry=seen)
    running = Gauge("vessel_calls_running", "Calls under way.", ("model",), registry=seen)
    state = Gauge("vessel_breaker_state", "0 closed, 1 ramp, 2 open.", ("model",), registry=seen)
    for gate in gates:
        running.labels(gate.gate).set(gate.view.running)
        state.labels(gate.gate).set(BREAKERS.get(gate.view.model.state, 2))
        state.labels("*").set(BREAKERS.get(gate.view.provider.state, 2))
        for level in gate.view.limits.values():
            left.labels(gate.gate, level.name).set(level.left / level.capacity if level.capacity else 0)
    if info is not None:
        Gauge("vessel_maintenance_active", "What is in maintenance.", registry=seen).set(len(info.active))
        held = Gauge("vessel_jobs_held", "Jobs that wait, by where.", ("place",), registry=seen)
        for place in ("backlog", "tickets", "parked"):
            held.labels(place).set(getattr(info.held, place))
    return generate_latest(measured.registry) + generate_latest(seen)
