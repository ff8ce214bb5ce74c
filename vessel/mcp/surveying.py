"""The tools that only look: list_models, route, usage and health."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mcp_types import ToolAnnotations

from vessel.client import documents
from vessel.errors import Unreachable
from vessel.mcp.answers import HealthGiven, ModelsGiven, RouteGiven, UsageSums
from vessel.mcp.asks import ListModels, Nothing, Route, UsageOf
from vessel.mcp.catalog import Answer, Tool

if TYPE_CHECKING:
    from vessel.client import AsyncGroqClient, ModelInfo
    from vessel.mcp.catalog import Call

LOOKS = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)
Sums = Callable[[str, str | None, str | None, str], Awaitable[dict[str, Any]]]
"""Sums up a tenant's usage: tenant, since, until, by."""


async def list_models(call: Call, asked: ListModels) -> Answer:
    """List models and tiers."""
    client = call.client
    models = [
        document
        for document in map(model_document, await client.models())
        if (asked.tier is None or document["tier"] == asked.tier) and (document["served"] or not asked.only_served)
    ]
    tiers = [asdict(tier) for tier in await client.tiers() if asked.tier in {None, tier.name}]
    return Answer({"models": models, "tiers": tiers})


def model_document(info: ModelInfo) -> dict[str, Any]:
    """Describe a model of the registry."""
    model = info.model
    return {
        "id": model.id,
        "tier": model.tier or None,
        "kind": str(model.kind),
        "served": info.served,
        "stand_in": info.stand_in,
        "retires": model.retires.isoformat() if model.retires else None,
        "speed_tps": model.speed_tps,
        "context_window": model.context_window,
        "max_output": model.max_output,
        "priced_per": str(model.priced_per),
        "price_input_usd": float(model.prices.input),
        "price_output_usd": float(model.prices.output),
        "features": sorted(str(feature) for feature in model.features),
    }


async def route(call: Call, asked: Route) -> Answer:
    """Tell where a prompt would go."""
    options = asked.options() | ({"context": asked.context} if asked.context else {})
    plan = await call.client.route(asked.prompt, **options)
    costs = {name: float(getattr(plan, name)) for name in ("typical_cost_usd", "worst_cost_usd")}
    return Answer(plan.as_dict() | costs)


async def health(call: Call, asked: Nothing) -> Answer:
    """Tell how the vessel is; also without Redis."""
    del asked
    return Answer(await health_document(call.client))


async def health_document(client: AsyncGroqClient) -> dict[str, Any]:
    """Look at workers, breakers and maintenance, and say what to do about what is wrong."""
    tiers = await client.tiers()
    workers = {tier.name: tier.live_workers or 0 for tier in tiers}
    served = sum(info.served for info in await client.models())
    found: dict[str, Any] = {
        "redis": True,
        "workers": workers,
        "waiting": {tier.name: tier.waiting or 0 for tier in tiers},
        "models_available": served,
        "open_breakers": [],
        "maintenance": [],
        "advice": [],
    }
    try:
        gates, info = await client.limits(), await client.maintenance()
    except Unreachable as error:
        return found | {"status": "unhealthy", "redis": False, "advice": [error.message]}
    found["open_breakers"] = [
        gate.gate for gate in gates if "open" in {gate.view.model.state, gate.view.provider.state}
    ]
    found["maintenance"] = documents.maintenance(info)["maintenance"]
    asleep = [name for name, count in workers.items() if not count]
    if asleep:
        found["advice"].append(f"No worker serves {', '.join(asleep)}; `vessel worker --tiers ...` starts one.")
    degraded = asleep or found["open_breakers"] or found["maintenance"]
    status = "unhealthy" if len(asleep) == len(workers) else "degraded" if degraded else "healthy"
    return {"status": status} | found


def usage_tool(sums: Sums) -> Tool:
    """Make the usage tool; the ledger is summed up by `sums`."""

    async def usage(call: Call, asked: UsageOf) -> Answer:
        """Sum up calls, tokens and cost."""
        return Answer(await sums(call.visitor.tenant, asked.since, asked.until, asked.by))

    return Tool(
        "usage",
        "Usage and cost",
        "Sum up your calls, tokens and exact cost over a time (the last day unless said), by model, tier, day or tag.",
        UsageOf,
        usage,
        LOOKS,
        UsageSums,
    )


TOOLS = (
    Tool(
        "list_models",
        "List models",
        "List the models with tier, limits of length, prices and whether they are served now, and the tiers with live "
        "workers and queue lengths.",
        ListModels,
        list_models,
        LOOKS,
        ModelsGiven,
    ),
    Tool(
        "route",
        "Where a prompt would go",
        "Tell which tier and model would serve a prompt, why, what comes after it, and what it would cost. Nothing is "
        "submitted.",
        Route,
        route,
        LOOKS,
        RouteGiven,
    ),
    Tool(
        "health",
        "How Vessel is",
        "Tell whether jobs are accepted and served: Redis, workers of each tier, breakers, maintenance; with advice.",
        Nothing,
        health,
        LOOKS,
        HealthGiven,
    ),
)
