"""A webhook's delivery as its record tells it, and the message that is sent. No prompt and no answer is in either."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from vessel.batches.model import document_ids
from vessel.jobs.record import charges
from vessel.notify.addresses import shown
from vessel.notify.backoff import TEXTS, DeliveryState, Trouble
from vessel.observe.moments import moment
from vessel.wire import PICO, JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "msg_"
"""A message's id is this and the id of its job or batch: the same for every attempt, also when it is asked for anew."""


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt. `at` is epoch milliseconds of Redis' clock."""

    number: int
    at: int
    status: int | None
    trouble: Trouble
    duration_ms: int

    def as_dict(self) -> dict[str, Any]:
        """Describe it in JSON."""
        return {
            "number": self.number,
            "at": moment(self.at),
            "status": self.status,
            "reason": str(self.trouble) or None,
            "message": TEXTS[self.trouble],
            "duration_ms": self.duration_ms,
        }


@dataclass(frozen=True, slots=True)
class Delivery:
    """What is told to a receiver, and what became of it so far. Times are epoch milliseconds of Redis' clock."""

    id: str
    """That of the job or batch."""
    kind: str
    ended_as: str
    url: str
    at: int
    state: DeliveryState
    attempts: int
    round: int
    """Attempts since it was last asked for."""
    tries: tuple[Try, ...]
    next_at: int | None
    settled_at: int | None
    told: dict[str, str]

    @property
    def message_id(self) -> str:
        """Return the `webhook-id`."""
        return PREFIX + self.id

    @property
    def type(self) -> str:
        """Return the type of the event, such as `job.succeeded`."""
        return f"{self.kind}.{self.ended_as}"

    @property
    def tenant(self) -> str:
        """Return whose it is."""
        return self.told.get("tenant", "")

    @property
    def receiver(self) -> str:
        """Return host and port."""
        return self.url.partition("://")[2].partition("/")[0]

    def as_dict(self) -> dict[str, Any]:
        """Describe it in JSON; the address without its query."""
        last = self.tries[-1] if self.tries else None
        return {
            "id": self.message_id,
            "of": self.id,
            "type": self.type,
            "url": shown(self.url),
            "state": str(self.state),
            "created_at": moment(self.at),
            "next_attempt_at": moment(self.next_at),
            "settled_at": moment(self.settled_at),
            "reason": (str(last.trouble) or None) if last else None,
            "attempts": self.attempts,
            "tries": [one.as_dict() for one in self.tries],
        }

    def payload(self) -> bytes:
        """Write the message; the same bytes for every attempt."""
        data = self._of_job() if self.kind == "job" else self._of_batch()
        message = {"type": self.type, "timestamp": moment(self.at), "data": data}
        return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()

    def _of_job(self) -> dict[str, Any]:
        told = self.told
        usage, cost = charges({name: value.encode() for name, value in told.items()})
        return {
            "id": self.id,
            "object": "job",
            "state": self.ended_as,
            "reason": told.get("reason") or None,
            "tier": told.get("served_tier") or told.get("tier") or None,
            "model": told.get("served_model") or told.get("model") or None,
            "vessel": told.get("served_vessel") or None,
            "priority": told.get("priority") or None,
            "attempts": int(told.get("n") or 0),
            "usage": usage,
            "cost_usd": None if cost is None else float(cost),
            "created_at": moment(_number(told, "created")),
            "finished_at": moment(self.at),
            "batch_id": told.get("batch") or None,
            "custom_id": told.get("custom") or None,
            "retry_of": told.get("retry_of") or None,
        }

    def _of_batch(self) -> dict[str, Any]:
        told = self.told
        counts = {str(s): _number(told, f"n:{s}") or 0 for s in JobState if f"n:{s}" in told}
        done = counts.get(JobState.SUCCEEDED, 0)
        others = sum(counts.values()) - done
        output, errors = document_ids(self.id)
        prompt, completion = (_number(told, f"u:{name}_tokens") or 0 for name in ("prompt", "completion"))
        return {
            "id": self.id,
            "object": "batch",
            "state": self.ended_as,
            "reason": "invalid_lines" if self.ended_as == JobState.FAILED else None,
            "model": told.get("model") or None,
            "input_file_id": told.get("file") or None,
            "output_file_id": output if done else None,
            "error_file_id": errors if others else None,
            "request_counts": {"total": _number(told, "total") or 0, "completed": done, "failed": others},
            "usage": {"input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion},
            "cost_usd": float(Decimal(told.get("pico") or 0).scaleb(PICO)),
            "created_at": moment(_number(told, "created")),
            "finished_at": moment(self.at),
        }


def described(url: str, found: Delivery | None) -> dict[str, Any]:
    """Describe the webhook of a job or batch in JSON; one that has not ended has no delivery yet."""
    return {"url": shown(url), "state": None} if found is None else found.as_dict()


def _number(told: Mapping[str, str], name: str) -> int | None:
    value = told.get(name)
    return int(float(value)) if value else None


def read_delivery(record: Mapping[str, bytes]) -> Delivery | None:
    """Read a delivery's record; None where there is none."""
    if "id" not in record:
        return None
    text = {name: value.decode() for name, value in record.items()}
    rows = sorted((int(name[2:]), json.loads(row)) for name, row in text.items() if name.startswith("a:"))
    return Delivery(
        id=text["id"],
        kind=text["kind"],
        ended_as=text["state"],
        url=text["url"],
        at=_number(text, "at") or 0,
        state=DeliveryState(text.get("status") or DeliveryState.PENDING),
        attempts=_number(text, "n") or 0,
        round=_number(text, "round") or 0,
        tries=tuple(Try(n, row["at"], row["status"], Trouble(row["trouble"]), row["ms"]) for n, row in rows),
        next_at=_number(text, "next"),
        settled_at=_number(text, "ended"),
        told={name[2:]: value for name, value in text.items() if name.startswith("d:")},
    )
