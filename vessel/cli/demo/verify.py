"""Whether the demonstration's results are right: every answer, and every token and cent, by an independent count."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.cli.demo.panel import DEAD_MODEL
from vessel.client import JobFailed
from vessel.simulator import expected_text
from vessel.simulator.answers import digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vessel.cli.demo.panel import Seen
    from vessel.cli.demo.work import Done

LIVE_CAP_USD = Decimal("0.05")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to hold."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class Booked:
    """What the usage log holds."""

    lines: int
    jobs: int
    prompt: int
    completion: int
    cached: int
    cost_usd: Decimal
    tools_usd: Decimal = Decimal(0)
    """How much of it are fees of built-in tools, which the simulator does not charge: a list price, not a count."""

    @property
    def tokens_usd(self) -> Decimal:
        """Return what the tokens cost."""
        return self.cost_usd - self.tools_usd


def read_usage(path: Path) -> Booked:
    """Add the usage log up; amounts stay exact."""
    rows = [json.loads(line, parse_float=Decimal) for line in path.read_text("utf-8").splitlines()]
    return Booked(
        len(rows),
        len({row["job_id"] for row in rows}),
        sum(row["tokens"]["input"] for row in rows),
        sum(row["tokens"]["output"] for row in rows),
        sum(row["tokens"]["cached"] for row in rows),
        sum((Decimal(row["cost_usd"]) for row in rows), Decimal(0)),
        sum((Decimal(row.get("tool_cost_usd", 0)) for row in rows), Decimal(0)),
    )


def verify(batch: Sequence[Done], asked: Sequence[Done], booked: Booked, seen: Seen) -> list[Check]:
    """Hold everything against the simulator."""
    everything = [*batch, *asked]
    return [
        _ended(everything),
        _answers(everything),
        _dead_model(batch),
        _storm(everything, seen),
        _one_line_each(everything, booked),
        _equal("calls", booked.lines, seen.completed),
        _equal(
            "tokens", (booked.prompt, booked.completion, booked.cached), (seen.prompt, seen.completion, seen.cached)
        ),
        _equal("cost", booked.tokens_usd.normalize(), seen.cost_usd.normalize()),
    ]


def verify_live(batch: Sequence[Done], asked: Sequence[Done], booked: Booked) -> list[Check]:
    """Check what can be known of real answers."""
    everything = [*batch, *asked]
    costs = sum((one.ended.cost_usd for one in everything if one.ended and not isinstance(one.ended, JobFailed)),
                Decimal(0))  # fmt: skip
    spent = f"{booked.cost_usd:f} USD of at most {LIVE_CAP_USD} USD were spent"
    return [
        _ended(everything),
        _one_line_each(everything, booked),
        Check("cost", booked.cost_usd >= costs, f"the usage log holds the cost of all answers ({costs:f} USD)"),
        Check("cap", booked.cost_usd <= LIVE_CAP_USD, spent),
    ]


def is_right(done: Done) -> bool:
    """Tell whether an answer is the one that the simulator gives to the prompt."""
    if done.ended is None or isinstance(done.ended, JobFailed):
        return False
    messages: list[Any] = list(done.body["messages"])
    calls = done.ended.raw["choices"][0]["message"].get("tool_calls")
    if calls:
        return done.ended.finish_reason == "tool_calls" and bool(calls[0]["id"] == f"call_{digest(messages)}")
    wanted = expected_text(messages, response_format=done.body.get("response_format"))
    cut = done.ended.finish_reason == "length"
    return done.ended.text == wanted or (cut and bool(done.ended.text) and wanted.startswith(done.ended.text))


def _ended(done: Sequence[Done]) -> Check:
    good = sum(one.ended is not None and not isinstance(one.ended, JobFailed) for one in done)
    return Check("results", good == len(done), f"{good} of {len(done)} jobs ended with a result")


def _answers(done: Sequence[Done]) -> Check:
    right = sum(map(is_right, done))
    return Check("answers", right == len(done), f"{right} of {len(done)} answers belong to their prompts")


def _dead_model(batch: Sequence[Done]) -> Check:
    wanted = [one for one in batch if one.asked == DEAD_MODEL]
    moved = [
        one for one in wanted if one.ended and not isinstance(one.ended, JobFailed) and one.ended.model != DEAD_MODEL
    ]
    text = f"{len(moved)} of {len(wanted)} jobs for {DEAD_MODEL} were answered by another model"
    return Check("dead_model", bool(wanted) and len(moved) == len(wanted), text)


def _storm(done: Sequence[Done], seen: Seen) -> Check:
    hit = Counter(name for one in done for name, reason in one.steps if reason == "rate_limited")
    moved, waited = hit["requeued"], hit["parked"]
    text = (
        f"storm: {seen.refused} calls were refused with 429; jobs waited {waited} times and stepped down {moved} times"
    )
    return Check("storm", seen.refused > 0 and moved > 0 and waited > 0, text)


def _one_line_each(done: Sequence[Done], booked: Booked) -> Check:
    ok = booked.jobs == booked.lines == len(done)
    return Check("usage_log", ok, f"the usage log has {booked.lines} lines for {booked.jobs} jobs, one each")


def _equal(name: str, ours: object, theirs: object) -> Check:
    same = ours == theirs
    text = f"{name}: the usage log and the simulator both count {_shown(ours)}"
    other = f"{name}: the usage log counts {_shown(ours)}, the simulator {_shown(theirs)}"
    return Check(name, same, text if same else other)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        prompt, completion, cached = value
        return f"{prompt:,} in ({cached:,} cached), {completion:,} out"
    return f"{value:f} USD" if isinstance(value, Decimal) else str(value)
