"""A job's answer as it comes: who writes it, who reads it, and for how long it may go unread."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vessel.jobs.model import Verb, sources
from vessel.jobs.steps import Answer
from vessel.keyspace.script import Arg, Call, command, load, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.jobs.steps import Held
    from vessel.keyspace.names import Keys

MOST_BATCHES = 70_000
"""More than the 65,536 tokens of the longest answer (registry): one that is read from its beginning has no holes."""

READER_GONE_MS = 10_000
"""An answer that nobody has read for so long is cut."""

Piece = dict[str, Any]
"""What one chunk added to the answer: its `delta`, and `logprobs` where there are any."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Pieces to be written together; `number` counts an attempt's batches from 1. The first one has the head."""

    number: int
    pieces: Sequence[Piece] = field(repr=False)
    head: dict[str, Any] | None = None
    """What is the same in all chunks: id, created, model, and `x_groq` with Groq's request id."""


def stream(held: Held, attempt: int, batch: Batch) -> Call[Answer]:
    """Write a batch; its id in the stream is `attempt-number`.

    Answers written, cancel_requested when it is written and the call is to be cut, or superseded.
    """
    args: dict[str, Arg] = {
        "generation": held.generation,
        "owner": held.owner,
        "from": sources(Verb.STREAM),
        "attempt": attempt,
        "batch": batch.number,
        "most": MOST_BATCHES,
    }
    keys = {"job": held.keys.job, "tokens": held.keys.tokens, "events": held.keys.events}
    head = [] if batch.head is None else ["head", _dump(batch.head)]

    def parse(raw: Sequence[Any]) -> Answer:
        return Answer(word(raw[0]), word(raw[1]) if len(raw) > 1 else "")

    return load("stream").call(keys, args, parse, more_args=[*head, "pieces", _dump(batch.pieces)])


def attend(keys: Keys, job_id: str) -> Call[str]:
    """Say that somebody reads a job's answer; answers its state, empty for a job that is gone."""
    return load("attend").call({"job": keys.job(job_id)}, {"from": sources(Verb.FINISH)}, word)


def last_read(keys: Keys, job_id: str) -> Call[int]:
    """Ask when a reader was last there, by Redis' clock; 0 for never."""
    return command("HGET", keys.job(job_id), "read_at", parse=lambda raw: int(raw or 0))


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
