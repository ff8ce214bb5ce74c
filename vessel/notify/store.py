"""The calls that take, settle, list and repeat deliveries, and those about signing secrets; each is safe to repeat."""

from __future__ import annotations

import json
import secrets
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.errors import VesselError
from vessel.keyspace.script import Arg, Call, command, load, pairs, word, words
from vessel.notify.backoff import DeliveryState
from vessel.notify.delivery import PREFIX, read_delivery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vessel.keyspace.names import Keys
    from vessel.notify.backoff import Outcome, Step
    from vessel.notify.delivery import Delivery

LEASE_MS = 30_000
"""How long nobody else delivers a webhook whose process does not come back; twice what an attempt may take."""

TRIES_KEPT = 20
OVERLAP_MS = 86_400_000
"""How long the secret before a rotation signs as well, unless told otherwise."""


class WebhookNotFound(VesselError):
    """There is no such webhook: its job or batch has not ended, had none, or it is older than is kept."""

    code = "webhook_not_found"
    http_status = 404


@dataclass(frozen=True, slots=True)
class Taken:
    """What one process is to deliver until the lease is over. Times are epoch milliseconds of Redis' clock."""

    now: int
    lease: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Secrets:
    """A tenant's secrets: the current one, and those that sign beside it until a time."""

    current: str
    since: int | None = None
    old: tuple[tuple[str, int], ...] = ()

    def signing(self, now: int) -> tuple[str, ...]:
        """Return what signs at a time of Redis' clock, the current one first."""
        return (self.current, *(secret for secret, until in self.old if until > now))


def new_secret() -> str:
    """Make a secret of 256 random bits."""
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode()


def take(keys: Keys, limit: int, at_receiver: int, under_way: Mapping[str, int]) -> Call[Taken]:
    """Lease webhooks that are due, passing over receivers that have as many calls as they may have."""
    args: dict[str, Arg] = {"limit": limit, "at_receiver": at_receiver, "lease_ms": LEASE_MS}
    more: list[Arg] = [part for pair in under_way.items() for part in pair]

    def parse(raw: Sequence[Any]) -> Taken:
        now, lease, *members = map(word, raw)
        return Taken(int(now), int(lease), tuple(members))

    return load("take_webhooks").call({"due": keys.webhooks}, args, parse, more_args=more)


def settle(keys: Keys, member: str, taken: Taken, outcome: Outcome, step: Step) -> Call[str]:
    """Note how an attempt ended: answers settled, superseded or missing."""
    row = {"at": taken.now, "status": outcome.status, "trouble": outcome.trouble, "ms": outcome.duration_ms}
    args: dict[str, Arg] = {
        "member": member,
        "lease": taken.lease,
        "to": "" if step.state is DeliveryState.PENDING else step.state,
        "wins": "1" if step.state is DeliveryState.DELIVERED else "0",
        "delay_ms": step.delay_ms,
        "row": json.dumps(row, separators=(",", ":")),
        "rows_kept": TRIES_KEPT,
    }
    names = {"due": keys.webhooks, "webhook": keys.webhook(of_member(member))}
    return load("settle_webhook").call(names, args, word)


def of_member(member: str) -> str:
    """Read the id of the job or batch from a member of the due ones."""
    return member.partition(" ")[0]


def retry(keys: Keys, name: str) -> Call[None]:
    """Let a webhook be delivered anew from now on, whatever became of it; its call raises WebhookNotFound."""

    def parse(raw: Any) -> None:
        if word(raw) == "missing":
            raise WebhookNotFound

    of = name.removeprefix(PREFIX)
    return load("retry_webhook").call({"due": keys.webhooks, "webhook": keys.webhook(of)}, {"id": of}, parse)


def delivery(keys: Keys, name: str) -> Call[Delivery | None]:
    """Read the delivery of a job or batch, named by its own or by the message's id."""
    key = keys.webhook(name.removeprefix(PREFIX))
    return command("HGETALL", key, parse=lambda raw: read_delivery(pairs(raw)))


def newest(keys: Keys, start: int, count: int) -> Call[list[str]]:
    """Name deliveries by their jobs and batches, the newest first."""
    return command("ZRANGE", keys.webhook_log, start, start + count - 1, "REV", parse=words)


def waiting(keys: Keys) -> Call[int]:
    """Count the webhooks that are not delivered yet."""
    return command("ZCARD", keys.webhooks, parse=int)


# --- secrets ----------------------------------------------------------------------------------------------------------


def secret_of(keys: Keys, tenant: str) -> list[Call[Any]]:
    """Read a tenant's secrets, the first one made now if there is none: the last answer holds them."""
    key = keys.webhook_secret(tenant)

    def parse(raw: Any) -> Secrets:
        record = {name: value.decode() for name, value in pairs(raw).items()}
        old = [(name[4:], int(until)) for name, until in record.items() if name.startswith("old:")]
        since = record.get("since")
        return Secrets(record["current"], int(since) if since else None, tuple(sorted(old, key=lambda o: -o[1])))

    return [command("HSETNX", key, "current", new_secret(), parse=int), command("HGETALL", key, parse=parse)]


def rotate(keys: Keys, tenant: str, fresh: str, overlap_ms: int = OVERLAP_MS) -> Call[int | None]:
    """Sign with a new secret from now on; answers until when the one before signs as well."""
    args: dict[str, Arg] = {"fresh": fresh, "overlap_ms": overlap_ms}
    return load("rotate_secret").call(
        {"secret": keys.webhook_secret(tenant)}, args, lambda raw: int(word(raw)) if word(raw) else None
    )
