"""Steering the whole vessel: maintenance and spend caps."""

from collections.abc import Callable
from typing import Annotated

import typer
from typer import Option

from vessel.cli.commands import options
from vessel.cli.commands.examples import epilog
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


KeyTenant = Annotated[str, Option("--tenant", metavar="NAME", help="Whose jobs, files and usage it sees.")]
Note = Annotated[str, Option("--note", metavar="TEXT", help="What it is for.")]
MaySteer = Annotated[bool, Option("--admin", help="It may also begin and end maintenance.")]
Quota = Annotated[str, Option("--quota", metavar="N/SPAN", help="Requests, as 60/minute or '60/minute; 1000/day'.")]
Expires = Annotated[str | None, Option("--expires", metavar="SPAN", help="It ends after so long, e.g. 90d.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="A key's id; `vessel keys list` tells it.")]


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


def keys_create(
    *,
    tenant: KeyTenant = "default",
    note: Note = "",
    admin: MaySteer = False,
    quota: Quota = "",
    expires: Expires = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a key and show it, this once: only a hash of it is kept."""
    from vessel.cli.keys import create

    create(tenant, note, quota, expires, admin=admin, as_json=as_json)


def keys_list(*, as_json: options.AsJson = False) -> None:
    """List the keys: whose they are, what they may do, when they were made and end. No secret is kept to be shown."""
    from vessel.cli.keys import show

    show(as_json=as_json)


def keys_revoke(key_id: KeyId, *, as_json: options.AsJson = False) -> int:
    """Revoke a key: it opens nothing from now on. Jobs that it made go on."""
    from vessel.cli.keys import revoke

    return revoke(key_id, as_json=as_json)


def group(name: str, text: str, **commands: Callable[..., int | None]) -> typer.Typer:
    """Make a command with commands of its own."""
    made = typer.Typer(name=name, help=text)

    @made.callback(invoke_without_command=True)
    def choose(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            raise BadUse(f"vessel {name} needs one of its commands: {', '.join(commands)}. Nothing was changed.")

    for verb, command in commands.items():
        made.command(verb, epilog=epilog(f"{name} {verb}"))(interruptible(command))
    return made


maintenance = group(
    "maintenance", "Hold jobs for a while: on, off, status.",
    on=maintenance_on, off=maintenance_off, status=maintenance_status,
)  # fmt: skip
budget = group(
    "budget", "Spend caps by day or month, per tenant or whole: set, show, clear.",
    set=budget_set, show=budget_show, clear=budget_clear,
)  # fmt: skip
keys = group(
    "keys", "API keys of the REST and MCP face: create, list, revoke.",
    create=keys_create, list=keys_list, revoke=keys_revoke,
)  # fmt: skip
