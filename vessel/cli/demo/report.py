"""What the demonstration found out, as figures: for the screen and for --json alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.client import JobFailed, Result
from vessel.upstream.outcome import Usage
from vessel.usage.prices import cost_usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from vessel.cli.demo.verify import Booked, Check
    from vessel.cli.demo.work import Done
    from vessel.registry import Availability, Registry


@dataclass(slots=True)
class Share:
    """What one model did for one tier."""

    tier: str
    model: str
    jobs: int = 0
    prompt: int = 0
    completion: int = 0
    cost_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Reroute:
    """Jobs that were answered by another model than the one chosen first."""

    jobs: int
    asked: str
    ran: str
    why: str


@dataclass(frozen=True, slots=True)
class Saving:
    """What the same tokens would have cost on the most expensive tier."""

    tier: str
    model: str
    cost_usd: Decimal
    part: Decimal


@dataclass(frozen=True, slots=True)
class Report:
    """All of it."""

    live: bool
    seconds: float
    batch: Sequence[Done]
    asked: Sequence[Done]
    shares: Sequence[Share]
    reroutes: Sequence[Reroute]
    waited: int
    booked: Booked
    saving: Saving | None
    checks: Sequence[Check]
    usage_log: Path

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return all(check.ok for check in self.checks)


def shares_of(done: Iterable[Done]) -> list[Share]:
    """Add up by tier and model, in order of jobs."""
    found: dict[tuple[str, str], Share] = {}
    for one in done:
        if isinstance(one.ended, Result):
            key = (one.ended.tier, one.ended.model)
            share = found.setdefault(key, Share(*key))
            share.jobs += 1
            share.prompt += one.ended.usage.prompt_tokens
            share.completion += one.ended.usage.completion_tokens
            share.cost_usd += one.ended.cost_usd - one.ended.tool_cost_usd
    return sorted(found.values(), key=lambda share: -share.jobs)


def reroutes_of(done: Iterable[Done]) -> list[Reroute]:
    """Group the jobs that another model answered."""
    found: Counter[tuple[str, str, str]] = Counter()
    for one in done:
        if isinstance(one.ended, Result) and one.ended.model != one.asked:
            reasons = [reason for name, reason in one.steps if name == "requeued"]
            found[one.asked, one.ended.model, ", ".join(dict.fromkeys(reasons)) or "unknown"] += 1
    return [Reroute(jobs, *key) for key, jobs in found.most_common()]


def saving_of(booked: Booked, registry: Registry, availability: Availability) -> Saving | None:
    """Price all tokens on the tier whose model costs most."""
    from vessel.registry import resolve

    usage = Usage(booked.prompt, booked.completion, cached_tokens=booked.cached)
    served = [(tier.name, resolve(registry, tier.model, availability)) for tier in registry.tiers.values()]
    priced = [(cost_usd(registry.model(model), usage), tier, model) for tier, model in served if model]
    if not priced or not booked.tokens_usd:
        return None
    most, tier, model = max(priced, key=lambda one: (one[0], one[2] == registry.tiers[one[1]].model))
    return Saving(tier, model, most, 1 - booked.tokens_usd / most)


def document(report: Report) -> dict[str, Any]:
    """Describe the report in JSON."""
    booked = report.booked
    return {
        "ok": report.ok,
        "upstream": "groq" if report.live else "simulator",
        "seconds": round(report.seconds, 3),
        "jobs": len(report.batch) + len(report.asked),
        "interactive": [
            {"call": one.label, "seconds": round(one.seconds or 0, 3), **_ended(one)} for one in report.asked
        ],
        "by_model": [
            {"tier": s.tier, "model": s.model, "jobs": s.jobs, "prompt_tokens": s.prompt,
             "completion_tokens": s.completion, "cost_usd": s.cost_usd}
            for s in report.shares
        ],
        "rerouted": [{"jobs": r.jobs, "asked": r.asked, "ran": r.ran, "why": r.why} for r in report.reroutes],
        "waited": report.waited,
        "usage": {"lines": booked.lines, "prompt_tokens": booked.prompt, "completion_tokens": booked.completion,
                  "cached_tokens": booked.cached, "cost_usd": booked.cost_usd, "tool_cost_usd": booked.tools_usd},
        "saving": report.saving and {"tier": report.saving.tier, "model": report.saving.model,
                                     "cost_usd": report.saving.cost_usd, "part": round(float(report.saving.part), 4)},
        "checks": [{"name": check.name, "ok": check.ok, "text": check.text} for check in report.checks],
        "usage_log": str(report.usage_log),
    }  # fmt: skip


def _ended(one: Done) -> dict[str, Any]:
    if isinstance(one.ended, JobFailed):
        return {"state": one.ended.state, "reason": one.ended.reason}
    if one.ended is None:
        return {"state": "unknown"}
    return {"state": "succeeded", "tier": one.ended.tier, "model": one.ended.model, "text": one.ended.text}
