"""What the benchmarks of the gate share: heavy-tailed requests, the bounds of continuous buckets, and quantiles.

The simulator counts one token for four bytes and four for a message; the texts are words of three letters and a space,
so that its count and an estimate by words agree, as they about do for prose.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

MODEL, TIER = "bench/steady", "speed_demon"
MAX_OUTPUT = 512
"""`max_completion_tokens` of every request: what the upstream reserves until the usage is known."""

MEAN_PROMPT, MEAN_OUTPUT, SIGMA = 237, 130, 0.8
LEAST_PROMPT, MOST_PROMPT, LEAST_OUTPUT = 16, 6000, 24
MINUTE_S = 60
REFUSED = 429
_PER_MESSAGE, _BYTES_PER_TOKEN = 4, 4


@dataclass(frozen=True, slots=True)
class Quota:
    """An upstream's limits for a minute; its buckets hold that much and refill evenly."""

    rpm: int
    tpm: int


@dataclass(frozen=True, slots=True)
class Request:
    """One request, with the tokens that the simulator will count."""

    prompt: str
    prompt_tokens: int
    output_tokens: int

    def body(self) -> dict[str, Any]:
        """Write it as a chat completion."""
        messages = [{"role": "user", "content": self.prompt}]
        return {"model": MODEL, "messages": messages, "max_completion_tokens": MAX_OUTPUT}


def _drawn(dice: random.Random, mean: float) -> float:
    return dice.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA)


def requests(count: int, seed: int = 1) -> list[Request]:
    """Draw requests whose prompts and answers are lognormal, no two alike."""
    dice = random.Random(seed)  # noqa: S311  repeatable on purpose
    made = []
    for number in range(count):
        prompt = round(min(MOST_PROMPT, max(LEAST_PROMPT, _drawn(dice, MEAN_PROMPT))))
        output = round(min(MAX_OUTPUT, max(LEAST_OUTPUT, _drawn(dice, MEAN_OUTPUT))))
        head = f"Job {seed}/{number} <<tokens:{output}>>"
        missing = (prompt - _PER_MESSAGE) * _BYTES_PER_TOKEN - len(head)
        text = head + " the" * max(0, missing // _BYTES_PER_TOKEN)
        made.append(Request(text, _PER_MESSAGE + -(-len(text) // _BYTES_PER_TOKEN), output))
    return made


def bound_s(quota: Quota, count: int, tokens: int) -> float:
    """Return the least time in which full buckets let so much through: what is beyond them over the refill."""
    return MINUTE_S * max(0.0, (tokens - quota.tpm) / quota.tpm, (count - quota.rpm) / quota.rpm)


def used_tokens(calls: Iterable[dict[str, Any]]) -> int:
    """Add up what calls really used."""
    return sum(call["prompt_tokens"] + call["completion_tokens"] for call in calls if call["completed"])


def refused(calls: Iterable[dict[str, Any]]) -> int:
    """Count the 429s among calls."""
    return sum(call["status"] == REFUSED for call in calls)


def between(calls: Iterable[dict[str, Any]], start: float, end: float) -> list[dict[str, Any]]:
    """Return the calls that began in a span of the upstream's clock."""
    return [call for call in calls if start <= call["started_at"] < end]


def drained_at(calls: Iterable[dict[str, Any]], tpm: int, part: float = 0.03) -> float | None:
    """Return when less than a part of the upstream's token bucket was left, by what calls really used.

    Reservations do not count: in a burst they drain the bucket for a moment, and most of them comes back.
    """
    used, at = 0.0, 0.0
    for call in sorted(calls, key=lambda c: float(c["started_at"])):
        used = max(0.0, used - (call["started_at"] - at) * tpm / MINUTE_S) + used_tokens([call])
        at = call["started_at"]
        if used > (1 - part) * tpm:
            return float(at)
    return None


def quantile(values: Iterable[float], part: float) -> float:
    """Return the value below which a part of the values lies (nearest rank); 0 of none."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(part * len(ranked)) - 1)] if ranked else 0.0


def share(part: float, whole: float) -> float:
    """Divide; 0 of nothing."""
    return part / whole if whole else 0.0


def busiest(times: Iterable[float], span_s: float) -> int:
    """Return the largest number of moments within any span of that length."""
    ranked, first, most = sorted(times), 0, 0
    for index, at in enumerate(ranked):
        while at - ranked[first] >= span_s:
            first += 1
        most = max(most, index - first + 1)
    return most
