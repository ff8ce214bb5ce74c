"""Gates as lines: what is in use first, used-up limits with their time, and nothing that a narrow terminal breaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from vessel.cli.gauges import Screen, draw
from vessel.cli.limits import document
from vessel.client.gates import GateInfo, Held, MaintenanceInfo
from vessel.gate.view import Breaker, GateView, Level, Maintenance

NOW = 1_795_000_000_000
DAY_MS = 86_400_000
VIEW = GateView(NOW, {name: Level(name, cap, cap) for name, cap in {"rpd": 1000, "rpm": 30, "tpm": 6000}.items()})
IDLE = GateInfo("quiet-model", "power", VIEW)
INFO = MaintenanceInfo(NOW, (), Held(0, 0, 0), {})


def drawn(*gates: GateInfo, info: MaintenanceInfo = INFO, width: int = 120, unicode: bool = True) -> str:
    """Draw as plain text."""
    lines = draw(Screen("acme", "free", gates, info), width, unicode=unicode)
    return "\n".join(line.plain for line in lines)


def busy(**more: Any) -> GateInfo:
    """Make a gate with one call under way."""
    return GateInfo("busy-model", "balanced", replace(VIEW, running=1, **more))


def test_an_idle_gate_is_one_line_after_those_in_use() -> None:
    """Its limits stand by the minute before those by the day."""
    text = drawn(IDLE, busy())
    assert text.index("busy-model  balanced") < text.index("quiet-model")
    assert "quiet-model  full: 30 RPM, 6,000 TPM, 1,000 RPD" in text


def test_a_daily_limit_that_is_used_up_says_when_there_is_some_again() -> None:
    """Its debt is not shown as a figure below zero; the time is for the next job that waits."""
    part = (3 * 3600 + 12 * 60) * 1000 / DAY_MS  # of the day's tokens
    view = replace(VIEW, limits={"tpd": Level("tpd", 100_000, 1000 - part * 100_000)})
    gate = GateInfo("m", "power", view, waiting=(0, 0, 7), oldest=NOW - 90_000, next_tokens=1000)
    text = drawn(gate)
    assert "TPD  0 of 100,000" in text
    assert "used up, again in 3 h 12 min" in text
    assert "7 jobs (7 batch) for TPD, the longest for 1 min 30 s" in text


def test_what_holds_calls_back_is_told() -> None:
    """Breakers of the model and of Groq, a block, bookings by lane, maintenance."""
    model = Breaker("open", "server_error", 4000, NOW - 60_000)
    gate = busy(
        model=model, blocked_ms=2500, blocked_why="tpm", booked=((0, 0, 0), (2, 9, 9), (1, 9, 9)), bookings=3,
        next_booking=NOW + 200, provider=Breaker("open", "unauthorized", 0, NOW),
    )  # fmt: skip
    text = drawn(gate, info=replace(INFO, active=(Maintenance("power", NOW + 60_000, NOW, "moving"),)))
    for told in (
        "(server error); next look in 4 s",
        "Groq asked to wait (TPM), 2.5 s more",
        "1 running, 3 booked (2 normal, 1 batch, the next in 0.2 s)",
        "Tier power is in maintenance",
        "(unauthorized); next look with the next call",
    ):
        assert told in text


def test_what_was_learned_is_marked() -> None:
    """A limit that Groq told, and what is kept clear of it."""
    assert "(learned, 120 kept clear)" in drawn(busy(limits={"tpm": Level("tpm", 6000, 10, 120.4, learned=True)}))


@pytest.mark.parametrize("width", [60, 80, 200])
def test_without_unicode_a_gauge_is_ascii(width: int) -> None:
    """A terminal that cannot show blocks gets signs that every one has."""
    text = drawn(busy(limits={"tpm": Level("tpm", 6000, 3000)}), width=width, unicode=False)
    assert text.isascii()
    assert "######......" in text


def test_a_gate_without_limits_says_so() -> None:
    """There is no gauge to draw, and nothing to divide by."""
    assert "none are known yet" in drawn(busy(limits={}, seen=False))


def test_the_document_carries_what_the_lines_tell() -> None:
    """Times in ISO 8601, spans in seconds; a closed breaker is named as such."""
    gate = GateInfo("m", "power", replace(VIEW, next_booking=NOW), waiting=(1, 2, 3), oldest=NOW - 500)
    found = document(Screen("acme", "free", (gate,), INFO))
    (model,) = found["models"]
    assert model["waiting"] == {"interactive": 1, "normal": 2, "batch": 3}
    assert model["longest_wait_s"] == 0.5
    assert model["next_booking_at"] == found["at"]
    assert model["breaker"]["state"] == found["breaker"]["state"] == "closed"
    assert [limit["name"] for limit in model["limits"]] == ["rpm", "tpm", "rpd"]
