"""Groq's limits as they behave: continuous buckets per organisation and model, with the exact arithmetic of its texts.

wait = (Used + Requested - Limit) / Limit x window; a request larger than a limit is a 413 (groq-facts 1.8, 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

NAMES = {
    "rpm": ("requests per minute (RPM)", 60.0),
    "rpd": ("requests per day (RPD)", 86400.0),
    "tpm": ("tokens per minute (TPM)", 60.0),
    "tpd": ("tokens per day (TPD)", 86400.0),
    "otpm": ("output tokens per minute (OTPM)", 60.0),
}


_SECOND = 1_000_000_000
_SMALL = (("ms", 1_000_000), ("µs", 1000), ("ns", 1))


def go_duration(seconds: float) -> str:
    """Write seconds as Go's time.Duration does: `450ms`, `7.66s`, `2m59.56s`, `17h57m7.2s`."""
    nanos = round(seconds * 1e9)
    if nanos <= 0:
        return "0s"
    if nanos < _SECOND:
        unit, size = next((unit, size) for unit, size in _SMALL if nanos >= size)
        return f"{_decimal(nanos, size)}{unit}"
    minutes, rest = divmod(nanos, 60 * _SECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, _SECOND)}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _decimal(value: int, size: int) -> str:
    whole, part = divmod(value, size)
    digits = str(part).zfill(len(str(size)) - 1).rstrip("0") if part else ""
    return f"{whole}.{digits}" if digits else str(whole)


@dataclass(slots=True)
class Bucket:
    """One limit: `used` drains continuously, `limit` units per `window_s`."""

    name: str
    limit: int
    window_s: float
    used: float = 0.0
    at: float = 0.0

    def drain(self, now: float) -> None:
        """Let time pass."""
        self.used = max(0.0, self.used - (now - self.at) * self.limit / self.window_s)
        self.at = now

    def wait_s(self, cost: int) -> float:
        """Return how long a request of this cost has to wait; 0 when it fits."""
        return max(0.0, (self.used + cost - self.limit) / self.limit * self.window_s)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: 413 when it can never fit, else 429 with the wait."""

    status: int
    name: str
    limit: int
    used: int
    requested: int
    wait_s: float

    def message(self, model: str, org: str) -> str:
        """Write Groq's own text."""
        unit = NAMES[self.name][0]
        tail = "Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing"
        where = f"for model `{model}` in organization `{org}` service tier `on_demand` on {unit}"
        if self.status == 413:  # noqa: PLR2004  the HTTP status
            if self.name == "otpm":
                advice = "The request's expected output tokens exceed the enforced limit; reduce max_tokens"
                return f"Request too large {where}: Limit {self.limit}, Requested {self.requested}. {advice}. {tail}"
            advice = "please reduce your message size and try again"
            return f"Request too large {where}: Limit {self.limit}, Requested {self.requested}, {advice}. {tail}"
        counts = f"Limit {self.limit}, Used {self.used}, Requested {self.requested}"
        return f"Rate limit reached {where}: {counts}. Please try again in {go_duration(self.wait_s)}. {tail}"


class ModelLimits:
    """All limits of one model for one organisation; a request is charged to all of them or to none."""

    def __init__(self, limits: dict[str, int | None], now: float) -> None:
        """Start full."""
        self.buckets = [Bucket(n, limit, NAMES[n][1], at=now) for n, limit in limits.items() if limit is not None]

    def admit(self, prompt: int, output: int, now: float) -> Refusal | None:
        """Charge prompt and largest output, or say why not."""
        worst: Refusal | None = None
        for bucket in self.buckets:
            bucket.drain(now)
            cost = self._cost(bucket, prompt, output)
            if cost > bucket.limit:
                return Refusal(413, bucket.name, bucket.limit, int(bucket.used), cost, 0.0)
            wait = bucket.wait_s(cost)
            if wait > (worst.wait_s if worst else 1e-9):
                worst = Refusal(429, bucket.name, bucket.limit, math.ceil(bucket.used), cost, wait)
        if worst is None:
            for bucket in self.buckets:
                bucket.used += self._cost(bucket, prompt, output)
        return worst

    def settle(self, unused_output: int, cached: int, now: float) -> None:
        """Give back output that was not used and tokens that came from the cache."""
        for bucket in self.buckets:
            bucket.drain(now)
            back = {"tpm": unused_output + cached, "tpd": unused_output + cached, "otpm": unused_output}
            bucket.used = max(0.0, bucket.used - back.get(bucket.name, 0))

    @staticmethod
    def _cost(bucket: Bucket, prompt: int, output: int) -> int:
        return {"rpm": 1, "rpd": 1, "otpm": output}.get(bucket.name, prompt + output)

    def headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Write the x-ratelimit headers: requests are per DAY, tokens per MINUTE."""
        found: list[tuple[bytes, bytes]] = []
        for bucket in self.buckets:
            kind = {"rpd": b"requests", "tpm": b"tokens"}.get(bucket.name)
            if kind is None:
                continue
            bucket.drain(now)
            left = max(0, int(bucket.limit - bucket.used))
            reset = go_duration(bucket.used / bucket.limit * bucket.window_s)
            found += [
                (b"x-ratelimit-limit-" + kind, str(bucket.limit).encode()),
                (b"x-ratelimit-remaining-" + kind, str(left).encode()),
                (b"x-ratelimit-reset-" + kind, reset.encode()),
            ]
        return found
