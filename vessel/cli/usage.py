"""What `vessel usage` does and prints. All its times are UTC, as days of the ledger and of spend caps are."""

from __future__ import annotations

import csv
import importlib
import io
import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.cli.faults import BadUse
from vessel.cli.output import emit, note, say, table
from vessel.cli.reading import STDIN
from vessel.client import GroqClient
from vessel.client.steps import Run, drive, iterate
from vessel.client.usage import BACKWARDS, EVERYTHING, Span, backwards, ledger, report
from vessel.errors import VesselError
from vessel.keyspace.server import clock
from vessel.observe.moments import moment
from vessel.usage.log import at_ms, render
from vessel.usage.sums import DAY_MS, HOUR_MS, NONE, read_entry
from vessel.wire import parse_duration_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from vessel.client.steps import Effect, Flow, Steps
    from vessel.usage.log import Entry
    from vessel.usage.report import Report, Saving
    from vessel.usage.sums import Sum

HOURLY_MS = 3 * DAY_MS
"""Up to so long a span is drawn hour by hour, a longer one day by day."""

PLOT_WIDTH, LEAST_WIDTH, PLOT_HEIGHT, NARROW = 100, 30, 16, 80
BESIDE_BARS = 8
"""Columns of a chart that its scale takes."""

_FORMULA = "=+-@\t\r"
_ENDS = "\r\n"
"""A cell that holds either is quoted, as a spreadsheet would begin a new row behind it."""


class NoPlotext(VesselError):
    """The chart is drawn by plotext, which is not installed here. Run `pip install 'groq-vessel[report]'`."""

    code = "no_plotext"
    exit_code = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for."""

    since: str | None
    until: str | None
    by: str
    tenant: str | None
    csv: Path | None
    plot: bool
    entries: bool


class Asker:
    """Runs the verbs of the ledger over a client's connection."""

    def __init__(self, client: GroqClient) -> None:
        """Take an open client."""
        self.client, self.door = client, client.door

    def run(self, steps: Steps[Any]) -> Any:
        """Carry a verb to its end."""
        return drive(steps, self._perform)

    def each(self, flow: Flow[Entry]) -> Iterator[Entry]:
        """Yield what a verb emits."""
        return iterate(flow, self._perform)

    def _perform(self, effect: Effect) -> Any:
        if not isinstance(effect, Run):
            raise TypeError("verbs of the ledger only run calls")
        return self.client.runner.run_all(effect.calls)


def show(wanted: Wanted, *, as_json: bool) -> None:
    """Print the report of a span, draw it, or export it. Raises BadUse, NoPlotext."""
    plotext = _plotext() if wanted.plot else None
    with GroqClient() as client:
        asker = Asker(client)
        now = client.runner.run(clock())
        span = _span(wanted, now)
        if wanted.entries:
            since = now - DAY_MS if span[0] is None else span[0]
            mine = asker.each(ledger(asker.door, Span(since, span[1] or now + 1)))
            _entries(mine, wanted, as_json=as_json)
            return
        found: Report = asker.run(report(asker.door, since=span[0], until=span[1], by=wanted.by, tenant=wanted.tenant))
        if wanted.csv is not None:
            _write(wanted.csv, _report_rows(found))
        if as_json:
            emit(found.as_dict())
        elif wanted.csv is None or not _is_stdout(wanted.csv):
            _print(found)
        if plotext is not None and found.total.calls and not as_json:
            unit = "hour" if found.until - found.since <= HOURLY_MS else "day"
            over = asker.run(report(asker.door, since=found.since, until=span[1], by=unit, tenant=wanted.tenant))
            say(_chart(plotext, over, _width()))


def rebuild_log(output: Path, *, as_json: bool) -> None:
    """Write the usage log anew out of Redis, to a new file or to standard output. Raises BadUse."""
    if not _is_stdout(output) and output.exists():
        raise BadUse(
            f"{output} exists, and nothing was written: it may hold lines that Redis no longer has. Name a new file, "
            "compare the two, and put it in place yourself.",
            param="--rebuild-log",
        )
    with GroqClient() as client:
        asker = Asker(client)
        lines = (render(*entry) for entry in asker.each(ledger(asker.door, EVERYTHING)))
        if _is_stdout(output):
            for line in lines:
                say(line.decode().removesuffix("\n"))
            return
        count = _write_bytes(output, lines)
    if as_json:
        emit({"entries": count, "file": str(output)})
    else:
        note(f"-- {count:,} entries written to {output}")


# --- reading options --------------------------------------------------------------------------------------------------


def _span(wanted: Wanted, now: int) -> tuple[int | None, int | None]:
    since, until = (_moment(f"--{name}", getattr(wanted, name), now) for name in ("since", "until"))
    if backwards(since, until, now):
        raise BadUse(f"--since: {BACKWARDS}", param="--since")
    return since, until


def _moment(option: str, text: str | None, now: int) -> int | None:
    """Read `7d` (ago), `today`, or ISO 8601, in UTC unless it names a zone."""
    if text is None:
        return None
    if text.strip().lower() in {"today", "now"}:
        return now if text.strip().lower() == "now" else now // DAY_MS * DAY_MS
    if re.fullmatch(r"\s*\d{1,4}d\s*", text, re.ASCII):  # also more than the year that spans of jobs may have
        return max(0, now - int(text.strip()[:-1]) * DAY_MS)
    try:
        if any(c.isalpha() for c in text.strip()[-1:]) and text.strip()[-1:] not in "zZ":
            return max(0, now - int(parse_duration_s(text.strip()) * 1000))
        at = datetime.fromisoformat(text.strip())
        return max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        raise BadUse(
            f"{option}: {text[:40]!r} is no time. Write a span like 7d or 12h, `today`, or a date or time in UTC like "
            "2026-11-01 or 2026-11-01T06:00.",
            param=option,
        ) from None


def _plotext() -> Any:
    try:
        return importlib.import_module("plotext")
    except ImportError:
        raise NoPlotext from None


# --- printing ---------------------------------------------------------------------------------------------------------


def _print(found: Report) -> None:
    say(f"Usage from {_utc(found.since)} to {_utc(found.until)} (UTC), by {found.by}")
    if not found.total.calls:
        say("No call was charged in this time.")
        return
    columns = [found.by.upper(), "CALLS", "INPUT", "CACHED", "OUTPUT", "COST USD", "NO ANSWER"]
    rows = [_row(name, one) for name, one in [*found.groups.items(), ("total", found.total)]]
    if _width() < NARROW:  # figures that are broken in the middle are worse than none
        for row in (columns, *rows):
            del row[6], row[3]
    table(columns, rows, right=columns[1:])
    if sum(one.calls for one in found.groups.values()) > found.total.calls:
        say("A call with several tags is counted under each of them, and once in the total.")
    if found.total.unknown:
        guessed = money(found.total.guessed_pico_usd)
        say(f"Of it {guessed} USD are for calls whose answer was not seen: the most they can have been billed with.")
    if found.saving is not None:
        say(_saved(found.saving))


def _row(name: str, one: Sum) -> list[str]:
    counts = (one.calls, one.input_tokens, one.cached_tokens, one.output_tokens)
    return [name, *(f"{count:,}" for count in counts), money(one.pico_usd), f"{one.unknown:,}" if one.unknown else "-"]


def _saved(found: Saving) -> str:
    there, here, usd = (_plain(amount) for amount in (found.there_usd, found.here_usd, found.usd))
    told = f"The same tokens on {found.tier} ({found.model}), the most expensive tier, would have cost {there} USD"
    percent = "" if found.percent is None else f" ({found.percent:.0f} %)"
    return f"Saved by routing: {usd} USD{percent}. {told} instead of {here}."


def money(pico_usd: int) -> str:
    """Write an amount exactly, with two decimals or as many as it needs."""
    return _plain(Decimal(pico_usd).scaleb(-12))


def _plain(amount: Decimal) -> str:
    whole, _, part = f"{amount:,f}".partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def _utc(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _width() -> int:
    """Say how wide a chart may be: as the terminal is, if that is not wider than it is of use."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else PLOT_WIDTH
    return max(LEAST_WIDTH, min(PLOT_WIDTH, columns))


def _chart(plotext: Any, found: Report, width: int = PLOT_WIDTH) -> str:
    """Draw cost over time; hours or days without a call are empty bars, those that have no room the first ones."""
    step = HOUR_MS if found.by == "hour" else DAY_MS
    first, last = found.since // step, max(found.since, found.until - 1) // step
    first = max(first, last - (width - BESIDE_BARS) + 1)
    starts = [datetime.fromtimestamp(at * step / 1000, UTC) for at in range(first, last + 1)]
    names = [at.strftime("%Y-%m-%dT%H" if found.by == "hour" else "%Y-%m-%d") for at in starts]
    costs = [float(found.groups[name].cost_usd) if name in found.groups else 0.0 for name in names]
    figure = plotext.figure
    figure.clear()
    figure.plot_size(width, PLOT_HEIGHT)
    title = f"USD per {found.by}, UTC, {names[0]} to {names[-1]}"
    figure.title(title if len(title) < width else f"USD per {found.by}, UTC")
    figure.draw(figure.bar([at.strftime("%H:%M" if found.by == "hour" else "%m-%d") for at in starts], costs))
    drawn: str = plotext.uncolorize(figure.build())
    return "\n".join(line.rstrip() for line in drawn.splitlines())


# --- exporting --------------------------------------------------------------------------------------------------------


def _report_rows(found: Report) -> Iterator[Sequence[object]]:
    counted = ("calls", "unknown", "orphaned", "failed", "estimated", "input_tokens", "cached_tokens", "output_tokens")
    yield (found.by, *counted, "cost_usd", "unknown_cost_usd")
    for name, one in found.groups.items():
        exact = (f"{Decimal(nano).scaleb(-12):f}" for nano in (one.pico_usd, one.guessed_pico_usd))
        yield (name, *(getattr(one, what) for what in counted), *exact)


_ENTRY = ("timestamp", "entry", "outcome", "estimated", "model", "tier", "vessel", "tenant", "job_id", "attempt",
          "request_id", "input_tokens", "cached_tokens", "output_tokens", "cost_usd", "tags")  # fmt: skip


def _entries(found: Iterator[Entry], wanted: Wanted, *, as_json: bool) -> None:
    mine = (entry for entry in found if wanted.tenant is None or read_entry(entry).get("tenant") == wanted.tenant)
    if wanted.csv is not None:
        _write(wanted.csv, _entry_rows(mine))
    elif as_json:
        for entry in mine:
            say(render(*entry).decode().removesuffix("\n"))
    else:
        columns = ("TIME (UTC)", "OUTCOME", "MODEL", "TENANT", "INPUT", "OUTPUT", "COST USD", "JOB")
        table(columns, (_entry_row(entry) for entry in mine), right=columns[4:7])


def _entry_row(entry: Entry) -> tuple[object, ...]:
    row = _flat(entry)
    cost = _plain(Decimal(row["cost_usd"]))
    named = [row.get(name) for name in ("outcome", "model", "tenant")]
    return (_utc(at_ms(entry[0])), *named, row["input_tokens"], row["output_tokens"], cost, row.get("job_id"))


def _entry_rows(found: Iterable[Entry]) -> Iterator[Sequence[object]]:
    yield _ENTRY
    for entry in found:
        row = _flat(entry)
        row["tags"] = json.dumps(row["tags"], ensure_ascii=False) if row.get("tags") else ""
        yield [row.get(name) for name in _ENTRY]


def _flat(entry: Entry) -> dict[str, Any]:
    row = read_entry(entry)
    tokens = row.pop("tokens", {})
    at = moment(at_ms(entry[0]))
    row |= {f"{name}_tokens": tokens.get(name, 0) for name in ("input", "cached", "output")} | {"timestamp": at}
    return row | {"cost_usd": f"{Decimal(row.get('cost_usd') or 0):f}", "estimated": bool(row.get("estimated"))}


def _write(output: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write CSV, to a file whole or not at all."""
    if _is_stdout(output):
        for row in rows:
            say(_csv_line(row).removesuffix("\n"))
        return
    count = _write_bytes(output, (_csv_line(row).encode() for row in rows)) - 1
    note(f"-- {count:,} rows written to {output}")


def _csv_line(row: Sequence[object]) -> str:
    """Write a row; a text that a spreadsheet would take for a formula, as a tag may be, begins with an apostrophe."""
    line = io.StringIO()
    safe = (f"'{cell}" if isinstance(cell, str) and _runs(cell) else cell for cell in row)
    csv.writer(line, lineterminator=_ENDS).writerow(safe)
    return line.getvalue().removesuffix(_ENDS) + "\n"


def _runs(cell: str) -> bool:
    return cell[:1] in _FORMULA and cell not in {"", NONE}


def _write_bytes(output: Path, lines: Iterable[bytes]) -> int:
    partial, count = output.with_name(f"{output.name}.partial"), 0
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for line in lines:
                file.write(line)
                count += 1
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadUse(f"{output} cannot be written: {error.strerror}. The ledger is unchanged.") from None
    return count


def _is_stdout(output: Path) -> bool:
    return str(output) == STDIN
