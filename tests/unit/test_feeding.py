"""Who gets a ticket: lanes in order, tenants by tokens, and never more than the gate can admit soon."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vessel.gate.feeding import DECIDE_AT_ONCE, Candidate, Flow, Lane, Room, choose, in_fair_order
from vessel.gate.limiter import Charge
from vessel.gate.view import Breaker, GateView, Level

FIGURES = (600, 0, 60_000, 0, 0, 0)


def candidate(name: str, tokens: int = 100, *, asked: bool = True) -> Candidate:
    """Make a waiting job of so many tokens."""
    return Candidate(name, Charge("m", "org", FIGURES, tokens, 0), asked)


def flow(name: str, count: int, tokens: int = 100, given_so_far: float = 0, *, asked: bool = True) -> Flow:
    """Make a tenant's jobs `name0`, `name1` ..."""
    return Flow(given_so_far, [candidate(f"{name}{n}", tokens, asked=asked) for n in range(count)])


def view(rpm: float = 600, tpm: float = 60_000, **more: Any) -> GateView:
    """Make a gate with so much left of 600 requests and 60,000 tokens a minute."""
    levels = {"rpm": Level("rpm", 600, rpm), "tpm": Level("tpm", 60_000, tpm)}
    return replace(GateView(now=1_000_000, limits=levels), **more)


def chosen(room: Room, *lanes: tuple[int, list[Flow]]) -> list[str]:
    """Choose."""
    return choose(room, [Lane(number, flows) for number, flows in lanes])


def test_no_more_is_fed_than_there_is_quota_for() -> None:
    """Ten requests are left and three come in the time a ticket takes; tokens bound in the same way."""
    assert len(chosen(Room(view(rpm=10), 1000), (2, [flow("a", 50)]))) == 13
    assert len(chosen(Room(view(tpm=1_000), 1000), (2, [flow("a", 50)]))) == 13
    assert chosen(Room(view(rpm=-20), 1000), (2, [flow("a", 50)])) == []


def test_tickets_that_are_out_count() -> None:
    """Fed jobs that have not asked yet take their part, as bookings do."""
    assert len(chosen(Room(view(rpm=10, fed=5), 1000), (2, [flow("a", 50)]))) == 8
    booked = ((0, 0, 0), (4, 0, 0), (0, 0, 0))
    assert len(chosen(Room(view(rpm=10, booked=booked), 1000), (2, [flow("a", 50)]))) == 9


def test_lanes_go_in_order() -> None:
    """Interactive work first, whatever the others hold."""
    got = chosen(Room(view(rpm=1), 1000), (2, [flow("batch", 9)]), (0, [flow("now", 2)]), (1, [flow("normal", 9)]))
    assert got == ["now0", "now1", "normal0", "normal1"]


def test_batch_leaves_the_reserve() -> None:
    """While interactive calls come in, two of their kind stay free."""
    busy = view(rpm=10, interactive=(999_000, 100, 0))
    assert len(chosen(Room(busy, 1000), (2, [flow("a", 50)]))) == 11
    assert len(chosen(Room(busy, 1000), (0, [flow("a", 50)]))) == 13


def test_places_bound_what_is_out() -> None:
    """However much quota there is, no more jobs get a ticket than the workers' slots are kept for."""
    assert len(chosen(Room(view(), 7), (2, [flow("a", 50)]))) == 7
    assert chosen(Room(view(), -3), (2, [flow("a", 50)])) == []


def test_concurrency_bounds_what_is_fed() -> None:
    """A model with four calls at a time gets no fifth ticket."""
    assert len(chosen(Room(view(running=1, fed=1), 1000, 4), (2, [flow("a", 50)]))) == 2


@pytest.mark.parametrize("where", ["model", "provider"])
def test_an_open_breaker_gets_one_job_when_a_look_is_due(where: str) -> None:
    """None while the next look lies ahead, one when it is due and nobody is on the way."""
    ahead: dict[str, Any] = {where: Breaker("open", "over_capacity", 4_000)}
    due: dict[str, Any] = {where: Breaker("open", "over_capacity", 0)}
    assert chosen(Room(view(**ahead), 1000), (2, [flow("a", 9)])) == []
    assert len(chosen(Room(view(**due), 1000), (2, [flow("a", 9)]))) == 1
    assert chosen(Room(view(**due, fed=1), 1000), (2, [flow("a", 9)])) == []


def test_a_model_nobody_knows_gets_four() -> None:
    """The first answers tell its limits."""
    unknown = GateView(now=1, limits={}, seen=False)
    assert len(chosen(Room(unknown, 1000), (2, [flow("a", 9)]))) == 4


def test_who_has_a_choice_decides_once() -> None:
    """A job that would wait longer than its lane's patience gets a ticket to step down, a few at a time."""
    empty = view(rpm=-1_000)
    assert chosen(Room(empty, 1000), (2, [flow("a", 99)])) == []
    assert len(chosen(Room(empty, 1000), (2, [flow("a", 99, asked=False)]))) == DECIDE_AT_ONCE


def test_who_has_a_choice_is_heard_behind_one_who_waits() -> None:
    """A job that may fail over or step down does not wait behind one that can only wait."""
    mixed = Flow(0, [candidate("waits"), candidate("chooses", asked=False), candidate("waits too")])
    assert chosen(Room(view(rpm=-1_000), 1000), (2, [mixed])) == ["chooses"]
    held: dict[str, Any] = {"provider": Breaker("open", "unauthorized", 4_000)}
    assert chosen(Room(view(**held), 1000), (2, [mixed])) == ["chooses"]


def test_a_large_job_goes_when_the_gate_would_let_it() -> None:
    """A full bucket admits what fits into the limit, whatever is kept clear: it could never have more room."""
    levels = {"tpm": Level("tpm", 60_000, 60_000, margin=3_000)}
    full = GateView(now=1_000_000, limits=levels, interactive=(999_000, 1_000, 1_000))
    assert chosen(Room(full, 1000), (2, [Flow(0, [candidate("large", 59_000)])])) == ["large"]


def test_a_lane_that_has_waited_long_gets_one_past_the_others() -> None:
    """Bookings before it and the reserve do not count for one job of it."""
    busy = view(rpm=5, interactive=(999_000, 100, 0), booked=((20, 0, 0), (0, 0, 0), (0, 0, 0)))
    assert choose(Room(busy, 1000), [Lane(2, [flow("a", 9)], waited_ms=4_999)]) == []
    assert choose(Room(busy, 1000), [Lane(2, [flow("a", 9)], waited_ms=5_000)]) == ["a0"]


def test_a_request_above_the_limit_is_fed_to_be_told_so() -> None:
    """It would never have room, and must not stop those behind it."""
    big = Flow(0, [candidate("big", 70_000), candidate("small", 10)])
    assert chosen(Room(view(), 1000), (2, [big])) == ["big", "small"]


def test_tenants_share_by_tokens() -> None:
    """One of large jobs and one of small ones get the same tokens, not the same number of jobs."""
    order = list(in_fair_order([flow("large", 100, 1_000), flow("small", 1_000, 100)]))
    got: Counter[str] = Counter()
    for job in order[:330]:
        got[job.id.rstrip("0123456789")] += job.tokens
    assert abs(got["large"] - got["small"]) <= 1_000


def test_who_came_later_does_not_get_everything() -> None:
    """What was given before counts, and a tenant far behind catches up first."""
    order = [job.id for job in in_fair_order([flow("old", 9, 100, given_so_far=300), flow("new", 9)])]
    assert order[:4] == ["new0", "new1", "new2", "old0"]


@given(st.lists(st.tuples(st.integers(0, 500), st.lists(st.integers(1, 400), max_size=20)), max_size=6))
def test_the_fair_order_loses_nobody_and_is_never_unfair(flows: list[tuple[int, list[int]]]) -> None:
    """Every job comes once, in its flow's order; whoever goes had been given the least of those who wait."""
    made = [
        Flow(given_so_far, [candidate(f"{n}-{k}", size) for k, size in enumerate(sizes)])
        for n, (given_so_far, sizes) in enumerate(flows)
    ]
    had, place = [f.given for f in made], [0] * len(made)
    for job in in_fair_order(made):
        mine, number = map(int, job.id.split("-"))
        assert number == place[mine]
        assert had[mine] == min(h for n, h in enumerate(had) if place[n] < len(made[n].waiting))
        had[mine] += job.tokens
        place[mine] += 1
    assert place == [len(f.waiting) for f in made]
