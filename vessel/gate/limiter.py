"""What one call charges to the organisation's buckets, and what comes back when its usage is known.

Limits are items of `limits`; Groq's are continuous buckets per organisation and model whose capacity is the limit,
charged with prompt + max_completion_tokens at admission (groq-facts 1.8, 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from limits import RateLimitItem

    from vessel.registry import Limits
    from vessel.upstream.outcome import Usage

NAMES = ("rpm", "rpd", "tpm", "tpd", "itpm", "otpm")
"""Requests and tokens per minute and day, input and output tokens per minute: the order in which scripts take them."""

PERIOD_MS = {name: 86_400_000 if name.endswith("d") else 60_000 for name in NAMES}


@cache
def _kinds() -> Mapping[str, type[RateLimitItem]]:
    # Imported here, because producers need this module's values and never a limit's item.
    from limits import RateLimitItemPerDay, RateLimitItemPerMinute  # noqa: PLC0415  most callers need none of it

    return {name: RateLimitItemPerDay if name.endswith("d") else RateLimitItemPerMinute for name in NAMES}


def items_of(limits: Limits) -> dict[str, RateLimitItem]:
    """Give the limits that are set as items of `limits`, each in the namespace of its name."""
    amounts = {name: getattr(limits, name) for name in NAMES}
    return {name: _kinds()[name](amount, namespace=name) for name, amount in amounts.items() if amount is not None}


def cost_of(name: str, requests: int, prompt: int, output: int) -> int:
    """Return what so many requests and tokens take from one limit."""
    return {"rpm": requests, "rpd": requests, "itpm": prompt, "otpm": output}.get(name, prompt + output)


@dataclass(frozen=True, slots=True)
class Charge:
    """What one call takes from the gate of a model: one request, its tokens and, of budgets, its worst case.

    `configured` are the limits in the order of NAMES, 0 where none is set; `concurrency` 0 means no bound.
    """

    model: str
    org: str
    configured: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    nano_usd: int = 0
    concurrency: int = 0

    @property
    def figures(self) -> str:
        """Return the configured limits as scripts take them."""
        return " ".join(map(str, self.configured))

    def cost(self, name: str) -> int:
        """Return what it takes from one limit."""
        return cost_of(name, 1, self.prompt_tokens, self.output_tokens)


@dataclass(frozen=True, slots=True)
class GiveBack:
    """What goes back into the gate; below zero it is charged on top."""

    requests: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    nano_usd: int = 0


NOTHING = GiveBack()


def configured(limits: Limits | None) -> tuple[int, ...]:
    """Return limits in the order of NAMES, 0 where none is set."""
    return tuple((getattr(limits, name) or 0) if limits else 0 for name in NAMES)


def settle(charge: Charge, usage: Usage, spent_nano: int) -> GiveBack:
    """Return what was charged and not used; cached tokens do not count (Groq docs/prompt-caching)."""
    prompt = max(0, usage.prompt_tokens - usage.cached_tokens)
    return GiveBack(
        0,
        charge.prompt_tokens - prompt,
        charge.output_tokens - usage.completion_tokens,
        charge.nano_usd - spent_nano,
    )


def refund(charge: Charge, *, requests: bool) -> GiveBack:
    """Return everything a call charged that the upstream did not; `requests` tells whether the request counts back."""
    return GiveBack(int(requests), charge.prompt_tokens, charge.output_tokens, charge.nano_usd)
