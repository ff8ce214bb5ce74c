"""What the demonstration shows: progress on a terminal, the report on standard output."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from vessel.cli.demo.panel import STORM_MODEL
from vessel.cli.output import ReaderLeft
from vessel.client import JobFailed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Sequence

    from vessel.cli.demo.report import Report
    from vessel.cli.demo.work import Done

WIDTH = 100
"""Columns where no terminal says otherwise: the report is to be pasted."""
QUOTED = 48
WHYS = {
    "model_gone": "404, the model is gone: no attempt used",
    "rate_limited": "429: the next of its chain was free sooner",
}


class Screen:
    """The two streams of a run; silent until the report where JSON is asked for."""

    def __init__(self, *, as_json: bool) -> None:
        """Choose how to write."""
        self.quiet = as_json
        self._out = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, soft_wrap=False)
        self._live = Console(stderr=True)

    def line(self, text: str = "", style: str | None = None) -> None:
        """Write a line as it is."""
        if not self.quiet:
            self._print(escape(text), style)

    def fact(self, name: str, text: str) -> None:
        """Write a name and what belongs to it."""
        if not self.quiet:
            self._print(f"[bold]{name:<10}[/] {escape(text)}")

    @contextlib.contextmanager
    def progress(self, totals: Counter[str]) -> Iterator[Callable[[Done], None]]:
        """Show a bar per tier on a terminal while the batch runs; give what to call at each ending."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda _: None
            return
        columns = (TextColumn("  {task.description:<14}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._live, transient=True) as bars:
            tasks = {tier: bars.add_task(tier, total=total) for tier, total in totals.items()}
            yield lambda done: bars.advance(tasks[done.tier])

    def report(self, report: Report) -> None:
        """Write what was found out."""
        self._asked(report.asked)
        self._shares(report)
        self._reroutes(report)
        self.line("Checked", "bold")
        for check in report.checks:
            mark = "[green]ok[/]   " if check.ok else "[bold red]WRONG[/]"
            self._print(f"  {mark} {escape(check.text)}")
        self.line()
        if report.saving is not None:
            saving = report.saving
            part = f"{saving.part:.0%} less" if saving.part > 0 else "no less"
            else_where = f"{saving.cost_usd.normalize():f} USD with everything on {saving.tier}"
            self.fact("Cost", f"{report.booked.tokens_usd.normalize():f} USD, {part} than {else_where}")
        if report.booked.tools_usd:
            self.fact(
                "Tools", f"and about {report.booked.tools_usd.normalize():f} USD for built-in tools, by Groq's list"
            )
        self.fact("Usage log", str(report.usage_log))
        good = sum(check.ok for check in report.checks)
        verdict = f"{good} of {len(report.checks)} checks hold, {report.seconds:.1f} s in all"
        self._print(f"[bold {'green' if report.ok else 'red'}]{verdict}[/]")

    def _asked(self, asked: Sequence[Done]) -> None:
        self.line("\nAsked meanwhile, one after the other", "bold")
        table = _table("CALL", "MODEL", "SECONDS", "ANSWER", right=("SECONDS",))
        for one in asked:
            if one.ended is None or isinstance(one.ended, JobFailed):
                table.add_row(one.label, one.asked, f"{one.seconds:.2f}", "no answer")
                continue
            text = " ".join(one.ended.text.split())
            shown = text if len(text) <= QUOTED else text[: QUOTED - 3] + "..."
            table.add_row(one.label, one.ended.model, f"{one.seconds:.2f}", escape(shown))
        self._print(table)

    def _shares(self, report: Report) -> None:
        self.line("\nWhere the jobs ran", "bold")
        right = ("JOBS", "TOKENS IN", "OUT", "USD")
        table = _table("TIER", "MODEL", *right, right=right)
        for share in report.shares:
            figures = (f"{share.jobs}", f"{share.prompt:,}", f"{share.completion:,}", f"{share.cost_usd:.9f}")
            table.add_row(share.tier, share.model, *figures)
        self._print(table)

    def _reroutes(self, report: Report) -> None:
        if not report.reroutes and not report.waited:
            self.line()
            return
        self.line("\nSent on, and why", "bold")
        table = _table("JOBS", "ASKED FOR", "ANSWERED BY", "WHY", right=("JOBS",))
        for reroute in report.reroutes:
            table.add_row(str(reroute.jobs), reroute.asked, reroute.ran, WHYS.get(reroute.why, reroute.why))
        if report.waited:
            table.add_row(str(report.waited), STORM_MODEL, "the same model", "429: waited until it was free")
        self._print(table)
        self.line()

    def _print(self, what: object, style: str | None = None) -> None:
        if self.quiet:
            return
        try:
            self._out.print(what, style=style)
        except BrokenPipeError:
            raise ReaderLeft from None


def _table(*columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), collapse_padding=True)
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    return table
