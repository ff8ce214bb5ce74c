"""How many slots a quota keeps busy follows from its limits and from what calls are like."""

from __future__ import annotations

from typing import Any

import pytest

from vessel.cli.tier_plan import SPREAD, Need, Row, Shape, assumed, need, shapes
from vessel.registry import load_registry

CALL = Shape(prompt=600, output=400, seconds=2.0, calls=10)


@pytest.mark.parametrize(
    ("caps", "rate", "bound"),
    [
        ({"rpm": 60, "tpm": 1_000_000}, 60.0, "rpm"),
        ({"rpm": 6000, "tpm": 100_000}, 100.0, "tpm"),
        ({"rpm": 6000, "itpm": 30_000, "otpm": 400_000}, 50.0, "itpm"),
        ({"rpm": 6000, "itpm": 600_000, "otpm": 8_000}, 20.0, "otpm"),
        ({"rpm": 0, "tpm": 2_000}, 2.0, "tpm"),
    ],
)
def test_the_tightest_limit_bounds_the_rate(caps: dict[str, int], rate: float, bound: str) -> None:
    """Slots are calls a second times seconds a call, with room for uneven ones."""
    found = need(caps, CALL, 200)
    assert (found.per_minute, found.bound) == (rate, bound)
    assert found.slots is not None
    assert found.slots - 1 < rate / 60 * 2.0 * SPREAD <= found.slots


def test_processes_follow_from_slots_and_from_cpu() -> None:
    """Many long calls need slots; many short ones need cores."""
    assert need({"rpm": 30_000}, Shape(10, 10, 10.0), 200).processes == 38
    assert need({"rpm": 60_000}, Shape(10, 10, 0.01), 200).processes == 4


def test_a_day_bounds_what_lasts() -> None:
    """Limits a day do not change how many slots a minute needs, but when what waits has ended."""
    found = need({"rpm": 100, "rpd": 1_440}, CALL, 200)
    assert (found.per_minute, found.per_day) == (100.0, 1_440.0)
    few, many = (Row("t", "m", CALL, found, 10, waiting) for waiting in (100, 14_400))
    assert few.drains_s == 60.0
    assert many.drains_s == 864_000.0


def test_our_own_bound_on_calls_under_way_counts() -> None:
    """More slots than that would only wait."""
    found = need({"rpm": 6_000}, CALL, 200, concurrency=4)
    assert (found.per_minute, found.bound, found.slots) == (120.0, "concurrency", 4)


def test_without_limits_nothing_is_made_up() -> None:
    """One process serves what there is until Groq tells its limits."""
    assert need({}, CALL, 200) == Need(None, "", None, None, 1)
    assert Row("t", "m", CALL, need({}, CALL, 200), 0, 5).drains_s is None


def test_calls_are_averaged_by_model() -> None:
    """Cached tokens do not count, nor do rows that were booked without an answer, nor other vessels' calls."""
    row: dict[str, Any] = {"model": "m", "vessel": "groq", "tokens": {"input": 100, "output": 50, "cached": 40}}
    rows = [row, row | {"tokens": {"input": 20, "output": 150}}, row | {"estimated": True}, row | {"vessel": "openai"}]
    assert shapes(rows, {"m": [1.0, 3.0]}) == {"m": Shape(40, 100, 2.0, 2)}
    assert shapes(rows, {}) == {}


def test_the_assumption_follows_the_models_speed() -> None:
    """A faster model needs fewer slots for the same rate."""
    models = [model for model in load_registry().routable() if model.speed_tps]
    slow, fast = (f(models, key=lambda model: model.speed_tps or 0) for f in (min, max))
    assert assumed(slow).seconds > assumed(fast).seconds > 0
