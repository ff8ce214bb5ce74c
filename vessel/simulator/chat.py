"""One request to chat completions: authorised, checked, admitted, computed, perhaps broken on purpose, answered.

A call whose client went away is computed to its end, as Groq does and bills it; it is logged as not delivered.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import TYPE_CHECKING, Any

from vessel.simulator import breakage, validate
from vessel.simulator.answers import last_user_text, prompt_tokens
from vessel.simulator.reply import Answer, compute, output_budget
from vessel.simulator.stream import stream

if TYPE_CHECKING:
    from vessel.simulator.exchange import Exchange
    from vessel.simulator.faults import Rule
    from vessel.simulator.models import SimModel
    from vessel.simulator.stats import Call
    from vessel.simulator.world import Simulation

HTTP_OK = 200


async def chat(sim: Simulation, exchange: Exchange) -> None:
    """Answer one request; whatever happens is in the log of calls."""
    raw = await exchange.body()
    try:
        body = json.loads(raw)
        model_id = str(body["model"])
    except (ValueError, KeyError, TypeError):
        await exchange.error(validate.Fault("could not parse the request body as JSON with a `model`"))
        return
    call = sim.stats.begin(exchange.request_id, model_id, sim.clock())
    call.retry_count = int(exchange.header(b"x-stainless-retry-count") or 0)
    call.attempt = exchange.header(b"x-vessel-attempt")
    try:
        await _serve(sim, exchange, body, call)
    finally:
        sim.stats.end(call, sim.clock())


async def _serve(sim: Simulation, exchange: Exchange, body: dict[str, Any], call: Call) -> None:
    model = sim.models.get(call.model)
    if model is None or not model.chat:
        await _refuse(exchange, call, validate.not_found(call.model))
        return
    exchange.limits = sim.limits_of(model)
    messages: Any = body.get("messages")
    call.user = body.get("user") if isinstance(body.get("user"), str) else None
    call.prompt_tokens = prompt_tokens(messages) if isinstance(messages, list) else 0
    fault = validate.check(body, model, call.prompt_tokens)
    if fault is not None:
        await _refuse(exchange, call, fault)
        return
    call.digest = sim.digest(messages)
    rule = sim.faults.find(model.id, last_user_text(body["messages"]), sim.clock())
    if rule is not None and rule.kind in breakage.BEFORE:
        call.status, call.reason = await breakage.before(rule, exchange, model)
        return
    await _admitted(sim, exchange, body, call, model, rule)


async def _admitted(
    sim: Simulation, exchange: Exchange, body: dict[str, Any], call: Call, model: SimModel, rule: Rule | None
) -> None:
    budget = output_budget(body, model)
    limits = sim.limits_of(model)
    refusal = limits.admit(call.prompt_tokens, budget, sim.clock())
    if refusal is not None:
        if refusal.status == 429:  # noqa: PLR2004  the HTTP status
            exchange.retry_after = str(math.ceil(refusal.wait_s))
        kind = "requests" if refusal.name in {"rpm", "rpd"} else "tokens"
        text = refusal.message(model.id, sim.config.org)
        call.reason = refusal.name
        await _refuse(exchange, call, validate.Fault(text, refusal.status, kind, "rate_limit_exceeded"))
        return
    answer = compute(body, model, call.prompt_tokens)
    if body.get("stream"):
        await stream(sim, exchange, call, answer, rule, model.id)
    else:
        await sim.sleep(answer.total_s)
        await _answer(sim, exchange, call, answer, rule, str(body.get("service_tier") or "on_demand"))
    limits.settle(budget - answer.completion_tokens, 0, sim.clock())


async def _answer(
    sim: Simulation, exchange: Exchange, call: Call, answer: Answer, rule: Rule | None, tier: str
) -> None:
    call.completion_tokens = answer.completion_tokens
    call.status = HTTP_OK
    body = answer.body(call.model, exchange.request_id, int(sim.clock()), tier)
    if rule is None:
        call.delivered = await exchange.json(HTTP_OK, body)
        return
    call.reason = rule.kind
    call.delivered = await breakage.after(rule, exchange, body)


async def _refuse(exchange: Exchange, call: Call, fault: validate.Fault) -> None:
    call.status = fault.status
    call.reason = call.reason or fault.code or fault.type
    call.delivered = await exchange.error(fault)


async def forever() -> None:
    """Never answer."""
    await asyncio.Event().wait()
