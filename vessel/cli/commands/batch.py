"""Batches: submit a file, look at one, watch it, read what became of its lines, end it, price it."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vessel.cli.commands import options
from vessel.cli.commands.steer import group

BatchFile = Annotated[Path, Argument(metavar="F.jsonl", help="A Groq batch file; - is standard input.")]
BatchId = Annotated[str, Argument(metavar="ID", help="A batch's id.")]
Window = Annotated[str, Option(metavar="TIME", help="Within which it is to be done: 24h to 7d.")]
Metadata = Annotated[
    list[str] | None, Option("--metadata", metavar="K=V", help="Kept with the batch. May be repeated.")
]
Key = Annotated[str | None, Option(metavar="KEY", help="Idempotency key: the same key and file are the same batch.")]
MaxCost = Annotated[
    str | None,
    Option("--max-cost-usd", metavar="USD", help="All lines together cost at most so much; what does not fit fails."),
]
Out = Annotated[Path | None, Option("-o", "--output", metavar="OUT", help="A file for it; else standard output.")]
Limit = Annotated[int, Option(min=1, max=1000, metavar="N", help="At most so many, newest first.")]


def submit(
    file: BatchFile,
    *,
    window: Window = "24h",
    metadata: Metadata = None,
    key: Key = None,
    webhook: options.Webhook = None,
    max_cost: MaxCost = None,
    as_json: options.AsJson = False,
) -> None:
    """Check every line, store the file and let the batch go; prints its id. Nothing is sent for a faulty file."""
    from vessel.cli.batches import submit as submit_file

    submit_file(file, window, metadata, key, webhook=webhook, max_cost_usd=max_cost, as_json=as_json)


def status(batch_id: BatchId, *, as_json: options.AsJson = False) -> None:
    """Show where a batch stands: counts, tokens, cost, times, and the report of one that was refused."""
    from vessel.cli.batches import show

    show(batch_id, as_json=as_json)


def watch(batch_id: BatchId, *, as_json: options.AsJson = False) -> int:
    """Follow a batch to its end, with a bar on a terminal. Exits 1 when a line has no result."""
    from vessel.cli.batches import watch as follow

    return follow(batch_id, as_json=as_json)


def results(batch_id: BatchId, *, output: Out = None, as_json: options.AsJson = False) -> None:
    """Write the lines that have a result so far, as Groq's output file does."""
    from vessel.cli.batches import write

    write(batch_id, "out", output, as_json=as_json)


def errors(batch_id: BatchId, *, output: Out = None, as_json: options.AsJson = False) -> None:
    """Write the lines that ended without a result so far, as Groq's error file does, or a refused file's report."""
    from vessel.cli.batches import write_errors

    write_errors(batch_id, output, as_json=as_json)


def cancel(batch_id: BatchId, *, as_json: options.AsJson = False) -> None:
    """Cancel a batch: results stay, waiting lines end at once, calls that run are cut."""
    from vessel.cli.batches import cancel as cancel_batch

    cancel_batch(batch_id, as_json=as_json)


def list_batches(*, limit: Limit = 20, as_json: options.AsJson = False) -> None:
    """List batches, newest first."""
    from vessel.cli.batches import show_many

    show_many(limit, as_json=as_json)


def estimate(file: BatchFile, *, as_json: options.AsJson = False) -> None:
    """Check a file and print what it will cost by model and how long the quota makes it take; nothing is sent."""
    from vessel.cli.batches import estimate as estimate_file

    estimate_file(file, as_json=as_json)


batch = group(
    "batch", "Batches of up to 50,000 requests: submit, status, watch, results, errors, cancel, list, estimate.",
    submit=submit, status=status, watch=watch, results=results, errors=errors, cancel=cancel, list=list_batches,
    estimate=estimate,
)  # fmt: skip
