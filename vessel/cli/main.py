"""The command line: its commands, and how every one of them ends."""

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from vessel import __version__
from vessel.cli.commands import ask, hooks, look, operate, queue, steer
from vessel.cli.commands import batch as batches
from vessel.cli.commands import report as reporting
from vessel.cli.commands import run as running
from vessel.cli.commands.examples import epilog
from vessel.cli.faults import conclude, interruptible, wants_json
from vessel.cli.output import escape_what_cannot_be_written, fill_closed_streams, say

NAME = "Groq behind a job queue: one Celery queue per model tier, limits kept, fallback, exact usage and cost."
HELP = (
    f"{NAME}\n\n"
    "Exit codes: 0 done, 1 the job or check failed, 2 bad use or settings, 3 something needed is unreachable or "
    "missing, 130 interrupted. With --json an error is also a document on standard output: "
    '{"error": {"message", "type", "code", "param"}}.'
)

app = typer.Typer(
    name="vessel",
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:  # noqa: FBT001  typer calls it so
    if wanted:
        say(f"vessel {__version__}")
        raise typer.Exit


@app.callback(help=HELP)
def vessel(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Groq behind a job queue."""


for panel, members in {
    "Run": (
        running.demo,
        running.up,
        running.worker,
        running.scheduler,
        running.api,
        running.mcp,
        running.flower,
        running.simulate,
    ),
    "Ask": (ask.query, ask.analyze, ask.code, ask.research),
    "Queue": (queue.submit, queue.job, queue.jobs, queue.wait, queue.cancel, queue.retry, queue.events),
    "Look": (look.route, look.models, look.tiers, look.limits, reporting.usage),
    "Operate": (operate.check, operate.doctor, operate.backup, operate.restore),
}.items():
    for command in members:
        app.command(rich_help_panel=panel, epilog=epilog(command.__name__))(interruptible(command))
app.add_typer(batches.batch, rich_help_panel="Queue")
for group in (steer.maintenance, steer.budget, steer.keys, hooks.webhooks):
    app.add_typer(group, rich_help_panel="Steer")


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    as_json = wants_json(arguments)
    return conclude(
        lambda: app(list(arguments) or ["--help"], prog_name="vessel", standalone_mode=False), as_json=as_json
    )


def main() -> NoReturn:
    """Run the command of this process' arguments and exit."""
    fill_closed_streams()
    escape_what_cannot_be_written()
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
