"""One request to chat completions: let in, checked, admitted, computed, and answered or spoiled.

A call whose client went away is computed to its end, as Groq does and bills it; the log says it was not delivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

from vessel.simulator import answers, problems, spoil, streaming, validation
from vessel.simulator.buckets import Charge, Gate
from vessel.simulator.completion import Completion, complete, reservation, usage, usage_breakdown
from vessel.simulator.encoding import encode
from vessel.simulator.exchange import ClientGone
from vessel.simulator.faults import OutageMode, Phase, Rule, Subject

if TYPE_CHECKING:
    from vessel.simulator.exchange import Exchange
    from vessel.simulator.latency import Timing
    from vessel.simulator.models import SimModel
    from vessel.simulator.stats import Call
    from vessel.simulator.world import Simulation

CLIENT_LEFT = 499


@dataclass(slots=True)
class Work:
    """A request on its way through: everything known about it so far."""

    call: Call
    body: dict[str, Any]
    model: SimModel
    gate: Gate
    charge: Charge
    rule: Rule | None
    tier: str


async def chat(sim: Simulation, exchange: Exchange) -> None:
    """Answer one request; whatever happens is in the log of calls."""
    call = sim.stats.begin(exchange.request_id, sim.clock.now())
    count = exchange.header(b"x-stainless-retry-count")
    call.retry_count = int(count) if count and count.isdecimal() else 0
    call.attempt = exchange.header(b"x-vessel-attempt")
    try:
        await _chat(sim, exchange, call)
    except problems.Problem as problem:
        call.status, call.reason = problem.status, call.reason or problem.reason
        call.delivered = await exchange.problem(problem)
    except ClientGone:
        call.status, call.reason = CLIENT_LEFT, "client_left"
    finally:
        sim.stats.end(call, sim.clock.now())


async def _chat(sim: Simulation, exchange: Exchange, call: Call) -> None:
    raw = await exchange.body()
    if (mode := sim.faults.outage(sim.clock.now())) != "off":
        call.reason = call.fault = f"outage_{mode}"
        call.status = await play_outage(mode, exchange, sim.config.hang_s)
        return
    call.org = sim.org_of(exchange)
    body = validation.parse(raw)
    call.model = body["model"]
    exchange.gate = sim.gate(call.org, call.model)
    try:
        work = _checked(sim, exchange, call, body)
    except RecursionError:
        raise problems.invalid("The request is nested too deeply") from None
    if work.rule is None:
        await _admitted(sim, exchange, work)
        return
    call.fault = work.rule.kind
    if work.rule.phase is Phase.STALL:
        await _stall(sim, exchange, work)
        return
    if work.rule.phase is Phase.REFUSE:
        await sim.clock.sleep(work.rule.delay_s or 0)
        raise spoil.refusal(work.rule, work.model.id)
    await _admitted(sim, exchange, work)


def _checked(sim: Simulation, exchange: Exchange, call: Call, body: dict[str, Any]) -> Work:
    model = sim.catalog.chat_model(call.model)
    user = body.get("user")
    call.user = user if isinstance(user, str) else None
    call.prompt_tokens = validation.check(body, model)
    call.digest = answers.digest(body["messages"])
    call.stream = bool(body.get("stream"))
    asked = body.get("service_tier") or "on_demand"
    tier = "on_demand" if asked == "auto" else asked
    if tier == "flex":
        if sim.plan == "free":
            raise problems.invalid("`flex` service tier is not available for your organization", "service_tier")
        exchange.gate = sim.gate(call.org, model.id, tier)
    gate = exchange.gate or sim.gate(call.org, model.id)
    rules = sim.faults.rules
    rule = sim.faults.find(Subject(body, model.id, answers.prompt_text), sim.clock.now()) if rules else None
    return Work(call, body, model, gate, Charge(call.prompt_tokens, reservation(body, model)), rule, tier)


async def play_outage(mode: OutageMode, exchange: Exchange, hang_s: float) -> int:
    """Answer as an API that is down; returns the status for the log."""
    match mode:
        case "hang":
            await exchange.gone(hang_s)
            return CLIENT_LEFT
        case "refuse_reset":
            await exchange.reset()
            return 0
        case "503" | "off":
            await exchange.problem(problems.plain(503))
            return 503
    assert_never(mode)


async def _stall(sim: Simulation, exchange: Exchange, work: Work) -> None:
    """Cut the connection, or say nothing until the client leaves; nothing is computed."""
    rule = work.rule
    if rule is not None and rule.kind == "reset_on_arrival":
        work.call.reason = rule.kind
        await exchange.reset()
        return
    work.call.reason = "hang"
    limit = sim.config.hang_s if rule is None or rule.delay_s is None else rule.delay_s
    await exchange.gone(limit)
    work.call.status = CLIENT_LEFT


async def _admitted(sim: Simulation, exchange: Exchange, work: Work) -> None:
    now = sim.clock.now()
    refusal = work.gate.admit(work.charge, now)
    if refusal is not None:
        raise problems.refused(refusal, work.model.id, work.call.org, work.tier)
    call, rule = work.call, work.rule
    call.accepted = True
    mark = call.digest or ""
    done = complete(work.body, work.model, mark, sim.config.tool_reports)
    if rule is not None:
        done = spoil.spoil_completion(rule.kind, done)
    call.completion_tokens = done.tokens
    call.cached_tokens = sim.cached(call.org, work.model, work.body["messages"], mark, now)
    timing, wait_s = sim.latency.timing(work.model, call.prompt_tokens, done.tokens, sim.dice)
    if rule is not None and rule.kind == "slow":
        await sim.clock.sleep(1.0 if rule.delay_s is None else rule.delay_s)
    problem = spoil.failure(rule) if rule is not None and rule.phase is Phase.FAIL else done.problem
    if problem is None and call.stream:
        await _stream(sim, exchange, work, done, timing, wait_s)
        return
    if wait_s > 0:
        await sim.clock.sleep(wait_s)
    _settle(sim, work)
    if problem is not None:
        await _fail(sim, exchange, work, done, timing, problem)
        return
    await _answer(sim, exchange, work, done, timing)


def _settle(sim: Simulation, work: Work) -> None:
    """Give back what was reserved and not used."""
    work.gate.settle(work.charge, work.call.completion_tokens, work.call.cached_tokens, sim.clock.now())


async def _fail(
    sim: Simulation, exchange: Exchange, work: Work, done: Completion, timing: Timing, problem: problems.Problem
) -> None:
    if not work.call.stream:
        raise problem
    work.call.status, work.call.reason = 200, problem.reason
    script = _script(sim, exchange, work, done, timing, 0.0)
    await streaming.play_failure(exchange, script, problem)


def _usage(work: Work, done: Completion, timing: Timing) -> dict[str, Any]:
    return usage(done, work.call.prompt_tokens, work.call.cached_tokens, timing)


async def _answer(sim: Simulation, exchange: Exchange, work: Work, done: Completion, timing: Timing) -> None:
    call, rule = work.call, work.rule
    call.status, call.completed = 200, True
    whole = _usage(work, done, timing)
    x_groq: dict[str, Any] = {"id": exchange.request_id, "seed": sim.seed_of(work.body, call)}
    if call.cached_tokens:
        x_groq["usage"] = {"dram_cached_tokens": call.cached_tokens, "sram_cached_tokens": 0}
    body: dict[str, Any] = {
        "id": sim.completion_id(),
        "object": "chat.completion",
        "created": int(call.started_at),
        "model": work.model.id,
        "choices": [{"index": 0, "message": done.message, "logprobs": None, "finish_reason": done.finish_reason}],
        "usage": whole,
        "usage_breakdown": usage_breakdown(work.model, whole),
        "system_fingerprint": sim.fingerprint(work.model),
        "x_groq": x_groq,
        "service_tier": work.tier,
    }
    if rule is None:
        call.delivered = await exchange.answer(200, encode(body))
        return
    spoiled = spoil.spoil_usage(rule.kind, whole)
    body["usage"] = spoiled
    if spoiled is None:
        del body["usage"]
    call.completed = rule.kind not in {"html_200", "error_object_200", "empty_body_200"}
    call.delivered = await spoil.send_spoiled(rule, exchange, body, sim.clock)


def _script(
    sim: Simulation, exchange: Exchange, work: Work, done: Completion, timing: Timing, writing_s: float
) -> streaming.Script:
    whole = _usage(work, done, timing)
    spoiled = whole if work.rule is None else spoil.spoil_usage(work.rule.kind, whole)
    return streaming.Script(
        same={
            "id": sim.completion_id(),
            "object": "chat.completion.chunk",
            "created": int(work.call.started_at),
            "model": work.model.id,
            "system_fingerprint": sim.fingerprint(work.model),
        },
        request_id=exchange.request_id,
        done=done,
        usage=spoiled,
        breakdown=usage_breakdown(work.model, whole),
        seed=sim.seed_of(work.body, work.call),
        include_usage=bool((work.body.get("stream_options") or {}).get("include_usage")),
        writing_s=writing_s,
    )


async def _stream(
    sim: Simulation, exchange: Exchange, work: Work, done: Completion, timing: Timing, wait_s: float
) -> None:
    call, rule = work.call, work.rule
    writing_s = wait_s * timing.completion_s / timing.total_s if timing.total_s else 0.0
    if wait_s > writing_s:
        await sim.clock.sleep(wait_s - writing_s)
    call.status = 200
    if rule is not None and rule.kind == "reset_before_headers":
        _settle(sim, work)
        call.completed = True
        await exchange.reset()
        return
    script = _script(sim, exchange, work, done, timing, writing_s)
    try:
        call.delivered = await streaming.play(exchange, script, rule, sim.clock)
    finally:
        _settle(sim, work)
        call.completed = rule is None or rule.phase is Phase.ANSWER or rule.kind == "stream_drip"
