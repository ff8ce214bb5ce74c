"""Random interleavings of all verbs on a real server, and planted bugs that show that the machine would find one."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.contract.machine import JobMachine
from vessel.jobs import store
from vessel.keyspace.script import Script, load

if TYPE_CHECKING:
    import redis

pytestmark = pytest.mark.redis("valkey", "redis")

FENCE = " or held[2] ~= generation or held[3] ~= owner"
ENDINGS = ("finish", "park", "requeue")
BUGS: dict[str, dict[str, tuple[str, str]]] = {
    "no fence at all": {
        "claim": ("tonumber(held[2]) ~= tonumber(ticket_generation)", "false"),
        "finish": (" and held[2] == generation and held[3] == owner", ""),
        "start": (FENCE, ""),
        "park": (FENCE, ""),
        "requeue": (FENCE, ""),
    },
    "claim takes any ticket": {"claim": ("tonumber(held[2]) ~= tonumber(ticket_generation)", "false")},
    "finish forgets the lease": {"finish": (" and held[2] == generation and held[3] == owner", "")},
    "finish overwrites an end": {"finish": ("local used = open and (", "local used = (")},
    "park forgets the lease": {"park": (FENCE, "")},
    "claim keeps the generation": {"claim": ("+ 1, 'owner'", "+ 0, 'owner'")},
    "a late answer is thrown away": {"finish": ("(owned or valid == '1' and not held[5])", "owned")},
    "a call is booked at every ending": {
        "finish": ("redis.call('HSETNX', call.job, 'o:'", "1 + 0 * redis.call('HSETNX', call.job, 'o:'")
    },
    "an unknown call is not amended": dict.fromkeys(
        ENDINGS, ("if was ~= call.unknown or label == call.unknown then", "if true then")
    ),
    "a guess stays though the call was free": dict.fromkeys(ENDINGS, ("if row ~= '' then", "if false then")),
    "the winner forgets the call in flight": {"finish": ("if not owned then", "if false then")},
    "rescue books nothing": {"rescue": ("if held[1] and not held[2] and not held[3] then", "if false then")},
    "rescue keeps the generation": {"rescue": ("held[2] + 1", "held[2] + 0")},
    "rescue takes live leases": {"rescue": ("tonumber(held[3] or 0) > now", "false")},
    "reissue keeps the generation": {"reissue": ("generation + 1", "generation + 0")},
    "cancel leaves the wait": {"close": ("redis.call('ZREM', parked, id)", "")},
    "create forgets its key": {"create": ("if known then", "if false then")},
}

DEEP = {
    *("park forgets the lease", "an unknown call is not amended", "a late answer is thrown away"),
    *("cancel leaves the wait", "the winner forgets the call in flight", "rescue keeps the generation"),
    *("rescue books nothing", "finish forgets the lease", "a call is booked at every ending"),
    "a guess stays though the call was free",
}
"""Found too, but only after many seconds of search."""


def play(client: redis.Redis, *, examples: int, steps: int, seek: bool = False) -> None:
    """Run the machine; `seek` stops at the first counterexample without making it smaller."""
    machine = type("Bound", (JobMachine,), {"client": client})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=seek,
            report_multiple_bugs=False,
            phases=(Phase.generate,) if seek else (Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("examples", [40, pytest.param(400, marks=pytest.mark.system)])
def test_random_work_keeps_every_promise(redis_client: redis.Redis, examples: int) -> None:
    """Whatever workers, sweeps and lost messages do, the model and the invariants hold."""
    play(redis_client, examples=examples, steps=50)


@pytest.mark.redis("valkey")
@pytest.mark.parametrize("bug", [pytest.param(bug, marks=pytest.mark.system if bug in DEEP else ()) for bug in BUGS])
def test_a_planted_bug_is_found(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    """With a rule of a script taken out the machine comes to a counterexample."""
    monkeypatch.setattr(store, "load", lambda name: spoilt(load(name), bug))
    with pytest.raises(AssertionError):
        play(redis_client, examples=4_000 if bug in DEEP else 400, steps=50, seek=True)


def spoilt(script: Script, bug: str) -> Script:
    """Take the rule out of the script's text; fail when the text is not there any more."""
    if script.name not in BUGS[bug]:
        return script
    good, bad = BUGS[bug][script.name]
    if good not in script.text:
        raise LookupError(f"{script.name}.lua has no {good!r} any more")
    text = script.text.replace(good, bad)
    return replace(script, text=text, sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
