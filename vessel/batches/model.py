"""A batch and a file as their records tell them, in the shapes of the openai and groq SDKs."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from vessel.errors import InvalidRequest, VesselError
from vessel.usage.budgets import cap_nano
from vessel.wire import PICO, JobState, parse_duration_s

if TYPE_CHECKING:
    from collections.abc import Mapping

ENDPOINT = "/v1/chat/completions"
ENDPOINTS = frozenset({ENDPOINT, f"/openai{ENDPOINT}"})
SHORTEST_S, LONGEST_S = 24 * 3600, 7 * 24 * 3600
MOST_LINES = 50_000
MOST_BYTES = 100 << 20
"""A file's size: Groq's API reference says 100 MB, its guide 200 (groq-facts 3)."""

LONGEST_LINE = 4 << 20
CHUNK = 1 << 20
"""A file lies in Redis in strings of this many bytes, so that a range is read without the rest."""

FILE_DAYS = 30
MOST_PAIRS, LONGEST_KEY, LONGEST_VALUE = 16, 64, 512
FAULTS_TOLD = 100


class BatchStatus(StrEnum):
    """Where a batch stands, in OpenAI's words; the last four never change."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    FAILED = "failed"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


ENDED = frozenset({BatchStatus.FAILED, BatchStatus.COMPLETED, BatchStatus.EXPIRED, BatchStatus.CANCELLED})


class FileNotFound(VesselError):
    """There is no such file, or it was deleted, or it has expired."""

    code = "file_not_found"
    http_status = 404


class BatchNotFound(VesselError):
    """There is no such batch, or it ended longer ago than results are kept (VESSEL_RESULT_TTL)."""

    code = "batch_not_found"
    http_status = 404


class FileTooLarge(VesselError):
    """The file is larger than a batch file may be; nothing was kept. Split it."""

    code = "file_too_large"
    http_status = 413
    exit_code = 2


class TooManyLines(InvalidRequest):
    """The file holds more requests than a batch may; nothing was kept. Split it."""

    code = "too_many_requests_in_file"


class EmptyFile(InvalidRequest):
    """The file holds no requests; nothing was kept."""

    code = "empty_file"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a line, counted from 1; values of the line are not repeated."""

    code: str
    line: int | None
    message: str
    param: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the SDKs' shape."""
        return {"code": self.code, "line": self.line, "message": self.message, "param": self.param}


_SHAPELESS = frozenset({"missing_custom_id", "invalid_url", "invalid_body", "invalid_json_line"})
_SHAPE = (
    'A line is {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {...}}, where the body is a '
    "request; lines that are only a prompt are for `vessel submit --file`."
)


class InvalidBatch(InvalidRequest):
    """Lines of the file are not valid; nothing was accepted."""

    code = "invalid_batch"

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        """Hold the faults, at most 100, and tell the first ones."""
        self.faults = faults
        shown = [f"  line {f.line}: {f.message}" if f.line else f"  {f.message}" for f in faults[:10]]
        more = [f"  and {len(faults) - 10} more"] if len(faults) > len(shown) else []
        hint = [_SHAPE] if any(f.code in _SHAPELESS for f in faults) else []
        super().__init__(
            "\n".join(["The file was not accepted; nothing was sent:", *shown, *more, *hint]), param="file"
        )


def new_batch_id() -> str:
    """Make an id that cannot be guessed."""
    return f"batch_{secrets.token_hex(16)}"


def new_file_id() -> str:
    """Make an id that cannot be guessed."""
    return f"file-{secrets.token_hex(16)}"


def derived(kind: str, batch_id: str, place: str = "") -> str:
    """Make 128 bits that follow from a batch's id, and that who does not know it cannot guess."""
    return hashlib.blake2b(f"{kind} {batch_id} {place}".encode(), digest_size=16).hexdigest()


def line_job_id(batch_id: str, place: str) -> str:
    """Name the job of the line at a place `group:position`."""
    return f"job_{derived('line', batch_id, place)}"


def document_ids(batch_id: str) -> tuple[str, str]:
    """Name a batch's output and error file."""
    return f"file-{derived('output', batch_id)}", f"file-{derived('errors', batch_id)}"


def window_s(text: object) -> int:
    """Read a completion window of 24h to 7d as seconds. Raises InvalidRequest."""
    try:
        found = parse_duration_s(text) if isinstance(text, str) and re.fullmatch(r"\d+[hd]", text) else 0.0
    except ValueError:
        found = 0.0
    if not SHORTEST_S <= found <= LONGEST_S:
        raise InvalidRequest(
            "completion_window: it must be from 24h to 7d. Nothing was accepted.", param="completion_window"
        )
    return int(found)


def checked_metadata(given: object) -> dict[str, str]:
    """Check a batch's metadata: at most 16 pairs, keys of 64 and values of 512 characters. Raises InvalidRequest."""
    if given is None:
        return {}
    short = (
        isinstance(given, dict)
        and len(given) <= MOST_PAIRS
        and all(isinstance(k, str) and isinstance(v, str) for k, v in given.items())
        and all(len(k) <= LONGEST_KEY and len(v) <= LONGEST_VALUE for k, v in given.items())
    )
    if not short:
        raise InvalidRequest(
            f"metadata: it must be at most {MOST_PAIRS} pairs of texts, keys of at most {LONGEST_KEY} and values of "
            f"at most {LONGEST_VALUE} characters. Nothing was accepted.",
            param="metadata",
        )
    try:
        json.dumps(given, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("metadata: it holds half a surrogate pair.", param="metadata") from None
    return dict(given) if isinstance(given, dict) else {}


def checked_cap(given: object) -> int:
    """Check a batch's spend cap in USD, a number or text; returns nano-USD, 0 for None. Raises InvalidRequest."""
    if given is None:
        return 0
    rest = "Nothing was accepted. Write USD such as 5 or 0.50."
    if isinstance(given, bool) or not isinstance(given, (str, int, float, Decimal)):
        raise InvalidRequest(f"max_cost_usd: it must be an amount. {rest}", param="max_cost_usd")
    try:
        usd = Decimal(str(given).strip().removeprefix("$"))
    except InvalidOperation:
        raise InvalidRequest(f"max_cost_usd: it is no amount. {rest}", param="max_cost_usd") from None
    return cap_nano("max_cost_usd", usd, rest)


def _text(record: Mapping[str, bytes], name: str) -> str:
    return record.get(name, b"").decode()


def _int(record: Mapping[str, bytes], name: str) -> int:
    return int(record.get(name) or 0)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file's record: one that was uploaded, or the document of a batch (`batch` and `kind` say which)."""

    id: str
    tenant: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int
    batch: str = ""
    kind: str = ""
    lines: int = 0

    @property
    def chunks(self) -> int:
        """Return in how many strings it lies."""
        return -(-self.bytes // CHUNK)

    def as_dict(self, size: int | None = None) -> dict[str, Any]:
        """Return the SDKs' shape; times in seconds."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes if size is None else size,
            "created_at": self.created_at // 1000,
            "expires_at": self.expires_at // 1000 or None,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


def read_file(record: Mapping[str, bytes]) -> StoredFile | None:
    """Read a file's record; None where there is none."""
    if "id" not in record:
        return None
    return StoredFile(
        id=_text(record, "id"),
        tenant=_text(record, "tenant"),
        filename=_text(record, "filename"),
        purpose=_text(record, "purpose"),
        bytes=_int(record, "bytes"),
        created_at=_int(record, "created"),
        expires_at=_int(record, "expires"),
        batch=_text(record, "batch"),
        kind=_text(record, "kind"),
        lines=_int(record, "lines"),
    )


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as its record tells it. Times are epoch milliseconds of Redis' clock, counts those of one moment."""

    id: str
    tenant: str
    status: BatchStatus
    file: str
    endpoint: str
    window: str
    metadata: dict[str, str]
    created_at: int
    expires_at: int
    total: int
    counts: dict[str, int]
    left: int
    groups: tuple[tuple[int, int, int], ...]
    """For each group of lines: how many there are, how many have a job, how many of those have ended."""
    errors: tuple[Fault, ...] = ()
    times: tuple[tuple[str, int], ...] = ()
    usage: tuple[int, int, int, int] = (0, 0, 0, 0)
    cost_usd: Decimal = Decimal(0)
    model: str = ""
    owned_until: int = 0
    webhook: str = ""
    delivery: dict[str, Any] | None = None
    """What became of its webhook, once it is due and where that was read as well."""
    cap_nano: int = 0
    """What its lines may cost together, in nano-USD, and what of it is spent or reserved; 0 where it has no cap."""
    spent_nano: int = 0

    @property
    def max_cost_usd(self) -> Decimal | None:
        """Return its spend cap."""
        return Decimal(self.cap_nano).scaleb(NANO).normalize() if self.cap_nano else None

    @property
    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self.status in ENDED

    @property
    def completed(self) -> int:
        """Return how many lines have a result."""
        return self.counts.get(JobState.SUCCEEDED, 0)

    @property
    def failed(self) -> int:
        """Return how many lines ended without one: failed, cancelled and expired ones."""
        return sum(self.counts.values()) - self.completed

    def at(self, status: BatchStatus) -> int | None:
        """Return when it came to a status, in seconds."""
        found = dict(self.times).get(status)
        return found // 1000 if found else None

    def as_dict(self) -> dict[str, Any]:
        """Return the SDKs' shape, times in seconds, with what Vessel knows beside it under `vessel`."""
        output, errors = document_ids(self.id)
        prompt, completion, cached, reasoning = self.usage
        told = {"object": "list", "data": [fault.as_dict() for fault in self.errors]} if self.errors else None
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model or None,
            "errors": told,
            "input_file_id": self.file,
            "completion_window": self.window,
            "status": str(self.status),
            "output_file_id": output if self.completed else None,
            "error_file_id": errors if self.failed else None,
            "created_at": self.created_at // 1000,
            "in_progress_at": self.at(BatchStatus.IN_PROGRESS),
            "expires_at": self.expires_at // 1000,
            "finalizing_at": self.at(BatchStatus.FINALIZING),
            "completed_at": self.at(BatchStatus.COMPLETED),
            "failed_at": self.at(BatchStatus.FAILED),
            "expired_at": self.at(BatchStatus.EXPIRED),
            "cancelling_at": self.at(BatchStatus.CANCELLING),
            "cancelled_at": self.at(BatchStatus.CANCELLED),
            "request_counts": {"total": self.total, "completed": self.completed, "failed": self.failed},
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": cached},
                "output_tokens": completion,
                "output_tokens_details": {"reasoning_tokens": reasoning},
                "total_tokens": prompt + completion,
            },
            "metadata": self.metadata or None,
            "vessel": {
                "counts": {str(s): self.counts.get(s, 0) for s in _COUNTED},
                "cost_usd": float(self.cost_usd),
                "webhook": self.delivery,
                "max_cost_usd": float(self.max_cost_usd) if self.max_cost_usd is not None else None,
                "charged_or_reserved_usd": float(Decimal(self.spent_nano).scaleb(NANO)) if self.cap_nano else None,
            },
        }


_COUNTED = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED)
_USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
NANO = -9


def read_batch(record: Mapping[str, bytes]) -> Batch | None:
    """Read a batch's record; None where there is none."""
    if "id" not in record:
        return None
    groups = range(_int(record, "groups"))
    prompt, completion, cached, reasoning = (_int(record, f"u:{name}") for name in _USAGE)
    return Batch(
        id=_text(record, "id"),
        tenant=_text(record, "tenant"),
        status=BatchStatus(_text(record, "status")),
        file=_text(record, "file"),
        endpoint=_text(record, "endpoint"),
        window=_text(record, "window"),
        metadata=json.loads(record.get("metadata") or b"{}"),
        created_at=_int(record, "created"),
        expires_at=_int(record, "expires"),
        total=_int(record, "total"),
        counts={state: _int(record, f"n:{state}") for state in _COUNTED},
        left=_int(record, "left"),
        groups=tuple((_int(record, f"t:{g}"), _int(record, f"next:{g}"), _int(record, f"e:{g}")) for g in groups),
        errors=tuple(Fault(**row) for row in json.loads(record.get("errors") or b"[]")),
        times=tuple((name[3:], int(at)) for name, at in record.items() if name.startswith("at:")),
        usage=(prompt, completion, cached, reasoning),
        cost_usd=Decimal(_int(record, "pico")).scaleb(PICO).normalize(),
        model=_text(record, "model"),
        owned_until=_int(record, "owned_until"),
        webhook=_text(record, "webhook"),
        cap_nano=_int(record, "cap_nano"),
        spent_nano=_int(record, "spent_nano"),
    )
