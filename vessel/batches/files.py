"""Bytes in and out of files: chunks of an upload, a line's request, and the lines of a batch's documents."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from vessel.batches.lines import parse_line, split_policy
from vessel.batches.model import (
    CHUNK,
    MOST_BYTES,
    MOST_LINES,
    EmptyFile,
    FileTooLarge,
    TooManyLines,
    derived,
    line_job_id,
)
from vessel.wire import JobState, encode_body

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vessel.jobs.model import Job

_LINE = re.compile(rb"[^\s][^\n]*")


class Upload:
    """Cuts a stream of bytes into chunks, counting bytes and lines; holds one chunk at most."""

    def __init__(self) -> None:
        """Begin an empty file."""
        self._buffer = bytearray()
        self._digest = hashlib.sha256()
        self._in_line = False
        self.size = 0
        self.lines = 0

    @property
    def digest(self) -> str:
        """Return the hash of what was given so far."""
        return self._digest.hexdigest()

    @property
    def chunks(self) -> int:
        """Return how many chunks were given out or are begun."""
        return -(-self.size // CHUNK)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes and give the chunks that are full. Raises FileTooLarge, TooManyLines."""
        self.size += len(data)
        if self.size > MOST_BYTES:
            raise FileTooLarge(f"The file is larger than {MOST_BYTES >> 20} MiB; nothing was kept. Split it.")
        self._digest.update(data)
        self._count(data)
        if self.lines > MOST_LINES:
            raise TooManyLines(f"The file holds more than {MOST_LINES:,} requests; nothing was kept. Split it.")
        self._buffer += data
        while len(self._buffer) >= CHUNK:
            yield bytes(self._buffer[:CHUNK])
            del self._buffer[:CHUNK]

    def finish(self) -> bytes:
        """Give the rest, which may be empty. Raises EmptyFile for a file without any line."""
        if not self.lines:
            raise EmptyFile
        return bytes(self._buffer)

    def _count(self, data: bytes) -> None:
        """Count the lines that are not blank; one that began in the bytes before goes on."""
        start = 0
        if self._in_line:
            start = data.find(b"\n")
            if start < 0:
                return
        found = 0
        for found_line in _LINE.finditer(data, start):
            found += 1
            self._in_line = found_line.end() == len(data)
        if not found:
            self._in_line = False
        self.lines += found


def body_of(parts: Sequence[bytes]) -> bytes:
    """Give the request of a line that lies in a file; empty where its bytes are gone."""
    text = b"".join(parts)
    if not text:
        return b""
    body, _ = split_policy(parse_line(text).body)
    return encode_body(body)


def read_source(source: str) -> tuple[str, int, int]:
    """Read where a job's line lies: file, offset and length."""
    file_id, offset, length = source.split(" ")
    return file_id, int(offset), int(length)


def places(entry: str) -> Iterator[tuple[int, int, str]]:
    """Read an entry of a list of lines: a group and a position, or a range of lines that ended without a job."""
    place, _, state = entry.partition(" ")
    group, _, positions = place.partition(":")
    first, _, end = positions.partition("-")
    for position in range(int(first), int(end) if end else int(first) + 1):
        yield int(group), position, state


def request_id(batch_id: str, place: str) -> str:
    """Name a line in the documents."""
    return f"batch_req_{derived('request', batch_id, place)}"


def output_line(batch_id: str, place: str, custom_id: str, response: bytes | None) -> bytes:
    """Write a line that has a result as Groq does.

    An answer is kept as it came over the wire, where Groq's ends with a newline and others may hold more of them; none
    lies within a JSON text, so that a space may stand for each.
    """
    body = (response or b"null").strip().replace(b"\r", b" ").replace(b"\n", b" ")
    upstream = _upstream_id(body) or line_job_id(batch_id, place).replace("job_", "req_")
    head = {"id": request_id(batch_id, place), "custom_id": custom_id}
    inner = {"status_code": 200, "request_id": upstream}
    return b"".join(
        (_json(head)[:-1], b',"response":', _json(inner)[:-1], b',"body":', body, b'},"error":null}\n')
    )  # fmt: skip


def _upstream_id(body: bytes) -> str:
    try:
        found = json.loads(body)["x_groq"]["id"]
    except (ValueError, LookupError, TypeError):
        return ""
    return found if isinstance(found, str) else ""


ENDED_AS: dict[str, tuple[str, str]] = {
    JobState.EXPIRED: ("batch_expired", "This request could not be executed before the completion window expired."),
    JobState.CANCELLED: ("batch_cancelled", "This request was cancelled with its batch; nothing more was sent."),
}


def error_line(batch_id: str, place: str, custom_id: str, job: Job | None, state: str) -> bytes:
    """Write a line that ended without a result; an answer of the upstream's that refused it is told with its status."""
    job_state = str(job.state) if job else state
    response: dict[str, Any] | None = None
    if job_state in ENDED_AS or job is None:
        code, message = ENDED_AS.get(job_state, ("result_gone", "What became of this request is not kept any more."))
    else:
        code, message = job.reason or str(JobState.FAILED), job.message
        status = next((a.status for a in reversed(job.attempts) if a.status), None)
        if status:
            told = {"message": message, "type": "invalid_request_error", "code": code, "param": None}
            ids = [a.request_id for a in job.attempts if a.request_id] or [job.id.replace("job_", "req_")]
            response = {"status_code": status, "request_id": ids[-1], "body": {"error": told}}
    row = {
        "id": request_id(batch_id, place),
        "custom_id": custom_id,
        "response": response,
        "error": {"code": code, "message": message},
    }
    return _json(row) + b"\n"


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")
