"""The simulator's own side, `/_sim/...`: what it saw, and how it is to behave."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import parse_qs

from vessel.simulator import problems
from vessel.simulator.encoding import encode
from vessel.simulator.plans import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from vessel.simulator.exchange import Exchange
    from vessel.simulator.world import Simulation

PREFIX = "/_sim/"


async def control(sim: Simulation, exchange: Exchange, method: str, path: str, query: bytes) -> None:
    """Answer one request to the simulator's own side."""
    raw = await exchange.body()
    what = path.removeprefix(PREFIX)
    command = _COMMANDS.get((method, what))
    if command is None:
        known = ", ".join(sorted(f"{verb} {PREFIX}{name}" for verb, name in _COMMANDS))
        raise problems.Problem(404, problems.error(f"The simulator has no {method} {path}. It has: {known}"), "unknown")
    try:
        body = json.loads(raw) if raw.strip() else {}
        params = {name: values[-1] for name, values in parse_qs(query.decode("latin-1")).items()}
        answer = command(sim, params if method == "GET" else body)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise problems.invalid(f"The simulator cannot do this: {error}") from error
    await exchange.answer(200, encode(answer))


def _stats(sim: Simulation, _: Any) -> Any:
    return sim.stats.summary() | {"world": sim.catalog.world, "plan": sim.plan}


def _calls(sim: Simulation, query: Any) -> Any:
    since = int(query.get("since", 0))
    most = int(query["limit"]) if "limit" in query else None
    calls = sim.stats.since(since, most)
    return {"calls": calls, "next": calls[-1]["seq"] if calls else since, "oldest": sim.stats.oldest}


def _faults(sim: Simulation, _: Any) -> Any:
    return {"rules": [rule.shown() for rule in sim.faults.rules], "outage": sim.faults.outage(sim.clock.now())}


def _add_faults(sim: Simulation, body: Any) -> Any:
    rules = body["rules"] if isinstance(body, dict) and "rules" in body else body
    sim.faults.add(rules, sim.clock.now())
    return _faults(sim, body)


def _clear_faults(sim: Simulation, body: Any) -> Any:
    sim.faults.clear()
    return _faults(sim, body)


def _outage(sim: Simulation, body: Any) -> Any:
    sim.faults.set_outage(body["mode"], body.get("duration_s"), sim.clock.now())
    return _faults(sim, body)


def _models(sim: Simulation, body: Any) -> Any:
    farewell = body.get("mode", "not_found")
    if farewell not in {"not_found", "decommissioned"}:
        raise ValueError(f"mode is not_found or decommissioned; got {farewell!r}")
    sim.catalog.remove(body.get("remove", []), farewell)
    sim.catalog.add(body.get("add", []))
    return {"models": list(sim.catalog.served)}


def _limits(sim: Simulation, _: Any) -> Any:
    return {"plan": sim.plan, "buckets": sim.limits_shown()}


def _set_limits(sim: Simulation, body: Any) -> Any:
    """Take `{plan}`, or `{model, rpm, rpd, tpm, tpd, otpm}` with the figures beside the model or under `limits`."""
    changes = dict(body)
    plan = changes.pop("plan", None)
    if plan is not None:
        if plan not in get_args(Plan):
            raise ValueError(f"plan is one of {', '.join(get_args(Plan))}; got {plan!r}")
        sim.change_plan(plan)
    model = changes.pop("model", "*")
    changes |= changes.pop("limits", {})
    if changes:
        sim.change_limits(model, changes)
    return _limits(sim, body)


def _restore_limits(sim: Simulation, body: Any) -> Any:
    sim.restore_limits()
    return _limits(sim, body)


def _keys(sim: Simulation, body: Any) -> Any:
    if unknown := set(body) - {"add", "revoke", "restrict"}:
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known: add, revoke, restrict")
    sim.keys.add(body.get("add", []))
    sim.keys.revoke(body.get("revoke", []))
    if "restrict" in body:
        sim.keys.restrict(only_listed=bool(body["restrict"]))
    return {"listed": len(sim.keys.listed), "revoked": len(sim.keys.revoked), "open": sim.keys.open}


def _latency(sim: Simulation, body: Any) -> Any:
    sim.latency = sim.latency.changed(body)
    now = sim.latency
    return {"scale": now.scale, "ms": now.constant_ms, "median_ms": now.median_ms, "sigma": now.sigma}


def _reset(sim: Simulation, body: Any) -> Any:
    """Reset everything, or only some of: stats, limits, faults."""
    parts = {"stats": sim.stats.reset, "limits": sim.empty_buckets, "faults": sim.faults.clear}
    only = body.get("only")
    if only is None:
        sim.reset()
    for name in only or ():
        parts[name]()
    return {"reset": only or "everything"}


_COMMANDS: dict[tuple[str, str], Callable[[Simulation, Any], Any]] = {
    ("GET", "stats"): _stats,
    ("GET", "calls"): _calls,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _add_faults,
    ("DELETE", "faults"): _clear_faults,
    ("POST", "outage"): _outage,
    ("POST", "models"): _models,
    ("GET", "limits"): _limits,
    ("POST", "limits"): _set_limits,
    ("DELETE", "limits"): _restore_limits,
    ("POST", "keys"): _keys,
    ("POST", "latency"): _latency,
    ("POST", "reset"): _reset,
}
