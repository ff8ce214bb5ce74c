"""Faults at work: error answers instead of a computation, and computed answers that arrive spoiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.simulator import problems
from vessel.simulator.encoding import encode
from vessel.simulator.exchange import JSON

if TYPE_CHECKING:
    from vessel.simulator.clock import Clock
    from vessel.simulator.completion import Completion
    from vessel.simulator.exchange import Exchange
    from vessel.simulator.faults import Rule

HUGE_BYTES = 32 * 1024 * 1024
DRIP_BYTES = 20
DRIP_S = 0.5
_FAILED_CALL = '<function=simulated{"broken": true}</function>'


def refusal(rule: Rule, model: str) -> problems.Problem:
    """Return the error answer that a rule asks for."""
    problem = _refusal(rule, model)
    if rule.retry_after is not None:
        problem.retry_after = _number_text(rule.retry_after)
    if rule.body is not None:
        problem.body = rule.body
    return problem


def _refusal(rule: Rule, model: str) -> problems.Problem:
    of_model = {
        "model_not_found": problems.model_not_found,
        "model_decommissioned": problems.decommissioned,
        "over_capacity": problems.over_capacity,
    }
    of_all = {
        "flex_capacity": problems.flex_capacity,
        "blocked_api_access": problems.blocked_api_access,
        "network_block": problems.network_block,
    }
    match rule.kind:
        case kind if kind in of_model:
            return of_model[kind](model)
        case kind if kind in of_all:
            return of_all[kind]()
        case "html_status":
            status = rule.status or 502
            return problems.Problem(status, problems.html_page(status), f"html_{status}")
        case "rate_limit":
            return problems.plain(429, rule.retry_after)
        case _:
            return _status(rule, model)


def _status(rule: Rule, model: str) -> problems.Problem:
    match rule.status or 500:
        case 503:
            return problems.over_capacity(model)
        case 498:
            return problems.flex_capacity()
        case 404:
            return problems.model_not_found(model)
        case status:
            return problems.plain(status, rule.retry_after)


def _number_text(value: float | str) -> str:
    return f"{value:g}" if isinstance(value, int | float) else value


def failure(rule: Rule) -> problems.Problem:
    """Return how the model fails; `body` is its failed_generation, and "" is one too."""
    if rule.kind == "tool_use_failed":
        return problems.tool_use_failed(_FAILED_CALL if rule.body is None else str(rule.body))
    return problems.json_validate_failed('{"broken": ' if rule.body is None else str(rule.body))


def spoil_completion(kind: str, done: Completion) -> Completion:
    """Return the completion that a fault of the model itself leaves: thinking ate the budget."""
    if kind != "null_content_length":
        return done
    message = {name: value for name, value in done.message.items() if name not in {"content", "tool_calls"}}
    return type(done)(message | {"content": None}, "length", done.tokens, done.tokens)


def spoil_usage(kind: str, usage: dict[str, Any]) -> dict[str, Any] | None:
    """Return the usage as a fault leaves it, None when it is left out."""
    if kind == "missing_usage":
        return None
    if kind == "negative_usage":
        return usage | {"prompt_tokens": -1, "completion_tokens": -usage["completion_tokens"], "total_tokens": -2}
    return usage


async def send_spoiled(rule: Rule, exchange: Exchange, body: dict[str, Any], clock: Clock) -> bool:
    """Send a computed answer as a fault leaves it; returns whether its last byte was delivered."""
    match rule.kind:
        case "reset_before_headers" | "reset_mid_body" | "early_fin" | "truncated_json":
            await _cut(rule.kind, exchange, encode(body))
            return False
        case "slow_drip":
            return await _drip(rule, exchange, encode(body), clock)
        case "html_200":
            page = rule.body if isinstance(rule.body, str) else problems.html_page(200)
            return await exchange.answer(200, page.encode(), problems.HTML.encode())
        case "empty_body_200" | "error_object_200":
            wrong = rule.body or problems.error("Internal Server Error", problems.SERVER)
            return await exchange.answer(200, b"" if rule.kind == "empty_body_200" else encode(wrong))
        case "missing_choices":
            del body["choices"]
        case "empty_choices":
            body["choices"] = []
        case "huge_body":
            body["choices"][0]["message"]["content"] = "x" * (rule.bytes or HUGE_BYTES)
    return await exchange.answer(200, encode(body))


async def _cut(kind: str, exchange: Exchange, whole: bytes) -> None:
    half = whole[: len(whole) // 2]
    if kind == "truncated_json":
        await exchange.answer(200, half)
        return
    if kind != "reset_before_headers":
        await exchange.begin(200, JSON, len(whole))
        await exchange.write(half)
    await (exchange.finish() if kind == "early_fin" else exchange.reset())


async def _drip(rule: Rule, exchange: Exchange, whole: bytes, clock: Clock) -> bool:
    step, pause = rule.bytes or DRIP_BYTES, DRIP_S if rule.delay_s is None else rule.delay_s
    await exchange.begin(200, JSON, len(whole))
    for at in range(0, len(whole) - step, step):
        await exchange.write(whole[at : at + step])
        await clock.sleep(pause)
        if exchange.client_left:
            return False
    rest = len(whole) - step
    return await exchange.end(whole[-(-max(0, rest) // step) * step :])
