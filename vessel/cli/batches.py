"""What `vessel batch` does and prints."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vessel.cli import times
from vessel.cli.faults import BadUse
from vessel.cli.output import counted, emit, note, say, table, usd
from vessel.cli.reading import STDIN
from vessel.cli.webhooks import line
from vessel.client import BatchStatus, GroqClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.progress import Progress

    from vessel.client import Batch, Estimate

LOOK_S = 0.5
RATE_OVER_S = 30.0


def submit(
    file: Path, window: str, metadata: Sequence[str] | None, key: str | None, *, as_json: bool, **policy: str | None
) -> None:
    """Submit a file and print the batch's id; `policy`: webhook, max_cost_usd. Raises InvalidBatch, InvalidRequest."""
    with GroqClient() as client:
        more: dict[str, Any] = {"metadata": _pairs(metadata), "idempotency_key": key, **policy}
        handle = client.submit_batch(_source(file), window=window, **more)
        found = handle.progress()
    if as_json:
        emit(found.as_dict() | {"estimate": None if handle.estimate is None else estimate_document(handle.estimate)})
        return
    say(found.id)
    if handle.estimate is not None:
        note(f"-- {counted(found.total, 'line')}, {_told(handle.estimate)}; `vessel batch watch {found.id}` follows it")


def estimate(file: Path, *, as_json: bool) -> None:
    """Print cost and time by model; nothing is sent."""
    with GroqClient() as client:
        found = client.estimate_batch(_source(file))
    if as_json:
        emit(estimate_document(found))
        return
    columns = ("MODEL", "LINES", "PROMPT TOKENS", "ANSWERS", "AT MOST", "COST", "AT MOST ", "TIME BY QUOTA")
    table(columns, [
        (p.model, f"{p.lines:,}", f"{p.prompt_tokens:,}", f"{p.typical_output_tokens:,}",
         f"{p.most_output_tokens:,}", usd(p.typical_cost_usd), usd(p.worst_cost_usd), _time(p.seconds))
        for p in found.models
    ], right=columns[1:])  # fmt: skip
    say(f"{counted(found.lines, 'line')}: {_told(found)}. Nothing was sent.")


def estimate_document(found: Estimate) -> dict[str, Any]:
    """Describe an estimate in JSON."""
    return {
        "lines": found.lines,
        "typical_cost_usd": found.typical_cost_usd,
        "worst_cost_usd": found.worst_cost_usd,
        "seconds": found.seconds,
        "models": [part.as_dict() for part in found.models],
    }


def show(batch_id: str, *, as_json: bool) -> None:
    """Print where a batch stands."""
    with GroqClient() as client:
        found = client.batch_progress(batch_id)
    if as_json:
        emit(found.as_dict())
        return
    files = found.as_dict()
    rows = {
        "id": found.id,
        "status": str(found.status),
        "lines": f"{found.completed:,} completed, {found.failed:,} failed, {found.left:,} left of {found.total:,}",
        "ended": ", ".join(f"{count:,} {state}" for state, count in found.counts.items() if count) or "none",
        "tokens": f"{found.usage[0]:,} + {found.usage[1]:,}",
        "cost": usd(found.cost_usd),
        "cap": _cap(found),
        "input": found.file,
        "output": files["output_file_id"],
        "errors": files["error_file_id"],
        "created": times.stamp(found.created_at),
        "expires": times.stamp(found.expires_at),
        "webhook": line(found.delivery) if found.delivery else None,
    }
    for name, value in rows.items():
        if value is not None:
            say(f"{name:<9}{value}")
    for name, value in found.metadata.items():
        say(f"{'metadata':<9}{name}={value}")
    _say_report(found)


def _cap(found: Batch) -> str:
    if found.max_cost_usd is None:
        return "none"
    return f"{usd(Decimal(found.spent_nano).scaleb(-9).normalize())} of {usd(found.max_cost_usd)} charged or reserved"


def _say_report(found: Batch) -> None:
    for fault in found.errors:
        where = f"line {fault.line}" if fault.line else "file"
        say(f"{where}: {fault.message} ({fault.code})")


def show_many(limit: int, *, as_json: bool) -> None:
    """List batches."""
    with GroqClient() as client:
        found = client.batches(limit)
    if as_json:
        for one in found:
            emit(one.as_dict())
        return
    columns = ("ID", "STATUS", "DONE", "FAILED", "OF", "COST", "CREATED")
    rows = [
        (one.id, one.status, f"{one.completed:,}", f"{one.failed:,}", f"{one.total:,}", usd(one.cost_usd),
         times.stamp(one.created_at))
        for one in found
    ]  # fmt: skip
    table(columns, rows, right=("DONE", "FAILED", "OF", "COST"))


def cancel(batch_id: str, *, as_json: bool) -> None:
    """Cancel a batch and print what is left of it."""
    with GroqClient() as client:
        found = client.cancel_batch(batch_id)
    if as_json:
        emit(found.as_dict())
    else:
        say(f"{found.status}: {counted(found.completed, 'result')} kept, {counted(found.left, 'call')} being cut.")


def watch(batch_id: str, *, as_json: bool) -> int:
    """Follow a batch to its end; 1 when it, or a line of it, has no result."""
    try:
        found = _followed(batch_id, as_json=as_json)
    except KeyboardInterrupt as stop:
        stop.add_note(
            f"The batch goes on. `vessel batch watch {batch_id}` follows it again; `vessel batch cancel {batch_id}` "
            "ends it."
        )
        raise
    if not as_json:
        tokens = f"{sum(found.usage[:2]):,} tokens, {usd(found.cost_usd)}"
        say(f"{found.status}: {found.completed:,} completed, {found.failed:,} failed of {found.total:,}; {tokens}")
        _say_report(found)
        read = [f"`vessel batch results {batch_id}` writes the results"] if found.completed else []
        read += [f"`vessel batch errors {batch_id}` tells why lines have none"] if found.failed else []
        if read:
            note(f"-- {'; '.join(read)}")
    return 0 if found.status is BatchStatus.COMPLETED and not found.failed else 1


def _followed(batch_id: str, *, as_json: bool) -> Batch:
    with GroqClient() as client:
        found = client.batch_progress(batch_id)
        with _bar(found, quiet=as_json) as draw:
            last = None
            while True:
                if as_json and found != last:
                    emit(found.as_dict())
                draw(found)
                if found.ended:
                    return found
                last = found
                time.sleep(LOOK_S)
                found = client.batch_progress(batch_id)


class _bar:  # noqa: N801  used as a context
    """A live bar on a terminal; nothing in a pipe."""

    def __init__(self, found: Batch, *, quiet: bool) -> None:
        self.bars: Progress | None = None
        self.seen: deque[tuple[float, int]] = deque()
        if quiet or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        counts = Column(no_wrap=True, min_width=2 * len(str(found.total)) + 1)  # the bar gives way, the counts never
        columns = (
            TextColumn("{task.description}"),
            BarColumn(30),
            MofNCompleteColumn(table_column=counts),
            TextColumn("{task.fields[told]}", table_column=Column(no_wrap=True)),
        )
        self.bars = Progress(*columns, console=Console(stderr=True), transient=True)
        self.task = self.bars.add_task(str(found.status), total=found.total or None, told="")

    def __enter__(self) -> Callable[[Batch], None]:
        if self.bars is not None:
            self.bars.start()
        return self.draw

    def __exit__(self, *_: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def draw(self, found: Batch) -> None:
        if self.bars is None:
            return
        done = found.completed + found.failed
        self.seen.append((time.monotonic(), done))
        while len(self.seen) > 2 and self.seen[-1][0] - self.seen[0][0] > RATE_OVER_S:  # noqa: PLR2004  a span has two ends
            self.seen.popleft()
        told = f"{found.failed:,} failed  {sum(found.usage[:2]):,} tokens  ${found.cost_usd:.4f}"
        told += f"  {finish(self.seen, found.left)}"
        self.bars.update(self.task, description=str(found.status), total=found.total or None, completed=done, told=told)


def finish(seen: Sequence[tuple[float, int]], left: int) -> str:
    """Tell when what is left will have ended, at the rate seen lately; nothing where none was."""
    if len(seen) < 2 or not left:  # noqa: PLR2004  a rate needs two looks
        return ""
    (first, before), (last, after) = seen[0], seen[-1]
    rate = (after - before) / (last - first) if last > first else 0.0
    return f"{times.span(max(1, round(left / rate)))} left" if rate > 0 else ""


def write(batch_id: str, part: str, output: Path | None, *, as_json: bool) -> None:
    """Write a batch's document, to a file whole or not at all."""
    del as_json  # each of its lines is a document already
    with GroqClient() as client:
        client.batch_progress(batch_id)
        lines = client.batch_document(batch_id, part).raw()
        if output is None or str(output) == STDIN:
            for line in lines:
                say(line.decode().removesuffix("\n"))
            return
        count = _write(output, lines)
    note(f"-- {counted(count, 'line')} written to {output}")


def write_errors(batch_id: str, output: Path | None, *, as_json: bool) -> None:
    """Write a batch's error document, or the report of one that was refused."""
    with GroqClient() as client:
        found = client.batch_progress(batch_id)
    if found.errors and output is None:
        for fault in found.errors:
            if as_json:
                emit(fault.as_dict())
        if not as_json:
            _say_report(found)
        return
    write(batch_id, "err", output, as_json=as_json)


def _write(output: Path, lines: Iterable[bytes]) -> int:
    partial, count = output.with_name(f"{output.name}.partial"), 0
    try:
        with partial.open("wb") as file:
            for line in lines:
                count += file.write(line) > 0
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise BadUse(
            f"{output} cannot be written: {error.strerror}. The batch is unchanged.", param="--output"
        ) from None
    return count


def _source(file: Path) -> Path:
    return Path("/dev/stdin") if str(file) == STDIN else file


def _pairs(given: Sequence[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    found = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise BadUse("--metadata: write NAME=VALUE. Nothing was sent.", param="--metadata")
        found[name] = value
    return found


def _told(found: Estimate) -> str:
    cost = f"about {usd(found.typical_cost_usd)}, at most {usd(found.worst_cost_usd)}"
    return f"{cost}; {_time(found.seconds)} by the quota"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "unknown"
    return times.span(seconds) if seconds >= 1 else "at once"
