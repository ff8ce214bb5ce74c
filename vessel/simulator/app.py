"""The ASGI app: Groq's paths, and the simulator's own side under /_sim."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from vessel.simulator.chat import chat
from vessel.simulator.exchange import Exchange
from vessel.simulator.faults import BadRule, read_rule
from vessel.simulator.models import listing
from vessel.simulator.validate import Fault, not_found
from vessel.simulator.world import Simulation, SimulatorConfig

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]

BASE = "/openai/v1"


def create_app(
    config: SimulatorConfig | None = None,
    clock: Callable[[], float] = time.time,
    *,
    simulation: Simulation | None = None,
) -> App:
    """Build the app; give a simulation to look into it, or a clock to own its time."""
    sim = simulation or Simulation(config or SimulatorConfig(), clock)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        exchange = Exchange(scope, receive, send, sim.clock)
        try:
            await _route(sim, exchange, scope)
        finally:
            exchange.finish()

    return app


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _route(sim: Simulation, exchange: Exchange, scope: dict[str, Any]) -> None:
    path = unquote(scope["raw_path"].decode("latin-1").partition("?")[0]) if scope.get("raw_path") else scope["path"]
    method = scope["method"]
    if path.startswith("/_sim/"):
        await _control(sim, exchange, path.removeprefix("/_sim/"), method, scope)
        return
    if not path.startswith(BASE + "/"):
        await _unknown(exchange, method, path)
        return
    if not sim.accepts(exchange.header(b"authorization")):
        await exchange.body()
        await exchange.error(Fault("Invalid API Key", 401, code="invalid_api_key"))
        return
    rest = path.removeprefix(BASE)
    if rest == "/chat/completions" and method == "POST":
        await chat(sim, exchange)
    elif rest == "/models" and method == "GET":
        await exchange.json(200, {"object": "list", "data": [listing(m) for m in sim.models.values()]})
    elif rest.startswith("/models/") and method == "GET":
        model = sim.models.get(rest.removeprefix("/models/"))
        if model is None:
            await exchange.error(not_found(rest.removeprefix("/models/")))
        else:
            await exchange.json(200, listing(model))
    else:
        await _unknown(exchange, method, path)


async def _unknown(exchange: Exchange, method: str, path: str) -> None:
    await exchange.body()
    text = f"Unknown request URL: {method} {path[:200]}. Please check the URL for typos, or see the docs at "
    await exchange.error(Fault(text + "https://console.groq.com/docs/", 404, code="unknown_url"))


async def _control(sim: Simulation, exchange: Exchange, what: str, method: str, scope: dict[str, Any]) -> None:
    raw = await exchange.body()
    try:
        body = json.loads(raw) if raw else {}
        answer = _obey(sim, what, method, body, parse_qs(scope["query_string"].decode()))
    except (BadRule, ValueError, KeyError, TypeError, AttributeError) as error:
        await exchange.error(Fault(f"The simulator does not understand this: {error}"))
        return
    if answer is None:
        await _unknown(exchange, method, f"/_sim/{what}")
    else:
        await exchange.json(200, answer)


def _obey(  # noqa: C901, PLR0911  one case per command
    sim: Simulation, what: str, method: str, body: Any, query: dict[str, list[str]]
) -> dict[str, Any] | None:
    match what, method:
        case "stats", "GET":
            return sim.stats.summary()
        case "calls", "GET":
            return {"calls": sim.stats.since(int(query.get("since", ["0"])[0]))}
        case "faults", "POST":
            rules = body if isinstance(body, list) else [body]
            sim.faults.rules += [read_rule(rule, sim.clock()) for rule in rules]
            return {"rules": len(sim.faults.rules)}
        case "faults", "DELETE":
            sim.faults.rules.clear()
            return {"rules": 0}
        case "outage", "POST":
            sim.faults.set_outage(str(body["mode"]), body.get("duration_s"), sim.clock())
            return {"outage": body["mode"]}
        case "models", "POST":
            sim.change_models(body.get("remove", []), body.get("add", []))
            return {"models": sorted(sim.models)}
        case "limits", "POST":
            sim.set_limits(body.get("model", "*"), body["limits"])
            return {"limits": body["limits"]}
        case "keys", "POST":
            sim.keys.update(body.get("add", []))
            sim.revoked.update(body.get("revoke", []))
            sim.revoked.difference_update(body.get("add", []))
            return {"revoked": len(sim.revoked)}
        case "latency", "POST":
            scale, constant, median = sim.latency
            sim.latency = (body.get("scale", scale), body.get("ms", constant), body.get("median_ms", median))
            return {"latency": list(sim.latency)}
        case "reset", "POST":
            sim.reset()
            return {"reset": True}
        case _:
            return None
