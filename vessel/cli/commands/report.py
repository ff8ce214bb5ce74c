"""What was used and what it cost."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from vessel.cli.commands import options
from vessel.cli.faults import BadUse

Since = Annotated[
    str | None, Option(metavar="WHEN", help="From then on, UTC: 7d, 12h, today, 2026-11-01; a day without it.")
]
Until = Annotated[str | None, Option(metavar="WHEN", help="Up to then and without it, UTC; now without it.")]
GroupName = Literal["model", "tier", "day", "tenant", "tag", "vessel"]
By = Annotated[GroupName, Option(help="What to sum up by; days are those of UTC.")]
Tenant = Annotated[str | None, Option(metavar="NAME", help="Only of one tenant.")]
Csv = Annotated[Path | None, Option("--csv", metavar="F", help="Write it to a CSV file; - is standard output.")]
Plot = Annotated[bool, Option("--plot", help="Draw the cost over time as well.")]
Entries = Annotated[bool, Option("--entries", help="Every entry of the ledger instead of sums.")]
RebuildLog = Annotated[
    Path | None,
    Option("--rebuild-log", metavar="OUT", help="Write usage_log.jsonl anew out of Redis, to a new file or -."),
]


def usage(
    *,
    since: Since = None,
    until: Until = None,
    by: By = "model",
    tenant: Tenant = None,
    csv: Csv = None,
    plot: Plot = False,
    entries: Entries = False,
    rebuild_log: RebuildLog = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell what calls took and cost, by model, tier, day, tenant or tag, and what routing saved."""
    from vessel.cli import usage as ledger

    if rebuild_log is not None:
        if since or until or tenant or csv or plot or entries:
            raise BadUse("--rebuild-log: it writes the whole log. Leave the other options out.", param="--rebuild-log")
        ledger.rebuild_log(rebuild_log, as_json=as_json)
        return
    if entries and plot:
        raise BadUse("--plot: sums are drawn, not single entries. Leave --entries out.", param="--plot")
    ledger.show(ledger.Wanted(since, until, by, tenant, csv, plot, entries), as_json=as_json)
