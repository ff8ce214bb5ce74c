"""The calls that are under way, as the gates count them, and what they may cost at most."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vessel.client.steps import Run, Steps, run
from vessel.gate.flex import FLEX
from vessel.keyspace.names import gate_keys
from vessel.keyspace.script import command, word, words
from vessel.keyspace.server import clock
from vessel.usage.budgets import WHOLE

if TYPE_CHECKING:
    from vessel.submit import Door

AT_MOST = 1000
"""Calls of one gate that are read; no gate lets that many go at once."""


def reserved_nano(door: Door) -> Steps[int]:
    """Sum up, in nano-USD, what calls under way have reserved of the spend caps: the most that each may cost."""
    now: int = yield from run(clock())
    gates = [name for model in door.registry.models.values() for name in (model.id, f"{model.id}#{FLEX}")]
    gates += [door.failover.model.id] if door.failover else []
    keys = [gate_keys(door.keys, door.settings.org, gate, WHOLE).inflight for gate in gates]
    calls: list[list[str]] = yield Run([
        command("ZRANGE", key, now, "+inf", "BYSCORE", "LIMIT", 0, AT_MOST, parse=words) for key in keys
    ])  # fmt: skip
    names = [call.rpartition("/") for some in calls for call in some]
    rows: list[str] = yield Run([command("HGET", door.keys.job(job), f"a:{n}", parse=word) for job, _, n in names])
    return sum(int(json.loads(row)["worst_nano_usd"]) for row in rows if row)
