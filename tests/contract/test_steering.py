"""Maintenance and spend caps: one step each, by Redis' clock, and the gate obeys what was written."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.waiting import wait_until
from vessel.control import (
    budget,
    capped,
    clear_budget,
    clear_maintenance,
    maintenance,
    set_budget,
    set_maintenance,
)
from vessel.errors import InvalidRequest
from vessel.gate.view import GateView, Maintenance, look
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import gate_keys
from vessel.keyspace.server import clock
from vessel.settings import load_settings
from vessel.submit import Door
from vessel.usage.budgets import read_budget

if TYPE_CHECKING:
    import redis

pytestmark = pytest.mark.redis("fakeredis", "valkey", "redis")
HOUR_MS = 3_600_000


@pytest.fixture
def door() -> Door:
    """Give a door; it holds no connection."""
    return Door(load_settings({}, namespace="steer"))


@pytest.fixture
def runner(redis_client: redis.Redis) -> SyncRunner:
    """Give a runner of an empty server."""
    return SyncRunner(redis_client)


def seen_by_the_gate(door: Door, runner: SyncRunner) -> GateView:
    """Look at a model's gate as the feeder does."""
    return runner.run(look(gate_keys(door.keys, "default", "m", "*"), "0 0 0 0 0 0"))


def test_the_gate_sees_what_is_in_maintenance(door: Door, runner: SyncRunner) -> None:
    """The whole or one tier, with the end and the reason; without an end it is held until told."""
    until = runner.run(clock()) + HOUR_MS
    made = runner.run(set_maintenance(door, "power", until, "moving  Redis\n at\tnight "))
    assert (made.tier, made.until, made.reason) == ("power", until, "moving Redis at night")
    view = seen_by_the_gate(door, runner)
    assert view.held("power") == made
    assert view.held("balanced") is None
    runner.run(set_maintenance(door, None, None))
    whole = seen_by_the_gate(door, runner).held("balanced")
    assert whole is not None
    assert (whole.tier, whole.until, whole.reason) == (None, 0, "")
    assert {one.tier for one in runner.run(maintenance(door))} == {None, "power"}


def test_a_maintenance_that_is_changed_keeps_its_beginning(door: Door, runner: SyncRunner) -> None:
    """End and reason are the new ones; a repeated call changes nothing."""
    first = runner.run(set_maintenance(door, None, None, "a"))
    wait_until(lambda: runner.run(clock()) > first.since)
    again = set_maintenance(door, None, first.since + HOUR_MS, "b")
    assert runner.run(again) == runner.run(again) == Maintenance(None, first.since + HOUR_MS, first.since, "b")
    assert runner.run(maintenance(door)) == (Maintenance(None, first.since + HOUR_MS, first.since, "b"),)


def test_a_planned_end_ends_by_itself(door: Door, runner: SyncRunner) -> None:
    """After its time nothing is held, the next one begins anew, and what is over is taken out."""
    first = runner.run(set_maintenance(door, "power", runner.run(clock()) + 50, "short"))
    wait_until(lambda: seen_by_the_gate(door, runner).held("power") is None)
    assert runner.run(set_maintenance(door, "balanced", None)).since >= first.until
    assert [one.tier for one in runner.run(maintenance(door))] == ["balanced"]
    assert runner.run(set_maintenance(door, "power", None)).since >= first.until


def test_a_time_that_is_over_changes_nothing(door: Door, runner: SyncRunner) -> None:
    """Redis' clock decides, in the step that would write."""
    before = runner.run(set_maintenance(door, None, None, "kept"))
    with pytest.raises(InvalidRequest, match="Nothing was changed"):
        runner.run(set_maintenance(door, None, runner.run(clock()) - 1))
    assert runner.run(maintenance(door)) == (before,)


def test_maintenance_ends_for_a_tier_or_for_all(door: Door, runner: SyncRunner) -> None:
    """Ending a tier's leaves the rest; ending all leaves nothing; ending nothing says so."""
    for tier in (None, "power", "balanced"):
        runner.run(set_maintenance(door, tier, None))
    assert runner.run(clear_maintenance(door, "power"))
    assert not runner.run(clear_maintenance(door, "power"))
    assert {one.tier for one in runner.run(maintenance(door))} == {None, "balanced"}
    assert runner.run(clear_maintenance(door, None))
    assert not runner.run(clear_maintenance(door, None))
    assert runner.run(maintenance(door)) == ()


def test_caps_are_set_one_by_one_and_lifted_together(door: Door, runner: SyncRunner) -> None:
    """A cap that is not given stays, spending is counted from the first one on, and each tenant has its own."""
    since = runner.run(set_budget(door, None, day=Decimal(5)))
    wait_until(lambda: runner.run(clock()) > since)
    assert runner.run(set_budget(door, None, month=Decimal("50.5"))) == since
    runner.run(set_budget(door, "acme", day=Decimal("0.0000000019")))
    assert runner.run(capped(door)) == ["*", "acme"]
    whole = read_budget("*", runner.run(budget(door, "*")), runner.run(clock()))
    assert whole is not None
    assert whole.day is not None
    assert whole.month is not None
    assert (whole.since, whole.day.cap, whole.month.cap) == (since, 5 * 10**9, 505 * 10**8)
    acme = read_budget("acme", runner.run(budget(door, "acme")), runner.run(clock()))
    assert acme is not None
    assert acme.day is not None
    assert acme.day.cap == 1  # rounded down: what is spent may never pass it
    assert runner.run(clear_budget(door, None))
    assert not runner.run(clear_budget(door, None))
    assert runner.run(capped(door)) == ["acme"]
    assert runner.run(budget(door, "*")) == {}
