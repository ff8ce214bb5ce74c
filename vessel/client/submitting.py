"""Submitting a batch from a program: its lines are checked as they are read, and nothing is sent for a faulty file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vessel.batches.estimate import Estimate, estimated
from vessel.batches.file_store import NO_REPEAT, NewFile, Once
from vessel.batches.files import Upload
from vessel.batches.lines import Checker
from vessel.batches.model import (
    ENDPOINT,
    InvalidBatch,
    checked_cap,
    checked_metadata,
    new_batch_id,
    new_file_id,
    window_s,
)
from vessel.batches.store import NewBatch
from vessel.client.batching import batch_of, file_of
from vessel.client.gates import levels_of
from vessel.client.request import compose_line
from vessel.client.steps import Run, Steps, run
from vessel.errors import InvalidRequest

if TYPE_CHECKING:
    from vessel.batches.model import Batch
    from vessel.client.asking import Asking
    from vessel.gate.view import Level
    from vessel.registry import Availability
    from vessel.submit import Door

PIECE = 256 << 10
Source = str | PathLike[str] | Iterable[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Given:
    """What a program gives for a batch beside its lines, unchecked."""

    window: str
    metadata: Mapping[str, str] | None
    key: str | None
    max_cost_usd: object = None
    webhook: str | None = None


def submit_batch(asking: Asking, source: Source, given: Given) -> Steps[tuple[Batch, Estimate]]:
    """Check all lines, store them once and let the batch go. Raises InvalidBatch with a report; then nothing was sent.

    The bytes go first, then the index, and the last step makes file and batch: a crash before leaves nothing.
    """
    door, tenant = asking.door, asking.tenant
    metadata = given.metadata
    seconds, told = window_s(given.window), checked_metadata(dict(metadata) if metadata is not None else None)
    cap, told_at = checked_cap(given.max_cost_usd), door.webhook(given.webhook, "webhook")
    once = NO_REPEAT if given.key is None else Once(_checked_key(given.key))
    availability, _ = yield from asking.seen(alive=False)
    checker, upload, file_id = checker_of(door, availability), Upload(), new_file_id()
    sent = 0
    for piece in pieces(source):
        checker.feed(piece)
        if not checker.faults:
            chunks = list(upload.feed(piece))
            yield Run([door.files.put(file_id, sent + n, chunk) for n, chunk in enumerate(chunks)])
            sent += len(chunks)
    checker.finish()
    if checker.faults:
        yield Run([door.files.discard(file_id, sent)])
        raise InvalidBatch(tuple(checker.faults))
    batch_id = new_batch_id()
    last = upload.finish()
    calls: list[Any] = [door.files.put(file_id, sent, last)] if last else []
    for block in checker.index.ready:
        calls += door.batches.put_index(batch_id, [block])
    yield Run(calls)
    name = Path(source).name if isinstance(source, (str, PathLike)) else "batch.jsonl"
    new_file = NewFile(file_id, tenant, name, "batch", upload.size, upload.lines, upload.digest)
    kept: str = yield from run(door.files.commit_file(new_file, once))
    file = yield from file_of(door, tenant, kept)
    models = checker.index.models
    new = NewBatch(batch_id, tenant, file, ENDPOINT, given.window, seconds, told, tuple(checker.index.totals),
                   models[0] if len(models) == 1 else "", told_at, cap)  # fmt: skip
    made: str = yield from run(door.batches.create(new, once))
    batch = yield from batch_of(door, tenant, made)
    return batch, estimate_of(door, checker, (yield from levels_of(door, checker.tallies)))


def estimate(asking: Asking, source: Source) -> Steps[Estimate]:
    """Check all lines and estimate cost and time; nothing is stored. Raises InvalidBatch."""
    availability, _ = yield from asking.seen(alive=False)
    checker = checker_of(asking.door, availability)
    for piece in pieces(source):
        checker.feed(piece)
    checker.finish()
    if checker.faults:
        raise InvalidBatch(tuple(checker.faults))
    return estimate_of(asking.door, checker, (yield from levels_of(asking.door, checker.tallies)))


def checker_of(door: Door, availability: Availability) -> Checker:
    """Make what checks the lines of a file."""
    return Checker(partial(door.plan, availability=availability))


def estimate_of(door: Door, checker: Checker, levels: Mapping[str, Mapping[str, Level]]) -> Estimate:
    """Estimate what a checked file costs and how long it takes by the limits that hold now, by model."""
    found = []
    for name, tally in checker.tallies.items():
        model = door.model_of(name)
        fees = sum(lines * door.tools_reserve(model, tools) for tools, lines in tally.tools.items())
        part = estimated(model, levels.get(name, {}), tally)
        found.append(part.with_fees(Decimal(fees).scaleb(-9)))
    return Estimate(tuple(found))


def pieces(source: Source) -> Iterator[bytes]:
    """Read a source in pieces of some hundred kilobytes; a mapping becomes a line. Raises InvalidRequest."""
    if isinstance(source, (str, PathLike)):
        yield from _file_pieces(Path(source))
        return
    if not isinstance(source, Iterable):
        raise InvalidRequest("A batch is a path or an iterable of requests. Nothing was sent.", param="source")
    buffer = bytearray()
    for number, row in enumerate(source, 1):
        buffer += _line(number, row)
        if len(buffer) >= PIECE:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)


def _file_pieces(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}. Nothing was sent.", param="file") from None


def _line(number: int, row: Mapping[str, Any]) -> bytes:
    """Write a batch line as it is, and anything `submit_many` takes as the line `line-N`."""
    if not (_is_object(row) and isinstance(row.get("body"), Mapping) and "url" in row):
        row = _composed(number, row)
    try:
        return json.dumps(row, allow_nan=False, separators=(",", ":"), default=str).encode() + b"\n"
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest(f"Line {number} holds a value that JSON cannot carry. Nothing was sent.") from None


def _composed(number: int, row: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        ask = compose_line({k: v for k, v in row.items() if k != "custom_id"} if _is_object(row) else row)
    except InvalidRequest as fault:
        raise InvalidRequest(f"Line {number}: {fault.message} Nothing was sent.", param=fault.param) from None
    custom_id = row.get("custom_id", f"line-{number}")
    body = dict(ask.body) | ({"vessel": dict(ask.policy)} if ask.policy else {})
    return {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}


def _is_object(row: object) -> bool:
    return isinstance(row, Mapping)


def _checked_key(key: str) -> str:
    if not 0 < len(key) <= 255 or not (key.isascii() and key.isprintable()):  # noqa: PLR2004  as Stripe's
        raise InvalidRequest("idempotency_key: 1 to 255 printable ASCII characters.", param="idempotency_key")
    return key
