"""What a report shows: the seed's cost example, moments in UTC, exact amounts, a chart, and CSV that is no formula."""

from __future__ import annotations

import csv
import sys
from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from vessel.cli import usage as cli
from vessel.cli.faults import BadUse
from vessel.client.usage import Span
from vessel.observe.moments import moment
from vessel.registry import Availability, load_registry
from vessel.usage.report import Report, saving
from vessel.usage.sums import HOUR_MS, Figure, Sum, day_name, figures_of, read_sums, summed

if TYPE_CHECKING:
    from collections.abc import Mapping

REGISTRY = load_registry()
SEEDS_TIME = Availability(listed=None, gone=frozenset({"llama-3.3-70b-versatile"}), today=date(2025, 10, 6))
MILLION = 10**6
NOW = 1_795_780_800_000  # 2026-11-27T12:00:00Z


def pico(usd: str) -> int:
    """Read an amount."""
    return int(Decimal(usd).scaleb(12))


def test_the_seeds_cost_example() -> None:
    """A million tokens in and out: 0.13 instead of 0.75 USD, 82 to 83 % saved; with the dearer model it is more."""
    of = Sum(calls=1, input_tokens=MILLION, output_tokens=MILLION, pico_usd=pico("0.13"))
    found = saving(REGISTRY, SEEDS_TIME, of)
    assert found is not None
    assert (found.model, found.there_usd, found.usd) == ("openai/gpt-oss-120b", Decimal("0.75"), Decimal("0.62"))
    assert found.percent is not None
    assert round(found.percent, 2) == Decimal("82.67")
    whole = saving(REGISTRY, Availability(listed=None, gone=frozenset(), today=date(2025, 10, 6)), of)
    assert whole is not None
    assert (whole.tier, whole.there_usd) == ("balanced", Decimal("1.38"))


def test_a_saving_knows_nothing_of_guesses_and_fees() -> None:
    """What nobody saw, and what tools cost wherever they run, is on neither side."""
    known = Sum(calls=1, input_tokens=MILLION, pico_usd=pico("0.05"))
    mixed = Sum(
        calls=2, unknown=1, input_tokens=MILLION + 70, output_tokens=90, pico_usd=pico("9.06"),
        fees_pico_usd=pico("0.01"), guessed_input_tokens=70, guessed_output_tokens=90, guessed_pico_usd=pico("9"),
    )  # fmt: skip
    assert saving(REGISTRY, SEEDS_TIME, known) == saving(REGISTRY, SEEDS_TIME, mixed)
    assert saving(REGISTRY, SEEDS_TIME, Sum(calls=1, unknown=1, input_tokens=5, guessed_input_tokens=5)) is None


def test_hashes_of_sums_are_read() -> None:
    """With their hour or as a day's, bars in tags and all; what was amended away is no group."""
    flat: Mapping[str, bytes] = {"30|n:succeeded|t|m|power|groq": b"2", "30|pico|t|m|power|groq": b"7",
                                 "31|n:unknown|t|m2||groq": b"0"}  # fmt: skip
    figures = list(read_sums(flat, tags=False))
    assert figures[0] == Figure(30, "n:succeeded", 2, "t", "m", "power", "groq")
    assert {name: (one.calls, one.pico_usd) for name, one in summed(figures, "tier").items()} == {"power": (2, 7)}
    assert list(summed(figures, "hour")) == ["1970-01-02T06"]
    (tag,) = read_sums({"30|n:succeeded|t|a=x|y": b"1"}, tags=True)
    assert (tag.tag, tag.tenant) == ("a=x|y", "t")
    (day,) = read_sums({"n:succeeded|t|m|power|groq": b"1"}, tags=False, day=20_000)
    assert day.group("day") == day_name(20_000) == "2024-10-04"


def test_an_entry_without_figures_counts_as_a_call() -> None:
    """Rows are what workers wrote; one of a test or of another version may lack anything."""
    entry = ("0-1", {"row": b'{"attempt":1}', "outcome": b"succeeded"})
    assert summed(figures_of(entry, tags=True), "tag") == {"-": Sum(calls=1)}


def test_a_span_has_whole_hours_and_edges() -> None:
    """Nothing is read twice and nothing is left out."""
    span = Span(HOUR_MS // 2, 3 * HOUR_MS + 1)
    assert span.hours == range(1, 3)
    assert span.edges == (Span(HOUR_MS // 2, HOUR_MS), Span(3 * HOUR_MS, 3 * HOUR_MS + 1))
    short = Span(10, 20)
    assert (len(short.hours), short.edges) == (0, (short,))
    assert Span(0, HOUR_MS).edges == ()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("today", "2026-11-27T00:00:00.000Z"), ("now", "2026-11-27T12:00:00.000Z"), ("12h", "2026-11-27T00:00:00.000Z"),
        ("7d", "2026-11-20T12:00:00.000Z"), ("2026-11-01", "2026-11-01T00:00:00.000Z"),
        ("2026-11-01T06:30", "2026-11-01T06:30:00.000Z"), ("2026-11-01T06:30Z", "2026-11-01T06:30:00.000Z"),
        ("2026-11-01T06:30+02:00", "2026-11-01T04:30:00.000Z"),
    ],
)  # fmt: skip
def test_moments_are_utc(text: str, at: str) -> None:
    """Whatever zone the terminal is in."""
    assert moment(cli._moment("--since", text, NOW)) == at


@pytest.mark.parametrize("text", ["", "yesterday", "7", "9999-99-99", "1e99d", "-1d", "99999999d", "tomorrowd", "\x00"])
def test_what_is_no_moment_is_told(text: str) -> None:
    """With what to write instead."""
    with pytest.raises(BadUse, match="is no time"):
        cli._moment("--since", text, NOW)


def test_money_is_exact() -> None:
    """Two decimals or as many as it needs, no exponent."""
    assert [cli.money(n) for n in (0, 1, 10**12, 5 * 10**11, 1234567 * 10**12)] == [
        "0.00", "0.000000000001", "1.00", "0.50", "1,234,567.00"]  # fmt: skip


@pytest.mark.parametrize("text", ["=1+1", "+1", "-2", "@SUM(A1)", "\tx"])
def test_no_cell_is_a_formula(text: str) -> None:
    """A tag of a tenant must not run in somebody's spreadsheet; numbers stay numbers."""
    assert cli._csv_line([text, -5, None]).strip().startswith(("'", "\"'"))
    assert cli._csv_line([-5]) == "-5\n"


@pytest.mark.parametrize("text", ["a\r=1+1", "a\n=1+1", 'a"b'])
def test_no_cell_begins_a_row(text: str) -> None:
    """A spreadsheet takes a bare carriage return for the end of a row, and what is behind it for a cell."""
    line = cli._csv_line([text, "b"])
    assert line.startswith('"a')
    assert list(csv.reader([line])) == [[text, "b"]]


def report(by: str, hours: int) -> Report:
    """Make a report of a span with one call in its last hour."""
    name = "2026-11-27T11" if by == "hour" else "2026-11-27"
    one = Sum(calls=1, pico_usd=10**12)
    return Report(NOW - hours * HOUR_MS, NOW, by, MappingProxyType({name: one}), one, None)


@pytest.mark.parametrize("width", [cli.PLOT_WIDTH, 40, cli.LEAST_WIDTH])
@pytest.mark.parametrize(("by", "hours"), [("hour", 24), ("day", 24 * 30), ("day", 24 * 3650), ("hour", 0)])
def test_a_chart_is_drawn(by: str, hours: int, width: int) -> None:
    """Plain text that fits a terminal, with what it shows and in which zone."""
    plotext: Any = pytest.importorskip("plotext")
    lines = cli._chart(plotext, report(by, hours), width).splitlines()
    assert f"USD per {by}, UTC" in lines[0]
    assert all(len(line) <= width for line in lines)
    assert "\x1b" not in "".join(lines)
    assert len(lines) == cli.PLOT_HEIGHT


def test_without_plotext_the_cure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback."""
    monkeypatch.setitem(sys.modules, "plotext", None)
    with pytest.raises(cli.NoPlotext, match="pip install"):
        cli._plotext()
