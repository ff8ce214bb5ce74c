"""What one call charges to the organisation's buckets, and what comes back when its usage is known.

Limits are items of `limits` (its grammar and its keys); Groq's are continuous buckets per organisation and model whose
capacity is the limit, charged with prompt + max_completion_tokens at admission (groq-facts 1.8, 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from limits import RateLimitItem

    from vessel.keyspace.names import Keys
    from vessel.registry import Limits
    from vessel.upstream.outcome import Usage


@cache
def _periods() -> Mapping[str, type[RateLimitItem]]:
    # Imported here, because producers need this module's values and never a limit's period.
    from limits import RateLimitItemPerDay, RateLimitItemPerMinute  # noqa: PLC0415

    return {
        "rpm": RateLimitItemPerMinute,
        "rpd": RateLimitItemPerDay,
        "tpm": RateLimitItemPerMinute,
        "tpd": RateLimitItemPerDay,
        "itpm": RateLimitItemPerMinute,
        "otpm": RateLimitItemPerMinute,
    }


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit of one model: `capacity` units refilled over `period_ms`."""

    name: str
    key: str
    capacity: int
    period_ms: int


@dataclass(frozen=True, slots=True)
class Charge:
    """What one call takes from one bucket."""

    bucket: Bucket
    cost: int


@dataclass(frozen=True, slots=True)
class GiveBack:
    """What goes back into a bucket; below zero it is charged on top."""

    bucket: Bucket
    amount: int


def buckets_of(keys: Keys, org: str, model: str, limits: Limits) -> tuple[Bucket, ...]:
    """Build the buckets of one model for one organisation; limits that are not set have none."""
    found = []
    for name, item_type in _periods().items():
        amount = getattr(limits, name)
        if amount is not None:
            item = item_type(amount, namespace=name)
            key = keys.bucket(item.key_for(org, model))
            found.append(Bucket(name, key, amount, item.get_expiry() * 1000))
    return tuple(found)


def charge(buckets: Sequence[Bucket], prompt_tokens: int, output_tokens: int) -> tuple[Charge, ...]:
    """Charge one request with an estimated prompt and its largest possible output."""
    costs = {"rpm": 1, "rpd": 1, "itpm": prompt_tokens, "otpm": output_tokens}
    return tuple(Charge(b, costs.get(b.name, prompt_tokens + output_tokens)) for b in buckets)


def settle(charges: Sequence[Charge], usage: Usage) -> tuple[GiveBack, ...]:
    """Return what was charged and not used; cached tokens do not count (Groq docs/prompt-caching)."""
    prompt = max(0, usage.prompt_tokens - usage.cached_tokens)
    used = {"rpm": 1, "rpd": 1, "itpm": prompt, "otpm": usage.completion_tokens}
    total = prompt + usage.completion_tokens
    return tuple(GiveBack(c.bucket, c.cost - used.get(c.bucket.name, total)) for c in charges)


def refund(charges: Sequence[Charge], *, requests: bool) -> tuple[GiveBack, ...]:
    """Return everything a call charged that the upstream did not; `requests` tells whether the request counts back."""
    return tuple(GiveBack(c.bucket, c.cost if requests or c.bucket.name not in {"rpm", "rpd"} else 0) for c in charges)
