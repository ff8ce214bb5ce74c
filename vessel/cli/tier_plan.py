"""`vessel tiers --plan`: how many job slots a quota keeps busy, from the limits and from what calls were like lately.

By Little's law the calls under way are calls a second times seconds a call. The limits bound the former; the latter and
the tokens of a call are read from the ledger's last calls, or reckoned from the model's speed where there are none.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.cli import times
from vessel.cli.output import counted, emit, say, table
from vessel.client import GroqClient
from vessel.errors import Unreachable
from vessel.gate.limiter import NAMES, configured
from vessel.keyspace.script import command, pairs, word, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vessel.client import TierInfo
    from vessel.keyspace.script import Call
    from vessel.registry import Model

LOOKED_AT = 2000
"""Ledger entries that are read, the latest ones."""
ASSUMED_PROMPT, ASSUMED_OUTPUT, FIRST_TOKEN_S = 500, 500, 0.3
SPREAD = 1.5
"""Slots above the mean, as calls do not come evenly and some take long."""
PROCESS_CALLS_S = 300.0
"""Calls a second that one worker process serves within one core, with room (perf-facts S2: 1.8 ms each)."""
MINUTE, DAY = 60.0, 1440.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's calls are like on average. `calls`: how many were looked at, 0: it is assumed."""

    prompt: float
    output: float
    seconds: float
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Need:
    """What a quota can keep busy: calls a minute, the limit that bounds them, calls a day, and slots for them."""

    per_minute: float | None
    bound: str
    per_day: float | None
    slots: int | None
    processes: int


def need(caps: Mapping[str, int], shape: Shape, slots_each: int, concurrency: int = 0) -> Need:
    """Reckon what limits allow; caps by their names (rpm, tpm, itpm, otpm, rpd, tpd), 0 or missing: none is known."""
    costs = {"rpm": 1.0, "tpm": shape.prompt + shape.output, "itpm": shape.prompt, "otpm": shape.output}
    rates = {name: caps[name] / max(1.0, cost) for name, cost in costs.items() if caps.get(name)}
    if concurrency:
        rates["concurrency"] = concurrency / shape.seconds * MINUTE
    days = [caps[name] / max(1.0, cost) for name, cost in (("rpd", 1.0), ("tpd", costs["tpm"])) if caps.get(name)]
    if not rates:
        return Need(None, "", min(days, default=None), None, 1)
    bound, rate = min(rates.items(), key=lambda item: item[1])
    slots = max(1, math.ceil(rate / MINUTE * shape.seconds * SPREAD))
    slots = min(slots, concurrency) if concurrency else slots
    processes = max(math.ceil(slots / slots_each), math.ceil(rate / MINUTE / PROCESS_CALLS_S))
    per_day = min([rate * DAY, *days])
    return Need(rate, bound, per_day, slots, processes)


def assumed(model: Model) -> Shape:
    """Reckon what a call is like that nobody has made yet."""
    return Shape(ASSUMED_PROMPT, ASSUMED_OUTPUT, FIRST_TOKEN_S + ASSUMED_OUTPUT / (model.speed_tps or 300))


def shapes(rows: Iterable[Mapping[str, Any]], seconds: Mapping[str, Sequence[float]]) -> dict[str, Shape]:
    """Average the ledger's rows by model; rows of calls whose answer nobody saw say nothing."""
    seen: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        if "tokens" in row and not row.get("estimated") and row.get("vessel", "groq") == "groq":
            seen.setdefault(row["model"], []).append(_tokens(row["tokens"]))
    found = {}
    for model, tokens in seen.items():
        took = seconds.get(model) or ()
        if took:
            count = len(tokens)
            found[model] = Shape(
                sum(one for one, _ in tokens) / count, sum(two for _, two in tokens) / count,
                max(0.001, sum(took) / len(took)), count,
            )  # fmt: skip
    return found


def _tokens(told: Mapping[str, int]) -> tuple[int, int]:
    """Return what counts against the limits: cached prompt tokens do not (groq-facts 2)."""
    return max(0, told["input"] - told.get("cached", 0)), told["output"]


@dataclass(frozen=True, slots=True)
class Row:
    """A tier of the plan. `shares`: the tiers that are served by the same model, and so by the same quota."""

    tier: str
    model: str
    shape: Shape
    need: Need
    there: int | None
    waiting: int | None
    shares: tuple[str, ...] = ()

    @property
    def drains_s(self) -> float | None:
        """In how many seconds what waits has ended, at the limits' pace; None where that is not known."""
        if not self.waiting or not self.need.per_minute:
            return 0.0 if self.waiting == 0 else None
        day = self.need.per_day
        pace = day / DAY if day and self.waiting > day else self.need.per_minute
        return self.waiting / pace * MINUTE


def show_plan(*, as_json: bool) -> None:
    """Print the plan. Without Redis it follows from the registry alone."""
    with GroqClient() as client:
        rows = _rows(client)
        each = client.door.settings.concurrency
    by_model = {row.model: row.need for row in rows}
    slots = sum(found.slots or 0 for found in by_model.values())
    processes = max(1, math.ceil(slots / each))
    if as_json:
        emit({"tiers": [_document(row) for row in rows],
              "total": {"slots": slots, "processes": processes, "slots_each": each}})  # fmt: skip
        return
    table(
        (
            "TIER",
            "SERVED BY",
            "CALLS/MIN",
            "BOUND BY",
            "TOKENS",
            "SECONDS",
            "FROM",
            "SLOTS",
            "THERE",
            "WAITING",
            "DONE IN",
        ),
        [_cells(row) for row in rows],
        right=("CALLS/MIN", "TOKENS", "SECONDS", "SLOTS", "THERE", "WAITING", "DONE IN"),
    )
    say(f"The quota keeps {slots:,} slots busy: {processes} worker process{'' if processes == 1 else 'es'} of {each} "
        "(VESSEL_CONCURRENCY). More of them make nothing faster.")  # fmt: skip
    shared = sorted({", ".join((row.tier, *row.shares)) for row in rows if row.shares and row.tier < min(row.shares)})
    if shared:
        say(f"One model, one quota: {'; '.join(shared)}.")


def _rows(client: GroqClient) -> list[Row]:
    door, tiers = client.door, client.tiers()
    levels: dict[str, dict[str, int]] = {}
    known: dict[str, Shape] = {}
    there: dict[str, int | None] = {info.name: None for info in tiers}
    try:
        levels = {
            gate.gate: {name: level.capacity for name, level in gate.view.limits.items()} for gate in client.limits()
        }
        known = _shapes(client)
        there |= _slots(client, tiers)
    except Unreachable:
        pass
    rows = []
    for info in tiers:
        model = door.registry.models[info.served_by or info.model]
        limits = model.limits.get(door.settings.groq_plan)
        figures = dict(zip(NAMES, configured(limits), strict=False))
        caps = levels.get(model.id) or figures
        shape = known.get(model.served_id) or assumed(model)
        found = need(caps, shape, door.settings.concurrency, (limits.concurrency if limits else None) or 0)
        shares = tuple(
            other.name for other in tiers
            if other.name != info.name and (other.served_by or other.model) == model.id
        )  # fmt: skip
        rows.append(Row(info.name, model.id, shape, found, there[info.name], info.waiting, shares))
    return rows


def _shapes(client: GroqClient) -> dict[str, Shape]:
    raw: list[dict[str, bytes]] = client.runner.run(
        command("XREVRANGE", client.door.keys.ledger, "+", "-", "COUNT", LOOKED_AT,
                parse=lambda found: [pairs(fields) for _, fields in found])
    )  # fmt: skip
    rows = [json.loads(fields["row"]) for fields in raw]
    calls: list[Call[str]] = [
        command("HGET", client.door.keys.job(str(row.get("job_id"))), f"o:{row.get('attempt')}", parse=word)
        for row in rows
    ]
    took: dict[str, list[float]] = {}
    for row, ending in zip(rows, client.runner.run_all(calls), strict=True):
        _, _, told = ending.partition(" ")  # the outcome's label, then its row
        duration = json.loads(told).get("duration_ms") if told else None
        if duration and row.get("vessel", "groq") == "groq":
            took.setdefault(row["model"], []).append(duration / 1000)
    return shapes(rows, took)


def _slots(client: GroqClient, tiers: Sequence[TierInfo]) -> dict[str, int]:
    door = client.door
    slots = client.runner.run(
        command("HGETALL", door.keys.slots, parse=lambda raw: {name: int(n) for name, n in pairs(raw).items()})
    )
    calls: list[Call[list[str]]] = [command("ZRANGE", door.keys.live(info.name), 0, -1, parse=words) for info in tiers]
    members = client.runner.run_all(calls)
    alive = client.runner.run(door.alive())
    return {
        info.name: sum(slots.get(name, 0) for name in names) if alive.get(info.name) else 0
        for info, names in zip(tiers, members, strict=True)
    }


def _cells(row: Row) -> tuple[object, ...]:
    shape, found = row.shape, row.need
    return (
        row.tier, row.model, "no limit known" if found.per_minute is None else f"{found.per_minute:,.0f}",
        found.bound.upper() or None, f"{shape.prompt:,.0f} + {shape.output:,.0f}", f"{shape.seconds:.2f}",
        counted(shape.calls, "call") if shape.calls else "its speed", found.slots, row.there, row.waiting,
        None if row.drains_s is None else times.span(row.drains_s) if row.drains_s else "-",
    )  # fmt: skip


def _document(row: Row) -> dict[str, Any]:
    shape, found = row.shape, row.need
    return {
        "name": row.tier,
        "served_by": row.model,
        "calls_per_minute": found.per_minute,
        "bound_by": found.bound or None,
        "calls_per_day": found.per_day,
        "prompt_tokens": shape.prompt,
        "output_tokens": shape.output,
        "seconds": shape.seconds,
        "calls_seen": shape.calls,
        "slots_needed": found.slots,
        "processes_needed": found.processes,
        "slots_there": row.there,
        "waiting": row.waiting,
        "done_in_s": row.drains_s,
        "shares_quota_with": list(row.shares),
    }
