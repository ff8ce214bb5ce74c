"""Answers that go wrong on purpose, before anything is computed or after (groq-facts 1.4, 1.6, 7)."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from vessel.simulator.validate import Fault, decommissioned, over_capacity

if TYPE_CHECKING:
    from vessel.simulator.exchange import Exchange
    from vessel.simulator.faults import Rule
    from vessel.simulator.models import SimModel

BEFORE = frozenset(
    {
        "status", "html_status", "model_decommissioned", "over_capacity", "blocked_api_access", "hang",
        "reset_before_headers", "tool_use_failed", "json_validate_failed",
    }
)  # fmt: skip
"""Kinds for which nothing is computed and nothing is charged."""

HTML = b"<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"
_SEE = "See 'failed_generation' for more details."
_TYPES = {401: "invalid_request_error", 403: "permissions_error", 429: "tokens", 498: "capacity_exceeded"}
_TEXTS = {
    401: "Invalid API Key",
    403: "Access denied. Please check your network settings.",
    422: "The request was well-formed but could not be followed due to semantic errors.",
    424: "A dependent request failed.",
    429: "Rate limit reached on requests per minute (RPM). Please try again in 1s.",
    498: "`flex` tier capacity exceeded, please try again later",
}
HUGE_BYTES = 64 * 1024 * 1024
DRIP_S = 0.5


async def before(rule: Rule, exchange: Exchange, model: SimModel) -> tuple[int, str]:
    """Fail without computing; returns the status and the reason for the log."""
    match rule.kind:
        case "hang":
            await exchange.gone.wait()
            return 0, rule.kind
        case "reset_before_headers":
            exchange.reset()
            return 0, rule.kind
        case "html_status":
            await exchange.send(rule.status, (rule.body or HTML.decode()).encode(), b"text/html")
            return rule.status, rule.kind
    fault = _fault(rule, model)
    if fault.status == 429 or rule.retry_after is not None:  # noqa: PLR2004  the HTTP status
        exchange.retry_after = f"{rule.retry_after if rule.retry_after is not None else 1:g}"
    await exchange.error(fault)
    return fault.status, rule.kind


def _fault(rule: Rule, model: SimModel) -> Fault:
    match rule.kind:
        case "over_capacity":
            return over_capacity(model.id)
        case "model_decommissioned":
            return decommissioned(model.id)
        case "blocked_api_access":
            return Fault("Your organization has reached its spend limit.", code="blocked_api_access")
        case "tool_use_failed":
            return Fault(f"Failed to call a function. Please adjust your prompt. {_SEE}", code="tool_use_failed",
                         failed_generation=rule.body or "<function=x>")  # fmt: skip
        case "json_validate_failed":
            return Fault(f"Failed to generate JSON. Please adjust your prompt. {_SEE}", code="json_validate_failed",
                         failed_generation=rule.body or "")  # fmt: skip
        case _:
            code = "rate_limit_exceeded" if rule.status == 429 else None  # noqa: PLR2004  the HTTP status
            text = rule.body or _TEXTS.get(rule.status, "Internal Server Error")
            return Fault(text, rule.status, _TYPES.get(rule.status, "internal_server_error"), code)


async def after(rule: Rule, exchange: Exchange, body: dict[str, Any]) -> bool:
    """Spoil a computed answer; returns whether the client had it whole."""
    match rule.kind:
        case "html_200":
            return await exchange.send(200, HTML, b"text/html")
        case "truncated_json":
            whole = json.dumps(body).encode()
            return await exchange.send(200, whole[: len(whole) // 2])
        case "reset_mid_body":
            whole = json.dumps(body).encode()
            await exchange.part(200, len(whole), whole[: len(whole) // 2])
            exchange.reset()
            return False
        case "slow_drip":
            return await _drip(exchange, json.dumps(body).encode())
        case "huge_body":
            body["choices"][0]["message"]["content"] = "x" * HUGE_BYTES
        case _:
            body = _spoil(rule.kind, body)
    return await exchange.json(200, body)


def _spoil(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    spoiled = dict(body)
    match kind:
        case "missing_choices":
            spoiled.pop("choices")
        case "empty_choices":
            spoiled["choices"] = []
        case "null_content_length":
            choice = dict(body["choices"][0], finish_reason="length", message={"role": "assistant", "content": None})
            spoiled["choices"] = [choice]
        case "error_object_200":
            return {"error": {"message": "internal error", "type": "internal_server_error"}}
        case "missing_usage":
            spoiled.pop("usage")
        case "negative_usage":
            spoiled["usage"] = dict(body["usage"], prompt_tokens=-1, completion_tokens=-1, total_tokens=-2)
    return spoiled


async def _drip(exchange: Exchange, whole: bytes) -> bool:
    await exchange.part(200, len(whole), b"")
    for at in range(0, len(whole), 20):
        if not await exchange.more(whole[at : at + 20], last=at + 20 >= len(whole)):
            return False
        await asyncio.sleep(DRIP_S)
    return True
