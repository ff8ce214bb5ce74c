"""What commands write: answers to standard output, everything else to standard error."""

from __future__ import annotations

import io
import json
import os
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

PIPE_WIDTH = 400
"""Columns for tables that no terminal bounds: nothing is cut for a program that reads them."""


class ReaderLeft(Exception):
    """Nobody reads standard output any more, as after `vessel jobs | head`."""


def fill_closed_streams() -> None:
    """Open the null device in the place of standard streams that the caller closed, as by `>&-`.

    Otherwise the next socket would get the number of standard output, and what is printed would go to Redis.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  as long as the process


def escape_what_cannot_be_written() -> None:
    """Let no character end a command: a narrow terminal shows it as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number with its noun, whose plural ends in s unless given."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def say(text: str = "") -> None:
    """Write a line to standard output."""
    say_on(text + "\n")


def say_on(text: str) -> None:
    """Write a piece of an answer to standard output as it comes."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise ReaderLeft from None


def emit(value: object) -> None:
    """Write one JSON document as a line."""
    ascii_only = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    say(json.dumps(value, ensure_ascii=ascii_only, separators=(",", ":"), default=_plain))


def note(text: str) -> None:
    """Tell a person at a terminal something beside the answer."""
    if sys.stderr.isatty():
        complain(text)


def complain(text: str) -> None:
    """Write a line to standard error."""
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except BrokenPipeError:
        raise ReaderLeft from None


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Write a table to standard output; columns in `right` hold numbers.

    It is as wide as it has to be: a row stays a line, ids can be copied, and a narrow terminal breaks where it must.
    """
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, show_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(escaped(cell) for cell in row))
    to = console()
    to.width = max(to.width, to.measure(made, options=to.options.update(width=PIPE_WIDTH)).maximum)
    to.print(made)


def console() -> Console:
    """Open standard output for tables and colours; a pipe is wide. What is written to it may raise ReaderLeft."""
    from rich.console import Console

    class Output(Console):
        def on_broken_pipe(self) -> None:  # rich would exit with 1
            raise ReaderLeft

    return Output(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)


def escaped(cell: object) -> str:
    """Give a cell's text so that nothing in it is taken for markup or moves the cursor."""
    from rich.markup import escape

    text = "-" if cell is None else str(cell)
    return escape("".join(c if c.isprintable() else " " for c in text))


def usd(amount: Decimal | None) -> str:
    """Write an amount for people: exact, without exponent."""
    return "-" if amount is None else f"{amount:f} USD"


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)  # amounts have fewer than 16 digits, which a JSON number carries exactly
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value)
    return _unknown(value)


def _unknown(value: object) -> NoReturn:
    raise TypeError(f"no JSON form for {type(value).__name__}")
