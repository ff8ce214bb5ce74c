"""The only writer of files and batches: each change is one script call, safe to repeat."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vessel.batches.file_store import DAY_MS, LIST_MS, UPLOAD_MS, Once, once_args
from vessel.batches.model import (
    LONGEST_S,
    Batch,
    BatchStatus,
    Fault,
    FileNotFound,
    StoredFile,
    document_ids,
    line_job_id,
    read_batch,
)
from vessel.errors import IdempotencyConflict
from vessel.jobs.flows import flow_of, group_of, in_outage
from vessel.jobs.record import dump
from vessel.keyspace.names import job_keys
from vessel.keyspace.script import Arg, Call, command, load, pairs, word, words
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vessel.jobs.record import NewJob
    from vessel.keyspace.names import Keys

OWNED_MS = 10_000
STOPPED_AT_ONCE = 256
GOING = f"{BatchStatus.VALIDATING},{BatchStatus.IN_PROGRESS}"


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch about to be made. `groups` where its lines were checked and its index was written before."""

    id: str
    tenant: str
    file: StoredFile
    endpoint: str
    window: str
    window_s: int
    metadata: dict[str, str] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    model: str = ""
    webhook: str = ""
    cap_nano: int = 0
    """What its lines may cost together, 0 where it has no cap."""

    @property
    def hash(self) -> str:
        """Hash what makes two requests the same; as with jobs, where its end is told does not count."""
        given: list[object] = [self.file.id, self.endpoint, self.window_s, self.metadata]
        given += [self.cap_nano] if self.cap_nano else []
        return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Unfolded:
    """A line about to get its job; `broken` holds reason and message where it can no longer be served."""

    batch: str
    group: int
    position: int
    custom_id: str
    source: str
    new: NewJob | None = None
    broken: tuple[str, str] | None = None
    tenant: str = ""
    webhook: str = ""

    @property
    def place(self) -> str:
        """Name the line's place in its batch."""
        return f"{self.group}:{self.position}"


@dataclass(frozen=True, slots=True)
class BatchStore:
    """Build the calls that change and read files and batches."""

    keys: Keys
    ttl_ms: int

    def create(self, new: NewBatch, once: Once, *, owner: str = "") -> Call[str]:
        """Make the batch: answers its id, or that of the first one of a repeated request.

        Raises IdempotencyConflict, FileNotFound.
        """
        output, errors = document_ids(new.id)
        args: dict[str, Arg] = once_args(once, new.hash) | {
            "id": new.id,
            "keep_ms": self.keep_ms(new.window_s * 1000),
            "list_ms": LIST_MS,
            "window_ms": new.window_s * 1000,
            "status": BatchStatus.IN_PROGRESS if new.groups else BatchStatus.VALIDATING,
            "started": BatchStatus.IN_PROGRESS,
            "ends_as": BatchStatus.COMPLETED,
            "total": sum(new.groups),
            "groups": " ".join(map(str, new.groups)),
            "owner": owner,
            "owned_ms": OWNED_MS,
            "file_id": new.file.id,
            "tenant": new.tenant,
            "output_id": output,
            "errors_id": errors,
        }
        record: list[Arg] = ["endpoint", new.endpoint, "window", new.window, "metadata", dump(new.metadata)]
        record += ["model", new.model, *(["webhook", new.webhook] if new.webhook else [])]
        record += ["cap_nano", new.cap_nano] if new.cap_nano else []
        chunks = [self.keys.chunk(new.file.id, n) for n in range(new.file.chunks)]

        def parse(raw: Sequence[Any]) -> str:
            answer, batch_id = word(raw[0]), word(raw[1])
            if answer == "conflict":
                raise IdempotencyConflict(
                    "This idempotency key was already used for another batch, which is unchanged. Use a new key."
                )
            if answer in {"missing", "lost"}:
                raise FileNotFound
            return batch_id

        names = self._names(new, once)
        return load("create_batch").call(names, args, parse, more_keys=chunks, more_args=record)

    def _names(self, new: NewBatch, once: Once) -> dict[str, str]:
        output, errors = document_ids(new.id)
        return {
            "batch": self.keys.batch(new.id),
            "batches": self.keys.batches(new.tenant),
            "open_batches": self.keys.open_batches,
            "key": self.keys.once(new.tenant, f"batch key {once.key}"),
            "again": self.keys.once(new.tenant, f"batch {new.hash}"),
            "file": self.keys.file(new.file.id),
            "readers": self.keys.chunk_readers(new.file.id),
            "index": self.keys.batch(new.id, "lines"),
            "output": self.keys.file(output),
            "errors": self.keys.file(errors),
            "files": self.keys.files(new.tenant),
        }

    def keep_ms(self, window_ms: int = LONGEST_S * 1000) -> int:
        """Say how long a batch's record stays, from its creation on."""
        return window_ms + self.ttl_ms + DAY_MS

    def own(self, batch_id: str, owner: str, blocks: Sequence[tuple[str, bytes]] = ()) -> Call[bool]:
        """Take or keep a batch's validation and write blocks of its index; false where it is not ours any more."""
        names = {"batch": self.keys.batch(batch_id), "index": self.keys.batch(batch_id, "lines")}
        args: dict[str, Arg] = {
            "owner": owner,
            "owned_ms": OWNED_MS,
            "status": BatchStatus.VALIDATING,
            "keep_ms": self.keep_ms(),
        }
        more: list[Arg] = [part for block in blocks for part in block]
        return load("own_batch").call(names, args, lambda raw: word(raw) == "owned", more_args=more)

    def put_index(self, batch_id: str, blocks: Sequence[tuple[str, bytes]]) -> list[Call[int]]:
        """Write blocks of the index of a batch that is not made yet; they go by themselves if it is not."""
        key = self.keys.batch(batch_id, "lines")
        parts: list[Arg] = [part for block in blocks for part in block]
        return [command("HSET", key, *parts, parse=int), command("PEXPIRE", key, UPLOAD_MS, parse=int)]

    def commit(self, batch_id: str, owner: str, groups: Sequence[int], model: str = "") -> Call[bool]:
        """Let a validated batch go; false where it is not ours any more."""
        return self._commit(batch_id, owner, BatchStatus.IN_PROGRESS, groups, (), model)

    def refuse(self, batch_id: str, owner: str, faults: Sequence[Fault]) -> Call[bool]:
        """End a batch whose lines are not valid, with the report; false where it is not ours any more."""
        return self._commit(batch_id, owner, BatchStatus.FAILED, (), faults, "")

    def _commit(self, batch_id: str, owner: str, to: BatchStatus, groups: Sequence[int], faults: Sequence[Fault],
                model: str) -> Call[bool]:  # fmt: skip
        names = self._ending(batch_id)
        args: dict[str, Arg] = {
            "id": batch_id,
            "owner": owner,
            "status": BatchStatus.VALIDATING,
            "to": to,
            "ends_as": BatchStatus.COMPLETED,
            "groups": " ".join(map(str, groups)),
            "errors": json.dumps([fault.as_dict() for fault in faults]) if faults else "",
            "models": model,
        }
        return load("commit_batch").call(names, args, lambda raw: word(raw) == "done")

    def cancel(self, batch_id: str) -> Call[tuple[str, str]]:
        """Cancel: lines without a job end at once; answers stopped, ended or missing, and the status."""
        return self._stop(batch_id, BatchStatus.CANCELLING, BatchStatus.CANCELLED, JobState.CANCELLED)

    def expire(self, batch_id: str) -> Call[tuple[str, str]]:
        """Expire a batch whose window is over: as cancel, or early."""
        return self._stop(batch_id, BatchStatus.FINALIZING, BatchStatus.EXPIRED, JobState.EXPIRED)

    def _stop(self, batch_id: str, stopping: BatchStatus, ends_as: BatchStatus, state: JobState
              ) -> Call[tuple[str, str]]:  # fmt: skip
        names = self._ending(batch_id) | {"lines_err": self.keys.batch(batch_id, "err")}
        args: dict[str, Arg] = {
            "id": batch_id,
            "validating": BatchStatus.VALIDATING,
            "going": GOING,
            "stopping": stopping,
            "ends_as": ends_as,
            "line_state": state,
            "only_when_over": "1" if state is JobState.EXPIRED else "0",
        }
        return load("stop_batch").call(names, args, lambda raw: (word(raw[0]), word(raw[1])))

    def _ending(self, batch_id: str) -> dict[str, str]:
        return {
            "batch": self.keys.batch(batch_id),
            "open_batches": self.keys.open_batches,
            "webhooks_due": self.keys.webhooks,
            "webhooks_log": self.keys.webhook_log,
            "batch_hook": self.keys.webhook(batch_id),
        }

    def batch(self, batch_id: str) -> Call[Batch | None]:
        """Read a batch."""
        return command("HGETALL", self.keys.batch(batch_id), parse=lambda raw: read_batch(pairs(raw)))

    def open_batches(self) -> Call[list[str]]:
        """Name the batches that have not ended, the one whose window ends first before the others."""
        return command("ZRANGE", self.keys.open_batches, 0, -1, parse=words)

    def open_lines(self, batch_id: str) -> Call[list[str]]:
        """Name the places of the lines whose jobs have not ended."""
        return command("SMEMBERS", self.keys.batch(batch_id, "open"), parse=lambda raw: sorted(map(word, raw)))

    def block(self, batch_id: str, name: str) -> Call[bytes | None]:
        """Read a block of the index, named `group:block`."""
        return command("HGET", self.keys.batch(batch_id, "lines"), name, parse=lambda raw: raw)

    def listed(self, batch_id: str, part: str, start: int, count: int) -> Call[list[str]]:
        """Read entries of a batch's list of lines, `out` or `err`, in the order in which they ended."""
        key = self.keys.batch(batch_id, part)
        return command("LRANGE", key, start, start + count - 1, parse=words)

    # --- lines --------------------------------------------------------------------------------------------------------

    def unfold(self, line: Unfolded, queue: str) -> Call[bool]:
        """Make the job of a group's next line; false where that was done before or the batch does not go on."""
        new = line.new
        job_id = line_job_id(line.batch, line.place)
        group = group_of(new.hops[0].model, new.priority) if new else ""
        flow = flow_of(queue, new.tenant, outage=in_outage(new)) if new else ""
        tenant = new.tenant if new else line.tenant
        names = job_keys(
            self.keys, job_id, queue=queue or "none", group=group, flow=flow, batch=line.batch, tenant=tenant
        )
        record = [part for pair in _filled(new.fields(queue, "")) for part in pair] if new else _broken_record(line)
        record += ["batch", line.batch, "source", line.source, "custom", line.custom_id]
        args: dict[str, Arg] = {
            "id": job_id,
            "tenant": tenant,
            "line_group": line.group,
            "position": line.position,
            "status": BatchStatus.IN_PROGRESS,
            "to": JobState.FAILED if line.broken else JobState.QUEUED,
            "broken": line.broken[0] if line.broken else "",
            "repr": f"{new.hops[0].tier} {new.hops[0].model}" if new else "",
            "group": group,
            "flow": flow,
            "deadline_ms": new.deadline_ms if new else 0,
            "max_wait_ms": new.max_wait_ms if new else 0,
            "ttl_ms": self.ttl_ms,
        }
        found = {name: getattr(names, name) for name in names.__slots__}
        return load("unfold").call(found, args, lambda raw: word(raw) == "made", more_args=record)


def stopping(batch_id: str, open_lines: Sequence[str]) -> Iterator[list[str]]:
    """Name the jobs of lines that are to be cancelled, so many at a time that others get their turn."""
    for at in range(0, len(open_lines), STOPPED_AT_ONCE):
        yield [line_job_id(batch_id, place) for place in open_lines[at : at + STOPPED_AT_ONCE]]


def _filled(fields: Sequence[str | bytes]) -> Iterator[tuple[str | bytes, str | bytes]]:
    """Leave empty fields out: fifty bytes each, for every line of every batch."""
    return ((name, value) for name, value in zip(fields[::2], fields[1::2], strict=True) if value)


def _broken_record(line: Unfolded) -> list[str | bytes]:
    reason, message = line.broken or ("", "")
    fields = {
        "tenant": line.tenant,
        "priority": "batch",
        "tier": "",
        "model": "",
        "hops": '[["","",""]]',
        "hop": "0",
        "policy": "{}",
        "reasons": "[]",
        "reason": reason,
        "message": message,
    } | ({"webhook": line.webhook} if line.webhook else {})
    return [part for pair in fields.items() for part in pair]
