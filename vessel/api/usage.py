"""`/v1/usage`: what a tenant's calls took and cost, out of the ledger."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Query

from vessel.api import examples
from vessel.api.auth import Tenant
from vessel.api.faults import documented
from vessel.api.moments import MOMENT, epoch_ms
from vessel.api.session import Here
from vessel.control import clock
from vessel.errors import InvalidRequest
from vessel.observe.moments import moment
from vessel.usage.log import PAGE, entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vessel.api.session import Session

router = APIRouter(tags=["usage"])
By = Literal["model", "tier", "day", "tag", "vessel"]
DAY_MS = 86_400_000
MOST_ENTRIES = 100_000
"""Of the ledger, read for one request; a longer span has to be asked for in parts."""

_ROW = {"group": "openai/gpt-oss-20b", "calls": 12, "unknown": 0, "input_tokens": 912, "cached_tokens": 0,
        "output_tokens": 2048, "cost_usd": 0.00068, "estimated": 0}  # fmt: skip
EXAMPLE = {"object": "usage", "since": "2026-11-27T00:00:00.000Z", "until": "2026-11-28T00:00:00.000Z", "by": "model",
           "data": [_ROW], "total": _ROW | {"group": None}}  # fmt: skip


@dataclass(slots=True)
class Sum:
    """What calls took; `unknown` ones had no answer that was seen and are booked at the most they could cost."""

    calls: int = 0
    unknown: int = 0
    estimated: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)

    def add(self, row: Mapping[str, Any], outcome: str) -> None:
        """Count a ledger entry."""
        self.calls += 1
        self.unknown += outcome == "unknown"
        self.estimated += bool(row.get("estimated"))
        tokens = row["tokens"]
        self.input_tokens += tokens["input"]
        self.cached_tokens += tokens["cached"]
        self.output_tokens += tokens["output"]
        self.cost += row["cost_usd"]

    def document(self, group: str | None) -> dict[str, Any]:
        """Describe it in JSON."""
        return {
            "group": group,
            "calls": self.calls,
            "unknown": self.unknown,
            "estimated": self.estimated,
            "input_tokens": self.input_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "cost_usd": float(self.cost),
        }


@router.get(
    "/usage",
    summary="Sum up usage and cost",
    responses={200: examples.answers("Usage", "Sums by group, and of all.", EXAMPLE), **documented()},
)
async def usage(
    tenant: Tenant,
    here: Here,
    since: Annotated[
        str | None, Query(max_length=64, description="An age like 7d, or ISO 8601; a day ago without it.", **MOMENT)
    ] = None,
    until: Annotated[str | None, Query(max_length=64, description="The same; now without it.", **MOMENT)] = None,
    by: Annotated[By, Query(description="What to group by; a call with several tags counts under each.")] = "model",
) -> dict[str, Any]:
    """Sum up the calls of this key's tenant, with tokens and exact cost."""
    now = await here.runner.run(clock())
    start = now - DAY_MS if since is None else epoch_ms("since", since, now)
    end = now if until is None else epoch_ms("until", until, now)
    total, groups = await _sums(here, tenant, start, end, by)
    data = [groups[name].document(name) for name in sorted(groups)]
    return {"object": "usage", "since": moment(start), "until": moment(end), "by": by, "data": data,
            "total": total.document(None)}  # fmt: skip


async def _sums(here: Session, tenant: str, start: int, end: int, by: By) -> tuple[Sum, dict[str, Sum]]:
    total, groups, after, seen = Sum(), dict[str, Sum](), f"{max(0, start - 1)}-18446744073709551615", 0
    while True:
        found = await here.runner.run(entries(here.door.keys.ledger, after))
        for entry_id, fields in found:
            at = int(entry_id.partition("-")[0])
            if at > end:
                return total, groups
            row = json.loads(fields["row"], parse_float=Decimal, parse_int=int)
            if row.get("tenant") == tenant:
                outcome = fields["outcome"].decode()
                total.add(row, outcome)
                for group in _groups(row, at, by):
                    groups.setdefault(group, Sum()).add(row, outcome)
        seen += len(found)
        if len(found) < PAGE:
            return total, groups
        if seen >= MOST_ENTRIES:
            text = f"since: the span holds more than {MOST_ENTRIES:,} calls; ask for it in parts."
            raise InvalidRequest(text, param="since")
        after = found[-1][0]


def _groups(row: Mapping[str, Any], at: int, by: By) -> Iterable[str]:
    match by:
        case "day":
            return [datetime.fromtimestamp(at / 1000, UTC).date().isoformat()]
        case "tag":
            return [f"{name}={value}" for name, value in row.get("tags", {}).items()] or ["-"]
        case _:
            return [str(row.get(by) or "-")]
