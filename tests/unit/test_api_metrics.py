"""What the API's metrics tell of spend caps: amounts of everybody's, numbers of tenants', and no tenant's name."""

from __future__ import annotations

from prometheus_client import generate_latest

from vessel.api.metrics import Depths, waiting
from vessel.observe.metrics import Instruments, Source
from vessel.usage.budgets import Budget, Cap


def test_caps_are_told_without_the_names_of_tenants() -> None:
    """A tenant's name may be anything; it is in no label, and neither is it in a value."""
    caps = [
        Budget(None, 0, day=Cap(10_000_000_000, 2_500_000_000, 1)),
        Budget('evil"}\n', 0, day=Cap(10, 8, 1, warned_at=5)),
        Budget("b", 0, day=Cap(10, 1, 1), month=Cap(10, 9, 1, warned_at=5, full_at=6)),
    ]  # fmt: skip
    told = Instruments(Source.REDIS)
    waiting(told, Depths(0, {}, 0, 0, 0, caps, 500_000_000), [])
    text = generate_latest(told.registry).decode()
    lines = {line for line in text.splitlines() if line.startswith("vessel_budget")}
    assert lines == {
        'vessel_budget_cap_usd{cap="day"} 10.0', 'vessel_budget_spent_usd{cap="day"} 2.5',
        "vessel_budget_reserved_usd 0.5",
        'vessel_budget_tenants{cap="day",used="warned"} 1.0', 'vessel_budget_tenants{cap="day",used="free"} 1.0',
        'vessel_budget_tenants{cap="month",used="full"} 1.0',
    }  # fmt: skip
    assert "evil" not in text
