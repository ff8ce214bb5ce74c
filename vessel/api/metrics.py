"""The metrics of the REST face: requests of this process, and what Redis says at each scrape."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from prometheus_client import generate_latest

from vessel.client.gates import budgets, flows
from vessel.client.steps import Run, Steps
from vessel.client.under_way import reserved_nano
from vessel.dispatch.queues import queues_of, tiers_of
from vessel.errors import Unreachable
from vessel.jobs.steps import LANES
from vessel.keyspace.script import Call, command, timed
from vessel.keyspace.server import clock
from vessel.notify import store
from vessel.observe.metrics import Instruments, Source
from vessel.usage.tally import Tally, tally

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from vessel.api.health import Look
    from vessel.api.session import Session
    from vessel.client.gates import GateInfo
    from vessel.usage.budgets import Budget

BREAKERS = {"closed": 0, "ramp": 1, "open": 2}
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
MOST_PAGES = 80
"""Pages of the ledger that one scrape adds; the next one goes on."""
_LANES = {int(number): str(lane) for lane, number in LANES.items()}


class Measured:
    """What this process counts of its own requests, by the route's template: never by an id."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.instruments = Instruments(Source.API)


class Measuring:
    """An ASGI middleware that counts."""

    def __init__(self, app: ASGIApp, measured: Measured) -> None:
        """Take where to count."""
        self.app, self.told = app, measured.instruments

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, told = time.perf_counter(), self.told

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = route_of(scope)
                method = scope["method"] if scope["method"] in METHODS else "other"
                told.count("vessel_api_requests_total", method, route, str(message["status"]))
                told.observe("vessel_api_request_seconds", time.perf_counter() - began, route)
            await send(message)

        with told.gauge("vessel_api_requests_open").track_inprogress():
            await self.app(scope, receive, counted)


def route_of(scope: Scope) -> str:
    """Return the template of a request's route, which FastAPI tells without the prefix that it is mounted under."""
    template: str | None = getattr(scope.get("route"), "path", None)
    if template is None:
        return "unknown"
    prefix = next((p for p in ("/openai/v1", "/v1") if scope["path"].startswith(f"{p}/")), "")
    return template if template.startswith(f"{prefix}/") else prefix + template


@dataclass(frozen=True, slots=True)
class Depths:
    """Since when jobs wait (epoch ms of Redis, by tier), what is open, slots, spend caps, and the ledger's sums."""

    now: int
    oldest: dict[str, int]
    batches: int
    webhooks: int
    slots: int
    caps: list[Budget]
    reserved_nano: int
    tally: Tally = field(default_factory=Tally)


async def depths(here: Session) -> Depths:
    """Look at what no other view of the API holds. Raises RedisUnreachable, RedisRefused."""
    found = await here.run(_depths(here))
    for _ in range(MOST_PAGES):
        if not found.tally.behind:
            break
        found = replace(found, tally=await here.runner.run(tally(here.door.keys)))
    return found


def _depths(here: Session) -> Steps[Depths]:
    door = here.door
    queues = queues_of(door.registry.tiers)
    first: list[Any] = [
        clock(),
        command("ZCARD", door.keys.open_batches, parse=int),
        store.waiting(door.keys),
        door.slots(),
        tally(door.keys),
        *(_oldest(door.keys.tickets(queue)) for queue in queues),
    ]
    now, batches, webhooks, slots, sums, *issued = yield Run(first)
    oldest: dict[str, int] = {}
    backlog = yield from flows(door, heads=True)
    for queue, at in [*zip(queues, issued, strict=True), *((flow.queue, flow.oldest) for flow in backlog)]:
        (tier,) = tiers_of([queue])
        if at:
            oldest[tier] = min(at, oldest.get(tier, at))
    caps = yield from budgets(door)
    reserved = (yield from reserved_nano(door)) if caps else 0
    return Depths(now, oldest, batches, webhooks, slots, caps, reserved, sums)


def _oldest(name: str) -> Call[int]:
    return command("ZRANGE", name, 0, 0, "WITHSCORES", parse=lambda raw: sum(at for _, at in timed(raw)))


async def exposition(measured: Measured, seen: Look, here: Session) -> bytes:
    """Write everything in Prometheus' text format; without Redis only what this process knows by itself."""
    told = Instruments(Source.REDIS)
    up = seen.redis
    if up:
        try:
            waiting(told, await depths(here), [tier.name for tier in seen.tiers])
        except Unreachable:
            up = False
    if up:
        _tiers(told, seen)
        for gate in seen.gates:
            _gate(told, gate)
    told.set("vessel_redis_up", up)
    text = generate_latest(told.registry) if up else only_away()
    return generate_latest(measured.instruments.registry) + text


def only_away() -> bytes:
    """Write that Redis is away: figures that are not known must not look like zeros."""
    alone = Instruments(Source.REDIS, only={"vessel_redis_up"})
    alone.set("vessel_redis_up", 0)
    return generate_latest(alone.registry)


def waiting(told: Instruments, found: Depths, tiers: list[str]) -> None:
    """Tell who waits, what the caps are, and what the ledger adds up to."""
    told.set("vessel_slots", found.slots)
    told.set("vessel_batches_open", found.batches)
    told.set("vessel_webhooks_waiting", found.webhooks)
    _caps(told, found)
    for tier in tiers:
        since = found.oldest.get(tier)
        told.set("vessel_queue_age_seconds", max(0.0, (found.now - since) / 1000) if since else 0.0, tier)
    sums = found.tally
    for (model, outcome), calls in sums.calls.items():
        told.count("vessel_ledger_calls_total", model, outcome, by=calls)
    for (model, kind), tokens in sums.tokens.items():
        told.count("vessel_tokens_total", model, kind, by=tokens)
    for (model, outcome), nano_usd in sums.nano_usd.items():
        told.count("vessel_cost_usd_total", model, outcome, by=nano_usd / 1e9)
    for model, calls in sums.cached.items():
        told.count("vessel_cache_hits_total", model, by=calls)
    told.set("vessel_ledger_lag_seconds", max(0.0, (found.now - sums.behind) / 1000) if sums.behind else 0.0)


def _caps(told: Instruments, found: Depths) -> None:
    """Tell the caps of everybody by amount, and those of tenants by number: no label names a tenant."""
    used: Counter[tuple[str, str]] = Counter()
    for budget in found.caps:
        for name, cap in (("day", budget.day), ("month", budget.month)):
            if cap is None:
                continue
            if budget.tenant is None:
                told.set("vessel_budget_cap_usd", cap.cap / 1e9, name)
                told.set("vessel_budget_spent_usd", cap.spent / 1e9, name)
            else:
                used[name, "full" if cap.full_at or not cap.left else "warned" if cap.warned_at else "free"] += 1
    for (name, level), tenants in used.items():
        told.set("vessel_budget_tenants", tenants, name, level)
    told.set("vessel_budget_reserved_usd", found.reserved_nano / 1e9)


def _tiers(told: Instruments, seen: Look) -> None:
    for tier in seen.tiers:
        told.set("vessel_workers_live", tier.live_workers or 0, tier.name)
        told.set("vessel_jobs_waiting", tier.waiting or 0, tier.name)
    if seen.info is not None:
        told.set("vessel_maintenance_active", len(seen.info.active))
        for place in ("backlog", "tickets", "parked"):
            told.set("vessel_jobs_held", getattr(seen.info.held, place), place)


def _gate(told: Instruments, gate: GateInfo) -> None:
    view, name = gate.view, gate.gate
    told.set("vessel_calls_running", view.running, name)
    told.set("vessel_calls_booked", view.bookings, name)
    told.set("vessel_breaker_state", BREAKERS.get(view.model.state, 2), name)
    told.set("vessel_breaker_state", BREAKERS.get(view.provider.state, 2), "*")
    for lane, jobs in enumerate(gate.waiting):
        told.set("vessel_backlog_jobs", jobs, name, _LANES[lane])
    closings = {"retry_after": view.blocked_ms, "provider": view.provider.wait_ms, "model": view.model.wait_ms}
    for reason, wait_ms in closings.items():
        told.set("vessel_gate_closed_seconds", wait_ms / 1000, name, reason)
    for level in view.limits.values():
        told.set("vessel_limit_capacity", level.capacity, name, level.name)
        told.set("vessel_limit_left", level.left, name, level.name)
        told.set("vessel_limit_left_ratio", level.left / level.capacity if level.capacity else 0, name, level.name)
