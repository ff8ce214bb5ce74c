"""The verbs of batches and files, for clients and the REST face: made, looked at, stopped, and their documents read."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any

from vessel.batches.files import error_line, output_line, places
from vessel.batches.lines import BLOCK, read_block
from vessel.batches.model import (
    ENDPOINT,
    ENDPOINTS,
    Batch,
    BatchNotFound,
    BatchStatus,
    FileNotFound,
    StoredFile,
    checked_cap,
    checked_metadata,
    line_job_id,
    new_batch_id,
    window_s,
)
from vessel.batches.store import NewBatch, stopping
from vessel.client.steps import Emit, Flow, Run, Steps, run
from vessel.errors import InvalidRequest, VesselError, WrongState
from vessel.keyspace.script import command, load, word
from vessel.notify.delivery import described
from vessel.notify.store import delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vessel.batches.file_store import Once
    from vessel.notify.delivery import Delivery
    from vessel.submit import Door

RENDERED_AT_ONCE = 100
BLOCKS_KEPT = 8
OUT, ERR = "out", "err"
_ASKED = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "vessel"})
LONGEST_NAME = 64
PART = {"output": OUT, "error": ERR}


class NoSuchCursor(VesselError):
    """The object that `after` names is not in this list (any more). Begin again without it."""

    code = "cursor_not_found"
    http_status = 404
    exit_code = 2

    def __init__(self) -> None:
        """Name the parameter."""
        super().__init__(param="after")


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of one line: a response as Groq gives it, or an error with code and message."""

    custom_id: str
    response: dict[str, Any] | None
    error: dict[str, Any] | None

    @property
    def text(self) -> str:
        """Return the answer's text; empty for a line without a result."""
        choices = (self.response or {}).get("choices") or [{}]
        found = choices[0].get("message", {}).get("content")
        return found if isinstance(found, str) else ""


# --- files ------------------------------------------------------------------------------------------------------------


def file_of(door: Door, tenant: str, file_id: str) -> Steps[StoredFile]:
    """Read a file's record. Raises FileNotFound, also for another tenant's."""
    found: StoredFile | None = yield from run(door.files.file(file_id))
    if found is None or found.tenant != tenant:
        raise FileNotFound
    return found


def size_of(door: Door, file: StoredFile) -> Steps[int]:
    """Say how many bytes a file has now. A document only grows: what was measured before is not rendered again."""
    if not file.kind:
        return file.bytes
    part, key = PART[file.kind], door.keys.batch(file.batch)
    kept: str = yield from run(command("HGET", key, f"size:{PART[file.kind]}", parse=word))
    entry, skip, size = map(int, kept.split()) if kept else (0, 0, 0)
    document, before = Document(door, file.batch, part, (entry, skip)), size
    while lines := (yield from document.more()):
        size += sum(map(len, lines))
    if size != before:
        told = f"{document.cursor[0]} {document.cursor[1]} {size}"
        yield from run(load("note_size").call({"batch": key}, {"field": f"size:{part}", "told": told}, word))
    return size


def delete_file(door: Door, tenant: str, file_id: str) -> Steps[None]:
    """Delete a file. Raises FileNotFound, and WrongState while a batch reads it or, its own document, writes it."""
    file = yield from file_of(door, tenant, file_id)
    if file.kind:
        writer: Batch | None = yield from run(door.batches.batch(file.batch))
        if writer is not None and not writer.ended:
            text = f"Batch {writer.id} has not ended and still writes the file, so it was kept. Cancel the batch first."
            raise WrongState(text)
    readers: list[str] = yield from run(door.files.readers(file_id))
    batches: list[Batch | None] = (yield Run([door.batches.batch(i) for i in readers])) if readers else []
    open_ones = [batch.id for batch in batches if batch is not None and not batch.ended]
    if open_ones or (yield from run(door.files.drop_file(file, len(readers)))) == "in_use":
        text = f"The file is read by batch {open_ones[0] if open_ones else ''}, which has not ended. Cancel it first."
        raise WrongState(text)


def content(door: Door, file: StoredFile) -> Flow[bytes]:
    """Yield a file's bytes piece by piece; a document is rendered as far as its batch has come."""
    if file.kind:
        document = Document(door, file.batch, PART[file.kind])
        while lines := (yield from document.more()):
            yield Emit(b"".join(lines))
        return
    for number in range(file.chunks):
        chunk: bytes = yield from run(door.files.chunk(file.id, number))
        yield Emit(chunk)


# --- batches ----------------------------------------------------------------------------------------------------------


def batch_of(door: Door, tenant: str, batch_id: str) -> Steps[Batch]:
    """Read a batch. Raises BatchNotFound, also for another tenant's."""
    found: Batch | None = yield from run(door.batches.batch(batch_id))
    if found is None or found.tenant != tenant:
        raise BatchNotFound
    return (yield from with_deliveries(door, [found]))[0]


def with_deliveries(door: Door, batches: Sequence[Batch]) -> Steps[list[Batch]]:
    """Read what became of the webhooks of batches that have one and have ended."""
    told = [batch for batch in batches if batch.webhook]
    if not told:
        return list(batches)
    found: list[Delivery | None] = yield Run([delivery(door.keys, batch.id) for batch in told])
    known = {batch.id: described(batch.webhook, one) for batch, one in zip(told, found, strict=True)}
    return [replace(batch, delivery=known.get(batch.id)) for batch in batches]


def _unknown(name: str) -> str:
    """Say what to do about a field that a batch's request does not have."""
    if name == "output_expires_after":
        return f"{name}: documents are kept as long as their batch (VESSEL_RESULT_TTL). Leave it out."
    close = get_close_matches(name, _ASKED, 1)
    hint = f"; did you mean {close[0]}?" if close else f". There are: {', '.join(sorted(_ASKED))}."
    return f"{name[:LONGEST_NAME]}: a batch's request has no such field{hint}"


def create_batch(door: Door, tenant: str, asked: Mapping[str, Any], once: Once) -> Steps[Batch]:
    """Make a batch of a file, to be validated by whoever sweeps. Raises InvalidRequest, FileNotFound, conflict."""
    for name in asked.keys() - _ASKED:
        raise InvalidRequest(_unknown(name), param=name[:LONGEST_NAME])
    file_id, endpoint = asked.get("input_file_id"), asked.get("endpoint")
    if not isinstance(file_id, str) or not file_id:
        raise InvalidRequest("input_file_id: it must be the id of an uploaded file.", param="input_file_id")
    if not isinstance(endpoint, str) or endpoint not in ENDPOINTS:
        raise InvalidRequest(f"endpoint: only {ENDPOINT} is served. Nothing was accepted.", param="endpoint")
    seconds, metadata = window_s(asked.get("completion_window")), checked_metadata(asked.get("metadata"))
    webhook, cap = _policy(door, asked.get("vessel"))
    try:
        file = yield from file_of(door, tenant, file_id)
    except FileNotFound:
        raise InvalidRequest("input_file_id: there is no such file. Upload it first.", param="input_file_id") from None
    if file.purpose != "batch":
        raise InvalidRequest("input_file_id: the file's purpose must be batch.", param="input_file_id")
    window = str(asked["completion_window"])
    new = NewBatch(
        new_batch_id(), tenant, file, str(endpoint), window, seconds, metadata, webhook=webhook, cap_nano=cap
    )
    batch_id: str = yield from run(door.batches.create(new, once))
    return (yield from batch_of(door, tenant, batch_id))


def _policy(door: Door, given: object) -> tuple[str, int]:
    """Read the `vessel` object of what makes a batch: its webhook and its spend cap. Raises InvalidRequest."""
    if given is None:
        return "", 0
    if not isinstance(given, dict):
        raise InvalidRequest("vessel: it must be an object. Nothing was accepted.", param="vessel")
    if given.keys() - {"webhook", "max_cost_usd"}:
        raise InvalidRequest(
            "vessel: of a batch it holds `webhook` and `max_cost_usd` only; the rest is said in each line's own "
            "`vessel`. Nothing was accepted.",
            param="vessel",
        )
    return door.webhook(given.get("webhook")), checked_cap(given.get("max_cost_usd"))


def cancel_batch(door: Door, tenant: str, batch_id: str) -> Steps[Batch]:
    """Cancel a batch: results stay, waiting lines end at once, running ones are cut. Raises WrongState when ended."""
    batch = yield from batch_of(door, tenant, batch_id)
    answer, status = yield from run(door.batches.cancel(batch_id))
    if answer == "ended" and status not in {BatchStatus.CANCELLING, BatchStatus.FINALIZING}:
        raise WrongState(f"Batch {batch_id} is {status} already, so there is nothing to cancel.")
    places_: list[str] = yield from run(door.batches.open_lines(batch.id))
    for some in stopping(batch.id, places_):
        jobs = yield Run([door.store.peek(job_id) for job_id in some])
        yield Run([door.store.cancel(job) for job in jobs if job is not None])
    return (yield from batch_of(door, tenant, batch_id))


def shown(door: Door, files: Sequence[StoredFile]) -> Steps[list[StoredFile]]:
    """Leave out the documents that hold no line yet."""
    of = {file.batch for file in files if file.kind}
    found: list[Batch | None] = (yield Run([door.batches.batch(batch_id) for batch_id in of])) if of else []
    known = {batch.id: batch for batch in found if batch is not None}

    def holds(file: StoredFile) -> bool:
        batch = known.get(file.batch)
        return batch is not None and bool(batch.completed if PART[file.kind] == OUT else batch.failed)

    return [file for file in files if not file.kind or holds(file)]


@dataclass(frozen=True, slots=True)
class _Behind:
    """Ranks, newest first, around a cursor: of the cursor itself or what is older than it, and of what is older."""

    first: int = 0
    next: int = 0


def _behind(door: Door, key: str, after: str | None) -> Steps[tuple[int, _Behind]]:
    """Count a list and find a cursor in it, also one that was deleted lately. Raises NoSuchCursor."""
    count = command("ZCARD", key, parse=int)
    if after is None:
        return (yield from run(count)), _Behind()
    rank, gone, total = yield Run([door.files.rank(key, after), door.files.gone_at(key, after), count])
    if rank is not None:
        return total, _Behind(rank, rank + 1)
    if gone is None:
        raise NoSuchCursor
    newer, total = yield Run([door.files.newer(key, gone), count])
    return total, _Behind(newer, newer)


def page(door: Door, key: str, read: Any, after: str | None, limit: int, *, oldest_first: bool = False,
         narrow: Callable[[list[Any]], Steps[list[Any]]] | None = None) -> Steps[tuple[list[Any], bool]]:  # fmt: skip
    """Read one page of a tenant's files or batches and whether more follow. Raises NoSuchCursor.

    A page is full where more follow, whatever `read` and `narrow` leave out: the SDKs' pagers end at an empty one.
    """
    total, behind = yield from _behind(door, key, after)
    at = total - behind.first if oldest_first and after is not None else behind.next
    found: list[Any] = []
    while at < total and len(found) <= limit:
        count = min(limit + 1 - len(found), total - at)
        start = total - at - count if oldest_first else at
        ids: list[tuple[str, int]] = yield from run(door.files.page(key, start, count))
        names = [name for name, _ in (reversed(ids) if oldest_first else ids)]
        if not names:
            break
        rows = [row for row in (yield Run([read(name) for name in names])) if row is not None]
        found += rows if narrow is None else (yield from narrow(rows))
        at += count
    return found[:limit], len(found) > limit


# --- documents --------------------------------------------------------------------------------------------------------


class Document:
    """A batch's output (`out`) or error document (`err`), rendered on from a cursor; what was read never changes.

    The cursor is an entry of the batch's list, and how many lines of that entry were read.
    """

    def __init__(self, door: Door, batch_id: str, part: str, cursor: tuple[int, int] = (0, 0)) -> None:
        """Begin at a cursor."""
        self.door, self.batch_id, self.part, self.cursor = door, batch_id, part, cursor
        self._blocks: dict[str, list[tuple[int, int, int, str]]] = {}

    def more(self) -> Steps[list[bytes]]:
        """Render the next lines, a hundred at most; none where the batch has not come further."""
        entry, skip = self.cursor
        listed: list[str] = yield from run(self.door.batches.listed(self.batch_id, self.part, entry, RENDERED_AT_ONCE))
        found: list[tuple[str, str]] = []
        for text in listed:
            rest = islice(places(text), skip, skip + RENDERED_AT_ONCE - len(found))
            some = [(f"{group}:{position}", state) for group, position, state in rest]
            found += some
            if len(found) == RENDERED_AT_ONCE:
                skip += len(some)
                break
            entry, skip = entry + 1, 0
        if not found:
            return []
        custom_ids = yield from self._custom_ids([place for place, _ in found])
        lines = yield from self._lines(found, custom_ids)
        self.cursor = (entry, skip)
        return lines

    def _lines(self, found: Sequence[tuple[str, str]], custom_ids: Sequence[str]) -> Steps[list[bytes]]:
        ids = [line_job_id(self.batch_id, place) for place, _ in found]
        if self.part == OUT:
            keys = self.door.keys
            answers: list[bytes] = yield Run([command("HGET", keys.job(i), "response", parse=_bytes) for i in ids])
            rows = zip(found, custom_ids, answers, strict=True)
            return [output_line(self.batch_id, place, custom, answer) for (place, _), custom, answer in rows]
        jobs = yield Run([self.door.store.read(i) for i in ids])
        told = zip(found, custom_ids, jobs, strict=True)
        return [error_line(self.batch_id, place, custom, job, state) for (place, state), custom, job in told]

    def _custom_ids(self, wanted: Sequence[str]) -> Steps[list[str]]:
        at = [(group, int(position)) for group, _, position in (place.partition(":") for place in wanted)]
        names = list(dict.fromkeys(f"{group}:{position // BLOCK}" for group, position in at))
        missing = [name for name in names if name not in self._blocks]
        if missing:
            raw = yield Run([self.door.batches.block(self.batch_id, name) for name in missing])
            if len(self._blocks) > BLOCKS_KEPT:
                self._blocks = {name: self._blocks[name] for name in names if name in self._blocks}
            self._blocks |= {name: read_block(block) for name, block in zip(missing, raw, strict=True)}
        return [self._blocks[f"{group}:{position // BLOCK}"][position % BLOCK][3] for group, position in at]


def _bytes(raw: bytes | None) -> bytes:
    return raw or b""


def results(document: Document) -> Flow[BatchResult]:
    """Yield what has become of further lines; the document stands behind them then."""
    while lines := (yield from document.more()):
        for line in lines:
            yield Emit(read_result(line))


def raw_lines(document: Document) -> Flow[bytes]:
    """Yield further lines as they stand in the document."""
    while lines := (yield from document.more()):
        for line in lines:
            yield Emit(line)


def read_result(line: bytes) -> BatchResult:
    """Read a line of a document."""
    row = json.loads(line)
    response = row["response"]
    return BatchResult(row["custom_id"], response["body"] if response and not row["error"] else None, row["error"])
