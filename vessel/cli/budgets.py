"""What `vessel budget` does and prints."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from vessel.cli import times
from vessel.cli.faults import BadUse
from vessel.cli.output import emit, say, table
from vessel.client import GroqClient
from vessel.control import clear_budget, set_budget
from vessel.keyspace.server import clock
from vessel.observe.moments import moment
from vessel.usage.budgets import WARNED_AT

if TYPE_CHECKING:
    from vessel.client import Budget
    from vessel.usage.budgets import Cap


def put(tenant: str | None, day: str | None, month: str | None, *, as_json: bool) -> None:
    """Set caps and show those of this tenant. Raises BadUse, InvalidRequest; then nothing was changed."""
    with GroqClient() as client:
        caps = {"day": _amount("--day", day), "month": _amount("--month", month)}
        client.runner.run(set_budget(client.door, tenant, **caps))
        _print([one for one in client.budgets() if one.tenant == tenant], client, as_json=as_json)


def show(*, as_json: bool) -> None:
    """Print all caps."""
    with GroqClient() as client:
        _print(client.budgets(), client, as_json=as_json)


def clear(tenant: str | None, *, as_json: bool) -> None:
    """Take caps away."""
    with GroqClient() as client:
        cleared = client.runner.run(clear_budget(client.door, tenant))
    whose = "everybody" if tenant is None else f"tenant {tenant}"
    if as_json:
        emit({"tenant": tenant, "cleared": cleared})
    else:
        say(f"The spend caps of {whose} are lifted." if cleared else f"There was no spend cap of {whose}.")


def _amount(option: str, text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        return Decimal(text.strip().removeprefix("$"))
    except InvalidOperation:
        raise BadUse(
            f"{option}: {text[:40]!r} is no amount. Nothing was changed. Write USD such as 5 or 0.50.", param=option
        ) from None


def _print(found: list[Budget], client: GroqClient, *, as_json: bool) -> None:
    if as_json:
        for one in found:
            emit(_document(one))
        return
    if not found:
        say("No spend cap is set. `vessel budget set --day USD` sets one.")
        return
    now = client.runner.run(clock())
    rows = [
        (
            "everybody" if one.tenant is None else one.tenant,
            name,
            _usd(cap.cap),
            _usd(cap.spent),
            _usd(cap.left),
            times.until(cap.ends, now),
            times.clock(one.since, now),
            _note(cap, now),
        )
        for one in found
        for name, cap in (("day", one.day), ("month", one.month))
        if cap is not None
    ]
    columns = ("WHOSE", "PER", "CAP USD", "SPENT", "LEFT", "BEGINS ANEW", "COUNTED SINCE", "NOTE")
    table(columns, rows, right=("CAP USD", "SPENT", "LEFT"))


def _document(one: Budget) -> dict[str, Any]:
    return {
        "tenant": one.tenant,
        "day": _cap(one.day),
        "month": _cap(one.month),
        "counted_since": moment(one.since),
        "held": one.held,
    }


def _cap(cap: Cap | None) -> dict[str, Any] | None:
    if cap is None:
        return None
    amounts = {"cap_usd": cap.cap, "spent_usd": cap.spent, "left_usd": cap.left}
    return {name: Decimal(nano).scaleb(-9) for name, nano in amounts.items()} | {
        "ends": moment(cap.ends),
        "warned_at": moment(cap.warned_at),
        "full_at": moment(cap.full_at),
    }


def _note(cap: Cap, now: int) -> str:
    """Say what was told of a cap in its day or month: that most of it is used, or that jobs wait for it."""
    if cap.full_at:
        return f"used up since {times.clock(cap.full_at, now)}: jobs wait, or fail as they ask"
    return f"{WARNED_AT} % used at {times.clock(cap.warned_at, now)}" if cap.warned_at else "-"


def _usd(nano: int) -> str:
    """Write an amount with at least two decimals and no more than it needs."""
    exact = f"{Decimal(nano).scaleb(-9):,.9f}"
    whole, _, part = exact.partition(".")
    return f"{whole}.{part[:2]}{part[2:].rstrip('0')}"
