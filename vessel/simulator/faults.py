"""Faults by rule: which calls go wrong, how, how often and for how long; the dice are seeded.

A rule is a table with `kind` and, all optional:
  model       only calls to this model
  match       only calls whose prompt (the text of all messages) holds this
  rate        the share of matching calls that it hits, 0 to 1 (1)
  skip        let so many matching calls pass first (0)
  count       hit at most so many calls
  after_s     begin so many seconds after the rule was given (0)
  duration_s  end so many seconds after that
  status      the status, for the kinds `status` and `html_status` (500, 502)
  retry_after the header of that name, as given
  body        another body: text, or a table sent as JSON; `failed_generation` for the two kinds that have one
  delay_s     wait so long before it strikes; for `slow`, `slow_drip` and `stream_drip` the delay itself
  at          for streams, strike after so many pieces of content (2)
  bytes       the size, for `huge_body` and `slow_drip`
Rules are tried in order, and the first that hits decides. A kind that cannot apply to a call (a stream fault to a call
that does not stream) leaves it alone and is not counted.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal


class Phase(Enum):
    """When a kind strikes, and so what is computed and charged."""

    REFUSE = "an error answer; nothing is computed or charged"
    STALL = "the connection is cut or silent; nothing is computed"
    FAIL = "the model runs, is charged, and fails"
    ANSWER = "the answer is computed and spoiled, streamed or not"
    BODY = "the answer is computed and spoiled, when not streamed"
    STREAM = "the answer is computed and its stream breaks"


KINDS: dict[str, Phase] = {
    "status": Phase.REFUSE,
    "html_status": Phase.REFUSE,
    "rate_limit": Phase.REFUSE,
    "model_not_found": Phase.REFUSE,
    "model_decommissioned": Phase.REFUSE,
    "over_capacity": Phase.REFUSE,
    "flex_capacity": Phase.REFUSE,
    "blocked_api_access": Phase.REFUSE,
    "network_block": Phase.REFUSE,
    "hang": Phase.STALL,
    "reset_on_arrival": Phase.STALL,
    "tool_use_failed": Phase.FAIL,
    "json_validate_failed": Phase.FAIL,
    "slow": Phase.ANSWER,
    "reset_before_headers": Phase.ANSWER,
    "null_content_length": Phase.ANSWER,
    "missing_usage": Phase.ANSWER,
    "negative_usage": Phase.ANSWER,
    "slow_drip": Phase.BODY,
    "reset_mid_body": Phase.BODY,
    "early_fin": Phase.BODY,
    "truncated_json": Phase.BODY,
    "html_200": Phase.BODY,
    "error_object_200": Phase.BODY,
    "empty_body_200": Phase.BODY,
    "missing_choices": Phase.BODY,
    "empty_choices": Phase.BODY,
    "huge_body": Phase.BODY,
    "stream_event_error": Phase.STREAM,
    "stream_data_error": Phase.STREAM,
    "stream_x_groq_error": Phase.STREAM,
    "stream_broken_json": Phase.STREAM,
    "stream_no_done": Phase.STREAM,
    "stream_early_fin": Phase.STREAM,
    "stream_reset": Phase.STREAM,
    "stream_silence": Phase.STREAM,
    "stream_comments": Phase.STREAM,
    "stream_drip": Phase.STREAM,
}
OutageMode = Literal["503", "hang", "refuse_reset", "off"]
OUTAGE_MODES = ("503", "hang", "refuse_reset", "off")


class BadRule(ValueError):
    """A rule that cannot be used."""


@dataclass(slots=True)
class Rule:
    """One rule, and how often it has matched and hit."""

    kind: str
    model: str | None = None
    match: str | None = None
    rate: float = 1.0
    skip: int = 0
    count: int | None = None
    after_s: float = 0.0
    duration_s: float | None = None
    status: int | None = None
    retry_after: float | str | None = None
    body: Any = None
    delay_s: float | None = None
    at: int = 2
    bytes: int | None = None
    given_at: float = 0.0
    matched: int = 0
    fired: int = 0
    dice: random.Random = field(default_factory=random.Random, repr=False, compare=False)

    @property
    def phase(self) -> Phase:
        """Return when it strikes."""
        return KINDS[self.kind]

    def hits(self, subject: Subject, now: float) -> bool:
        """Tell whether the rule strikes a call, and count it."""
        if not self._applies(subject) or not self._in_force(now):
            return False
        if self.match is not None and self.match not in subject.prompt():
            return False
        self.matched += 1
        if self.matched <= self.skip or (self.rate < 1 and self.dice.random() >= self.rate):
            return False
        self.fired += 1
        return True

    def _applies(self, subject: Subject) -> bool:
        if self.model not in {None, subject.model}:
            return False
        if self.kind == "flex_capacity" and subject.tier != "flex":
            return False
        return self.phase is not (Phase.BODY if subject.stream else Phase.STREAM)

    def _in_force(self, now: float) -> bool:
        begun = now - self.given_at - self.after_s
        ended = self.duration_s is not None and begun > self.duration_s
        return begun >= 0 and not ended and (self.count is None or self.fired < self.count)

    def shown(self) -> dict[str, Any]:
        """Return the rule as it was given, with its counts."""
        hidden = {"dice", "given_at", "matched", "fired"}
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in hidden}
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        kept = {name: value for name, value in given.items() if value != defaults[name]}
        return kept | {"matched": self.matched, "fired": self.fired}


class Subject:
    """A call as the rules see it."""

    __slots__ = ("_messages", "_text", "_text_of", "model", "stream", "tier")

    def __init__(self, body: dict[str, Any], model: str, text_of: Any) -> None:
        """Look at a valid request; `text_of` gives the text of its messages when a rule asks for it."""
        self.model, self.stream = model, bool(body.get("stream"))
        self.tier = body.get("service_tier") or "on_demand"
        self._messages, self._text_of = body["messages"], text_of
        self._text: str | None = None

    def prompt(self) -> str:
        """Return the text of all messages."""
        if self._text is None:
            self._text = str(self._text_of(self._messages))
        return self._text


_GIVEN = {f.name for f in dataclasses.fields(Rule)} - {"dice", "given_at", "matched", "fired"}
_NUMBERS = {"rate", "skip", "count", "after_s", "duration_s", "status", "delay_s", "at", "bytes"}


def read_rule(raw: Any, now: float, dice: random.Random | None = None) -> Rule:
    """Read a rule as it was given. Raises BadRule."""
    if not isinstance(raw, dict) or raw.get("kind") not in KINDS:
        raise BadRule(f"a rule is a table whose kind is one of: {', '.join(KINDS)}; got {raw!r}")
    if unknown := set(raw) - _GIVEN:
        raise BadRule(f"a rule has no {', '.join(sorted(unknown))}; it may have {', '.join(sorted(_GIVEN))}")
    for name in _NUMBERS & set(raw):
        value = raw[name]
        if value is not None and (not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0):
            raise BadRule(f"{name} is a number of at least 0; got {value!r}")
    if raw.get("status") is not None and not 200 <= raw["status"] <= 599:  # noqa: PLR2004  statuses of answers
        raise BadRule(f"status is an HTTP status from 200 to 599; got {raw['status']!r}")
    return Rule(**raw, given_at=now, dice=dice or random.Random(0))  # noqa: S311  repeatable on purpose


class FaultBook:
    """The rules in force, and an outage of the whole API."""

    def __init__(self, seed: int) -> None:
        """Start without faults; every rule gets dice of its own from the seed and its number."""
        self.seed = seed
        self.rules: list[Rule] = []
        self._given = 0
        self._outage: OutageMode = "off"
        self._outage_until: float | None = None

    def add(self, raws: Any, now: float) -> None:
        """Add rules, a list or one; all or none. Raises BadRule."""
        entries = raws if isinstance(raws, list | tuple) else [raws]
        read: list[Rule] = []
        for entry in entries:
            dice = random.Random(f"{self.seed}/{self._given + len(read)}")  # noqa: S311  repeatable on purpose
            read.append(read_rule(entry, now, dice))
        self._given += len(read)
        self.rules += read

    def clear(self) -> None:
        """Forget all rules."""
        self.rules.clear()

    def find(self, subject: Subject, now: float) -> Rule | None:
        """Return the rule that strikes a call, if any."""
        return next((rule for rule in self.rules if rule.hits(subject, now)), None)

    def set_outage(self, mode: object, duration_s: object, now: float) -> None:
        """Let everything fail for a while, or until it is switched off. Raises BadRule."""
        match mode:
            case "503" | "hang" | "refuse_reset" | "off":
                self._outage = mode
            case 503:
                self._outage = "503"
            case _:
                raise BadRule(f"an outage's mode is one of: {', '.join(OUTAGE_MODES)}; got {mode!r}")
        if duration_s is not None and not isinstance(duration_s, int | float):
            raise BadRule(f"duration_s is a number; got {duration_s!r}")
        self._outage_until = None if duration_s is None else now + duration_s

    def outage(self, now: float) -> OutageMode:
        """Return how the whole API fails now."""
        if self._outage != "off" and self._outage_until is not None and now >= self._outage_until:
            self._outage = "off"
        return self._outage
