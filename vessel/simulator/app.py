"""The ASGI app: Groq's paths, and the simulator's own side under /_sim."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from vessel.simulator import problems
from vessel.simulator.chat import chat, play_outage
from vessel.simulator.config import SimulatorConfig
from vessel.simulator.control import PREFIX, control
from vessel.simulator.encoding import encode
from vessel.simulator.exchange import ClientGone, Exchange
from vessel.simulator.models import listing
from vessel.simulator.world import Simulation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vessel.simulator.clock import Clock
    from vessel.simulator.exchange import Receive, Scope, Send

    App = Callable[[Scope, Receive, Send], Awaitable[None]]

BASE = "/openai/v1"
CHAT = f"{BASE}/chat/completions"
MODELS = f"{BASE}/models"


def create_app(
    config: SimulatorConfig | None = None, clock: Clock | None = None, *, simulation: Simulation | None = None
) -> App:
    """Build the app; give a clock to own its time, or a whole simulation to look into it."""
    sim = simulation or Simulation(config or SimulatorConfig(), clock)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        exchange = Exchange(scope, receive, send, sim.clock)
        if scope["path"] == CHAT and scope["method"] == "POST":
            await chat(sim, exchange)
            return
        try:
            await _route(sim, exchange, scope)
        except problems.Problem as problem:
            await exchange.problem(problem)
        except ClientGone:
            pass

    return app


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _route(sim: Simulation, exchange: Exchange, scope: Scope) -> None:
    """Answer everything but chats; files, batches and audio are not built yet and so are unknown URLs."""
    method, path = scope["method"], unquote(scope["path"])
    if path.startswith(PREFIX):
        await control(sim, exchange, method, path, scope["query_string"])
        return
    await exchange.body()
    if not path.startswith("/openai/"):
        raise problems.unknown_url(method, path)
    if (mode := sim.faults.outage(sim.clock.now())) != "off":
        await play_outage(mode, exchange, sim.config.hang_s)
        return
    sim.org_of(exchange)
    if method != "GET" or (path != MODELS and not path.startswith(MODELS + "/")):
        raise problems.unknown_url(method, path)
    name = path.removeprefix(MODELS).removeprefix("/")
    if not name:
        await exchange.answer(200, sim.catalog.listed())
        return
    model = sim.catalog.served.get(name)
    if model is None:
        raise problems.model_not_found(name)
    await exchange.answer(200, encode(listing(model)))
