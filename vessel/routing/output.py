"""How many tokens a call may answer with: the caller's own bound, or a sensible one where none was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.usage.prices import nano, worst_case_nano_usd

if TYPE_CHECKING:
    from decimal import Decimal

    from vessel.registry import Limits, Model
    from vessel.wire import ChatRequest

DEFAULT_OUTPUT_TOKENS = 2048
REASONING_OUTPUT_TOKENS = 4096
"""Reasoning counts as output and may eat a small bound whole (groq-facts 8.8)."""

LEAST_OUTPUT_TOKENS = 16


def asked_output_tokens(request: ChatRequest) -> int | None:
    """Return the caller's own bound on the output, under either of its names."""
    return request.max_completion_tokens or request.max_tokens


def default_output_tokens(model: Model) -> int:
    """Return the bound of a model where nothing better is known."""
    return REASONING_OUTPUT_TOKENS if "reasoning" in model.features else DEFAULT_OUTPUT_TOKENS


def output_tokens(
    request: ChatRequest, model: Model, limits: Limits | None, prompt_tokens: int, learned: int | None = None
) -> int:
    """Choose max_completion_tokens for this model: never above its maximum or what is left of its window.

    Where the caller gave none, `learned` lowers the default to what such answers need (gate/history.py). The default
    also leaves room in the organisation's minute limit, since Groq charges the bound at admission and refuses what is
    larger than the limit (groq-facts 2).
    """
    asked = asked_output_tokens(request)
    room = max(LEAST_OUTPUT_TOKENS, model.context_window - prompt_tokens)
    if asked:
        return min(asked, model.max_output, room)
    default = default_output_tokens(model)
    bounds = [min(default, learned or default), model.max_output, room]
    if limits and limits.tpm:
        bounds.append(max(LEAST_OUTPUT_TOKENS, limits.tpm // 2 - prompt_tokens))
    if limits and limits.otpm:
        bounds.append(limits.otpm)
    return min(bounds)


def affordable_output_tokens(
    request: ChatRequest,
    model: Model,
    wanted: int,
    *,
    most_prompt_tokens: int,
    cap_usd: Decimal | None,
    spent_nano: int,
    fees_nano: int = 0,
) -> int | None:
    """Bound the output so that even the worst case stays within the job's cap; None when the model cannot.

    The prompt counts with one token per byte, more than any tokenizer makes of it, so that the cap holds. A bound
    that the caller set himself is never lowered. `fees_nano` is set aside for built-in tools.
    """
    if cap_usd is None:
        return wanted
    left = nano(cap_usd) - spent_nano - fees_nano
    if worst_case_nano_usd(model, most_prompt_tokens, wanted) <= left:
        return wanted
    if asked_output_tokens(request):
        return None
    for_output = left - worst_case_nano_usd(model, most_prompt_tokens, 0)
    per_token = worst_case_nano_usd(model, 0, 1)
    fits = int(for_output // per_token) - 1 if for_output > 0 else 0
    return fits if fits >= LEAST_OUTPUT_TOKENS else None
