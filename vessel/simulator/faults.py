"""Faults by rule: which requests go wrong, how, how often and for how long; the dice are seeded.

A rule is an object with `kind` and, all optional, `model`, `match` (a part of the prompt), `status`, `rate` (0 to 1),
`count` (fires at most so often), `duration_s`, `retry_after`, `body`. Rules are tried in order; the first that fires
decides. docs/simulator.md lists the kinds.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

KINDS = frozenset(
    {
        "status", "html_status", "model_decommissioned", "over_capacity", "blocked_api_access", "hang", "slow_drip",
        "reset_before_headers", "reset_mid_body", "truncated_json", "html_200", "missing_choices", "empty_choices",
        "null_content_length", "error_object_200", "missing_usage", "negative_usage", "huge_body", "tool_use_failed",
        "json_validate_failed", "stream_event_error", "stream_data_error", "stream_x_groq_error", "stream_broken_json",
        "stream_no_done", "stream_reset", "stream_silence",
    }
)  # fmt: skip


class BadRule(ValueError):
    """A rule that cannot be used."""


@dataclass(slots=True)
class Rule:
    """One fault rule and how often it has fired."""

    kind: str
    model: str | None = None
    match: str | None = None
    status: int = 500
    rate: float = 1.0
    count: int | None = None
    until: float | None = None
    retry_after: float | None = None
    body: str | None = None
    fired: int = 0

    def hits(self, model: str, prompt: str, now: float, dice: random.Random) -> bool:
        """Tell whether the rule fires for a request; a firing is counted."""
        if (self.model not in {None, model}) or (self.match is not None and self.match not in prompt):
            return False
        if (self.count is not None and self.fired >= self.count) or (self.until is not None and now > self.until):
            return False
        if self.rate < 1 and dice.random() >= self.rate:
            return False
        self.fired += 1
        return True


def read_rule(raw: Any, now: float) -> Rule:
    """Check a rule as it came in. Raises BadRule."""
    if not isinstance(raw, dict) or raw.get("kind") not in KINDS:
        raise BadRule(f"a rule is an object whose kind is one of: {', '.join(sorted(KINDS))}")
    known = {"kind", "model", "match", "status", "rate", "count", "duration_s", "retry_after", "body"}
    if unknown := set(raw) - known:
        raise BadRule(f"a rule has no {', '.join(sorted(unknown))}; it may have {', '.join(sorted(known))}")
    fields = {k: v for k, v in raw.items() if k != "duration_s"}
    if "duration_s" in raw:
        fields["until"] = now + float(raw["duration_s"])
    return Rule(**fields)


class Faults:
    """The rules in force, and an outage of the whole API."""

    def __init__(self, seed: int = 0) -> None:
        """Start without faults."""
        self.rules: list[Rule] = []
        self.dice = random.Random(seed)  # noqa: S311  repeatable on purpose
        self.outage: Rule | None = None

    def find(self, model: str, prompt: str, now: float) -> Rule | None:
        """Return the fault for a request, if any."""
        if self.outage is not None and self.outage.hits(model, prompt, now, self.dice):
            return self.outage
        return next((rule for rule in self.rules if rule.hits(model, prompt, now, self.dice)), None)

    def set_outage(self, mode: str, duration_s: float | None, now: float) -> None:
        """Let everything fail (`503`, `hang`, `refuse_reset`), or nothing (`off`). Raises BadRule."""
        kinds = {"503": "over_capacity", "hang": "hang", "refuse_reset": "reset_before_headers"}
        if mode == "off":
            self.outage = None
        elif mode in kinds:
            self.outage = Rule(kinds[mode], until=None if duration_s is None else now + duration_s)
        else:
            raise BadRule(f"an outage's mode is one of: {', '.join([*kinds, 'off'])}")
