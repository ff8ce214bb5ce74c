"""Steering the whole vessel: maintenance and spend caps."""

from collections.abc import Callable
from typing import Annotated

import typer
from typer import Option

from vessel.cli.commands import options
from vessel.cli.faults import BadUse, interruptible

Tier = Annotated[str | None, Option("--tier", metavar="TIER", help="Only this tier; without it everything.")]
Until = Annotated[
    str | None,
    Option(metavar="TIME", help="The planned end: 2h, 18:30 or 2026-11-28T06:00, local time. Without it, until `off`."),
]
Reason = Annotated[str | None, Option(metavar="TEXT", help="Told to whoever waits; one line, 200 characters.")]
Tenant = Annotated[str | None, Option(metavar="NAME", help="The cap of one tenant; without it that of everybody.")]
Day = Annotated[str | None, Option(metavar="USD", help="At most so much in a day (UTC).")]
Month = Annotated[str | None, Option(metavar="USD", help="At most so much in a month (UTC).")]


def maintenance_on(
    *, tier: Tier = None, until: Until = None, reason: Reason = None, as_json: options.AsJson = False
) -> None:
    """Hold all jobs: they are accepted, wait and use no attempt. Calls under way end."""
    from vessel.cli.maintenance import begin

    begin(tier, until, reason or "", as_json=as_json)


def maintenance_off(*, tier: Tier = None, as_json: options.AsJson = False) -> None:
    """End maintenance, all of it or that of a tier. Held jobs go on, no faster than the limits allow."""
    from vessel.cli.maintenance import end

    end(tier, as_json=as_json)


def maintenance_status(*, as_json: options.AsJson = False) -> None:
    """Tell what is in maintenance, why and until when, and how many jobs are held."""
    from vessel.cli.maintenance import show

    show(as_json=as_json)


def budget_set(*, tenant: Tenant = None, day: Day = None, month: Month = None, as_json: options.AsJson = False) -> None:
    """Cap what may be spent. Jobs whose worst case would pass a cap wait for the next day or month."""
    from vessel.cli.budgets import put

    put(tenant, day, month, as_json=as_json)


def budget_show(*, as_json: options.AsJson = False) -> None:
    """Show every cap: what is spent or reserved of it, what is left, and when it begins anew."""
    from vessel.cli.budgets import show

    show(as_json=as_json)


def budget_clear(*, tenant: Tenant = None, as_json: options.AsJson = False) -> None:
    """Take the caps of everybody, or those of a tenant, away, with what was counted for them."""
    from vessel.cli.budgets import clear

    clear(tenant, as_json=as_json)


def group(name: str, text: str, **commands: Callable[..., int | None]) -> typer.Typer:
    """Make a command with commands of its own."""
    made = typer.Typer(name=name, help=text)

    @made.callback(invoke_without_command=True)
    def choose(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            raise BadUse(f"vessel {name} needs one of its commands: {', '.join(commands)}. Nothing was changed.")

    for verb, command in commands.items():
        made.command(verb)(interruptible(command))
    return made


maintenance = group(
    "maintenance", "Hold jobs for a while: on, off, status.",
    on=maintenance_on, off=maintenance_off, status=maintenance_status,
)  # fmt: skip
budget = group(
    "budget", "Spend caps by day or month, per tenant or whole: set, show, clear.",
    set=budget_set, show=budget_show, clear=budget_clear,
)  # fmt: skip
