"""How a job is written into its hash and read back; payloads stay bytes and are never parsed on the way."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.jobs.model import Attempt, Hop, Job
from vessel.wire import PICO, TERMINAL, JobState, Priority

if TYPE_CHECKING:
    from collections.abc import Mapping


JOB_ID = re.compile(r"job_[0-9a-f]{32}")
"""What an id looks like; a text of another form could name another key."""


def new_job_id() -> str:
    """Make an id that cannot be guessed (128 random bits)."""
    return f"job_{secrets.token_hex(16)}"


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job about to be created."""

    id: str
    tenant: str
    priority: Priority
    hops: tuple[Hop, ...]
    policy: Mapping[str, Any]
    reasons: tuple[str, ...]
    body: bytes = field(repr=False)
    body_hash: str
    estimated_tokens: int
    output_tokens: int = 0
    deadline_ms: int = 0
    idempotency_key: str | None = None
    reply: str = ""
    retry_of: str | None = None
    builtin_tools: tuple[str, ...] = ()
    streams: bool = False
    trace: str = ""
    """The `traceparent` under which it was submitted."""
    request_id: str = ""
    """The REST request that submitted it."""

    @property
    def max_wait_ms(self) -> int:
        """Return how long it may wait in all, 0 where that is not bound."""
        return int(float(self.policy.get("max_wait") or 0) * 1000)

    def fields(self, queue: str, idem: str) -> list[str | bytes]:
        """Return the record as a flat field-value list for the create script."""
        record: dict[str, str | bytes] = {
            "tenant": self.tenant,
            "priority": str(self.priority),
            "tier": self.hops[0].tier,
            "model": self.hops[0].model,
            "hops": dump([[h.model, h.tier, h.note] for h in self.hops]),
            "hop": "0",
            "policy": dump(self.policy),
            "reasons": dump(self.reasons),
            "body": self.body,
            "est": str(self.estimated_tokens),
            "out": str(self.output_tokens),
            "queue": queue,
            "idem": idem,
            "reply": self.reply,
            "tools": ",".join(self.builtin_tools),
        }
        if self.retry_of:
            record["retry_of"] = self.retry_of
        if self.streams:
            record["streams"] = "1"
        if webhook := self.policy.get("webhook"):
            record["webhook"] = webhook
        if self.trace:
            record["trace"] = self.trace
        if self.request_id:
            record["request"] = self.request_id
        return [part for pair in record.items() for part in pair]


def dump(value: object) -> str:
    """Write a small value of ours as compact JSON; escaped, as a policy may hold half a surrogate pair."""
    return json.dumps(value, separators=(",", ":"), default=str)


def _text(record: Mapping[str, bytes], name: str) -> str:
    return record.get(name, b"").decode()


def _number(record: Mapping[str, bytes], name: str) -> int | None:
    value = record.get(name)
    return int(float(value)) if value else None


_LOST_ROW = b'{"model":"","tier":"","worker":"","worst_nano_usd":0}'
"""Stands for an attempt that Redis forgot when it lost its last second, but not the ones after it."""


def read_attempts(record: Mapping[str, bytes]) -> tuple[Attempt, ...]:
    """Read the attempts: each has its row `a:N` and, once known, its ending `o:N`."""
    attempts = []
    for number in range(1, (_number(record, "n") or 0) + 1):
        row = json.loads(record.get(f"a:{number}", _LOST_ROW))
        started = _number(record, f"at:{number}") or 0
        label, _, ending = _text(record, f"o:{number}").partition(" ")
        attempts.append(
            Attempt(
                number=number,
                model=row["model"],
                tier=row["tier"],
                worker=row["worker"],
                started_at=started,
                notes=tuple(row.get("notes", ())),
                **({"outcome": label, **json.loads(ending)} if label else {"cost_nano_usd": row["worst_nano_usd"]}),
            )
        )
    return tuple(attempts)


def charges(record: Mapping[str, bytes]) -> tuple[dict[str, Any] | None, Decimal | None]:
    """Read what an ended job used and cost: its answer, or without one what its charged calls took.

    Of calls whose answer was not seen that is the most it can have been: `unknown_calls` tells how many there are.
    """
    usage, cost, charged = (_text(record, name) for name in ("usage", "cost", "charged"))
    if usage or not charged:
        return json.loads(usage) if usage else None, Decimal(cost) if cost else None
    prompt, output, cached, pico, unknown, estimated = (int(figure) for figure in charged.split())
    found: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output,
                             "cached_tokens": cached}  # fmt: skip
    found |= {"cost_estimated": True} if unknown or estimated else {}
    found |= {"unknown_calls": unknown} if unknown else {}
    return found, Decimal(pico).scaleb(PICO).normalize()


def read_job(record: Mapping[str, bytes]) -> Job:
    """Read a whole record as a `Job`."""
    state = JobState(_text(record, "state"))
    usage, cost = charges(record) if state in TERMINAL else (None, None)
    return Job(
        id=_text(record, "id"),
        state=state,
        generation=_number(record, "gen") or 0,
        tenant=_text(record, "tenant"),
        priority=Priority(_text(record, "priority")),
        tier=_text(record, "tier"),
        model=_text(record, "model"),
        hops=tuple(Hop(*hop) for hop in json.loads(record["hops"])),
        hop=_number(record, "hop") or 0,
        policy=json.loads(record["policy"]),
        reasons=tuple(json.loads(record["reasons"])),
        created_at=_number(record, "created") or 0,
        asked_at=_number(record, "asked"),
        updated_at=_number(record, "updated") or 0,
        estimated_tokens=_number(record, "est") or 0,
        output_tokens=_number(record, "out") or 0,
        prompt_bytes=len(record.get("body", b"")),
        body=record.get("body", b""),
        response=record.get("response"),
        attempts=read_attempts(record),
        kills=_number(record, "kills") or 0,
        lapses=_number(record, "lapses") or 0,
        reason=_text(record, "reason"),
        message=_text(record, "message"),
        deadline_at=_number(record, "deadline"),
        parked_until=_number(record, "until"),
        finished_at=_number(record, "finished"),
        cancel_requested=record.get("cancel") == b"1",
        usage=usage,
        cost_usd=cost,
        served_model=_text(record, "served_model") or None,
        served_tier=_text(record, "served_tier") or None,
        served_vessel=_text(record, "served_vessel") or None,
        retry_of=_text(record, "retry_of") or None,
        queue=_text(record, "queue"),
        idem=_text(record, "idem"),
        reply=_text(record, "reply"),
        builtin_tools=tuple(t for t in _text(record, "tools").split(",") if t),
        trace=_text(record, "trace"),
        request_id=_text(record, "request"),
        **_way_on(record),
        **_stream_and_batch(record),
    )


def _way_on(record: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "at_model": _text(record, "at_model"),
        "waits_for_gate": _text(record, "waits") == "1",
        "unfit": frozenset(int(hop) for hop in _text(record, "unfit").split(",") if hop),
        "start_at": _number(record, "start_at"),
    }


def _stream_and_batch(record: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "streams": _text(record, "streams") == "1",
        "streamed": _text(record, "streamed") == "1",
        "read_at": _number(record, "read_at"),
        "batch": _text(record, "batch"),
        "line": _text(record, "line"),
        "source": _text(record, "source"),
    }
