"""What steering refuses before Redis is asked."""

from __future__ import annotations

from decimal import Decimal

import pytest

from vessel.control import LONGEST_REASON, set_budget, set_maintenance
from vessel.errors import InvalidRequest
from vessel.settings import load_settings
from vessel.submit import Door

DOOR = Door(load_settings({}))


def test_an_unknown_tier_is_told_with_the_name_that_looks_alike() -> None:
    """A slip of the pen holds nothing."""
    with pytest.raises(InvalidRequest, match=r"Did you mean power\?.*Nothing was changed"):
        set_maintenance(DOOR, "powr", None)


def test_a_reason_is_one_bounded_line() -> None:
    """Newlines and what moves a cursor become spaces; what is longer than a line is refused."""
    call = set_maintenance(DOOR, None, None, "a\x1b[2J\r\n\udc80 b")
    assert "a [2J b" in call.command
    set_maintenance(DOOR, None, None, "x" * LONGEST_REASON)
    with pytest.raises(InvalidRequest, match="200"):
        set_maintenance(DOOR, None, None, "x" * (LONGEST_REASON + 1))


@pytest.mark.parametrize("amount", ["0", "-1", "1000001", "NaN", "Infinity"])
def test_an_amount_that_is_no_cap_is_refused(amount: str) -> None:
    """Zero would mean none to one and everything to another."""
    with pytest.raises(InvalidRequest, match="Nothing was changed"):
        set_budget(DOOR, None, day=Decimal(amount))


@pytest.mark.parametrize("tenant", ["", "*", "a\nb", "x" * 129])
def test_a_cap_is_for_a_tenant_by_its_name(tenant: str) -> None:
    """The name that stands for everybody is not a tenant's."""
    with pytest.raises(InvalidRequest, match="tenant"):
        set_budget(DOOR, tenant, day=Decimal(1))


def test_no_cap_at_all_is_refused() -> None:
    """A command that would change nothing says so."""
    with pytest.raises(InvalidRequest, match="No cap was given"):
        set_budget(DOOR, None)
