"""Groq's limits as they behave: continuous buckets per organisation, model and tier, with the arithmetic of its texts.

`used` drains at limit/window per second. A request is charged its prompt and its largest output on arrival; output not
used and tokens read from the cache come back when it is done. wait = (Used + Requested - Limit) / Limit x window. A
request larger than a limit is a 413, since no wait could help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from vessel.simulator.gotime import SECOND_NS, go_duration

if TYPE_CHECKING:
    from vessel.simulator.plans import Limits

_NAMES = {
    "rpm": "requests per minute (RPM)",
    "rpd": "requests per day (RPD)",
    "tpm": "tokens per minute (TPM)",
    "tpd": "tokens per day (TPD)",
    "otpm": "output tokens per minute (OTPM)",
}
_WINDOW_S = {"rpm": 60, "rpd": 86_400, "tpm": 60, "tpd": 86_400, "otpm": 60}
_TAIL = "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
_ALMOST = 0.05
"""A bucket that is over a whole number by less than this is at that number: seconds since 1970 are a coarse float."""


class Charge(NamedTuple):
    """What a request reserves: its prompt, and the largest output it may have."""

    prompt: int
    output: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not admitted; `wait_ns` is None where it can never be (413)."""

    limit_name: str
    limit: int
    used: int
    requested: int
    wait_ns: int | None

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return 413 if self.wait_ns is None else 429

    @property
    def retry_after_s(self) -> int:
        """Return the whole seconds to wait, rounded up."""
        return max(1, -(-(self.wait_ns or 0) // SECOND_NS))

    @property
    def type(self) -> str:
        """Return what the error calls itself; `requests` is by analogy, only `tokens` was seen."""
        return "requests" if self.limit_name in {"rpm", "rpd"} else "tokens"

    def text(self, model: str, org: str, tier: str) -> str:
        """Write Groq's own text."""
        where = f"for model `{model}` in organization `{org}` service tier `{tier}` on {_NAMES[self.limit_name]}"
        if self.wait_ns is not None:
            figures = f"Limit {self.limit}, Used {self.used}, Requested {self.requested}"
            return f"Rate limit reached {where}: {figures}. Please try again in {go_duration(self.wait_ns)}. {_TAIL}"
        figures = f"Limit {self.limit}, Requested {self.requested}"
        if self.limit_name == "otpm":
            cure = "The request's expected output tokens exceed the enforced limit; reduce max_tokens and try again."
            return f"Request too large {where}: {figures}. {cure} {_TAIL}"
        return f"Request too large {where}: {figures}, please reduce your message size and try again. {_TAIL}"


class Bucket:
    """One limit."""

    __slots__ = ("at", "limit", "name", "used", "window_s")

    def __init__(self, name: str, limit: int, now: float) -> None:
        """Start empty: nothing used."""
        self.name, self.limit, self.window_s = name, limit, _WINDOW_S[name]
        self.used, self.at = 0.0, now

    def level(self, now: float) -> int:
        """Drain until now and return what is used, as Groq shows it: a whole number."""
        if now > self.at:
            self.used = max(0.0, self.used - (now - self.at) * self.limit / self.window_s)
            self.at = now
        return math.ceil(self.used - _ALMOST)

    def add(self, amount: int) -> None:
        """Charge, or give back when negative; never below nothing used."""
        self.used = max(0.0, self.used + amount)

    def time_ns(self, units: int) -> int:
        """Return how long so many units take to drain."""
        return units * self.window_s * SECOND_NS // self.limit


class Gate:
    """All limits of one model for one organisation and tier; a request is charged to all of them or to none."""

    def __init__(self, limits: Limits, now: float) -> None:
        """Start with nothing used."""
        self.limits = limits
        self.buckets = {
            name: Bucket(name, limit, now) for name in _NAMES if (limit := getattr(limits, name)) is not None
        }

    def change(self, limits: Limits, now: float) -> None:
        """Take other limits; what is used stays used."""
        before, after = self.buckets, Gate(limits, now)
        for name, bucket in after.buckets.items():
            if name in before:
                before[name].level(now)
                bucket.used = before[name].used
        self.limits, self.buckets = limits, after.buckets

    def admit(self, charge: Charge, now: float) -> Refusal | None:
        """Charge a request, or say why not; limits are looked at in the order RPM, RPD, TPM, TPD, OTPM."""
        both = charge.prompt + charge.output
        costs = {"rpm": 1, "rpd": 1, "tpm": both, "tpd": both, "otpm": charge.output}
        for name, bucket in self.buckets.items():
            if costs[name] > bucket.limit:
                return Refusal(name, bucket.limit, bucket.level(now), costs[name], None)
        for name, bucket in self.buckets.items():
            used = bucket.level(now)
            over = used + costs[name] - bucket.limit
            if over > 0:
                return Refusal(name, bucket.limit, used, costs[name], bucket.time_ns(over))
        for name, bucket in self.buckets.items():
            bucket.add(costs[name])
        return None

    def settle(self, charge: Charge, output: int, cached: int, now: float) -> None:
        """Give back the output that was not used and the tokens that came from the cache."""
        unused = charge.output - output
        for name, back in (("tpm", unused + cached), ("tpd", unused + cached), ("otpm", unused)):
            bucket = self.buckets.get(name)
            if bucket is not None:
                bucket.level(now)
                bucket.add(-back)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Write the x-ratelimit headers: requests are always per DAY, tokens always per MINUTE."""
        found: list[tuple[bytes, bytes]] = []
        for name, kind in (("rpd", b"requests"), ("tpm", b"tokens")):
            bucket = self.buckets.get(name)
            if bucket is not None:
                used = bucket.level(now)
                left = max(0, bucket.limit - used)
                found.append((b"x-ratelimit-limit-" + kind, b"%d" % bucket.limit))
                found.append((b"x-ratelimit-remaining-" + kind, b"%d" % left))
                found.append((b"x-ratelimit-reset-" + kind, go_duration(bucket.time_ns(used)).encode()))
        return found

    def used(self, now: float) -> dict[str, dict[str, int]]:
        """Return limit and use of every bucket."""
        return {name: {"limit": b.limit, "used": b.level(now)} for name, b in self.buckets.items()}
