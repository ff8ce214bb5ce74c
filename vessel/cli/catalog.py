"""What the commands about routing, models and tiers print."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vessel.cli.output import emit, note, say, table, usd
from vessel.cli.reading import prompt_text
from vessel.client import GroqClient

if TYPE_CHECKING:
    from vessel.client import ModelInfo


def show_route(text: str, asked: dict[str, Any], *, as_json: bool) -> None:
    """Print where a prompt would go."""
    prompt = prompt_text(text)
    with GroqClient() as client:
        plan = client.route(prompt, **asked)
    if as_json:
        emit(plan.as_dict())
        return
    facts = {
        "tier": plan.tier,
        "model": plan.model,
        "why": "; ".join(plan.reasons),
        "then": " -> ".join(f"{hop.model} ({hop.tier})" for hop in plan.hops[1:]) or "no other model",
        "tools": ", ".join(plan.builtin_tools),
        "tokens": f"about {plan.estimated_tokens} in, at most {plan.max_output_tokens} out",
        "cost": f"about {usd(plan.typical_cost_usd)}, at most {usd(plan.worst_cost_usd)}",
        "workers": "unknown, Redis was not asked" if plan.live_workers is None else str(plan.live_workers),
    }
    for name, value in facts.items():
        if value:
            say(f"{name:<9}{value}")
    if not plan.as_listed:
        note("-- By the registry's dates: no worker has asked Groq yet which models it serves to this key.")


def show_models(*, refresh: bool, as_json: bool) -> None:
    """Print the models."""
    if refresh:
        from vessel.cli.refresh import refresh_models

        refresh_models()
    with GroqClient() as client:
        found = client.models()
    if as_json:
        for info in found:
            emit(_model_document(info))
        return
    rows = [
        (
            info.model.id,
            info.model.tier or "-",
            "yes" if info.served else info.stand_in or "no",
            info.model.speed_tps,
            info.model.context_window,
            f"{info.model.prices.input:f}",
            f"{info.model.prices.output:f}",
        )
        for info in found
        if info.model.routable
    ]
    columns = ("MODEL", "TIER", "SERVED OR BY", "TOKENS/S", "WINDOW", "USD/M IN", "USD/M OUT")
    table(columns, rows, right=("TOKENS/S", "WINDOW", "USD/M IN", "USD/M OUT"))
    note(f"-- {len(found) - len(rows)} more models do not answer chat completions; --json lists them.")


def show_tiers(*, as_json: bool) -> None:
    """Print the tiers."""
    with GroqClient() as client:
        found = client.tiers()
    if as_json:
        for info in found:
            emit(asdict(info))
        return
    rows = [(i.name, i.served_by or "nothing", i.model, i.live_workers, i.waiting) for i in found]
    table(("TIER", "SERVED BY", "MADE FOR", "WORKERS", "WAITING"), rows, right=("WORKERS", "WAITING"))
    if any(info.live_workers is None for info in found):
        note("-- Redis was not asked, so workers and queues are unknown. `vessel up` starts one.")


def _model_document(info: ModelInfo) -> dict[str, Any]:
    model = info.model
    cached = model.prices.cached_input
    prices = {"input": model.prices.input, "cached_input": cached, "output": model.prices.output}
    return {
        "id": model.id,
        "tier": model.tier or None,
        "kind": model.kind,
        "status": model.status,
        "served": info.served,
        "stand_in": info.stand_in,
        "retires": model.retires.isoformat() if model.retires else None,
        "speed_tps": model.speed_tps,
        "context_window": model.context_window,
        "max_output": model.max_output,
        "priced_per": model.priced_per,
        "prices_usd": prices,
        "features": sorted(model.features),
    }
