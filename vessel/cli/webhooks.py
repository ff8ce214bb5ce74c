"""What `vessel webhooks` does and prints."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from vessel.cli import times
from vessel.cli.faults import BadUse
from vessel.cli.output import emit, note, say, table
from vessel.client import GroqClient
from vessel.keyspace.server import clock
from vessel.notify import store
from vessel.notify.addresses import shown
from vessel.notify.secret import configured
from vessel.observe.moments import moment
from vessel.wire import parse_duration_s

if TYPE_CHECKING:
    from vessel.notify.delivery import Delivery
    from vessel.notify.store import Secrets

PAGE = 200
LONGEST_TENANT = 128
_ID = re.compile(r"(msg_)?(job|batch)_[0-9a-f]{32}")


def show_many(state: str | None, limit: int, *, as_json: bool) -> None:
    """Print deliveries, newest first."""
    with GroqClient() as client:
        found = _newest(client, state, limit)
    if as_json:
        for one in found:
            emit(one.as_dict())
        return
    rows = [
        (d.id, d.type, d.state, d.attempts, _last(d), times.stamp(d.next_at) or times.stamp(d.settled_at), shown(d.url))
        for d in found
    ]
    table(("OF", "TYPE", "STATE", "TRIES", "LAST", "NEXT OR ENDED", "TO"), rows, right=("TRIES",))


def _newest(client: GroqClient, state: str | None, limit: int) -> list[Delivery]:
    found: list[Delivery] = []
    start = 0
    while len(found) < limit:
        ids = client.runner.run(store.newest(client.door.keys, start, PAGE))
        read = client.runner.run_all([store.delivery(client.door.keys, of) for of in ids])
        found += [one for one in read if one is not None and (state is None or one.state == state)]
        start += len(ids)
        if len(ids) < PAGE:
            break
    return found[:limit]


def _last(found: Delivery) -> str | None:
    if not found.tries:
        return None
    last = found.tries[-1]
    return " ".join(str(part) for part in (last.status, last.trouble) if part)


def line(webhook: dict[str, Any]) -> str:
    """Say what became of the webhook of a job or batch, as a look at it describes it."""
    if webhook["state"] is None:
        return f"{webhook['url']} when it has ended"
    tries = webhook["attempts"]
    told = f"{webhook['state']} after {tries} {'try' if tries == 1 else 'tries'}" if tries else webhook["state"]
    if webhook["tries"] and webhook["state"] != "delivered":
        told += f": {webhook['tries'][-1]['message']}"
    if webhook["next_attempt_at"]:
        at = datetime.fromisoformat(webhook["next_attempt_at"])
        told += f"; next at {times.stamp(int(at.timestamp() * 1000))}"
    return f"{told}; {webhook['url']}"


def again(webhook_id: str, *, as_json: bool) -> None:
    """Deliver one anew. Raises WebhookNotFound."""
    if not _ID.fullmatch(webhook_id):
        raise BadUse(
            "ID: it must be the id of a job or batch. `vessel webhooks list` tells those with a webhook. Nothing was "
            "changed.",
            param="ID",
        )
    with GroqClient() as client:
        client.runner.run(store.retry(client.door.keys, webhook_id))
        found = client.runner.run(store.delivery(client.door.keys, webhook_id))
    if found is None:
        raise store.WebhookNotFound
    if as_json:
        emit(found.as_dict())
    else:
        say(f"{found.id} is delivered anew to {shown(found.url)}")


def secret(tenant: str, overlap: str | None, *, as_json: bool) -> None:
    """Print a tenant's secret, after a rotation where an overlap is given."""
    if not tenant or len(tenant) > LONGEST_TENANT or "|" in tenant:
        raise BadUse(
            f"--tenant: 1 to {LONGEST_TENANT} characters without a bar. Nothing was changed.", param="--tenant"
        )
    overlap_ms = None if overlap is None else _span_ms(overlap)
    with GroqClient() as client:
        if found := configured(client.door.settings):
            _tell_configured(found, rotates=overlap is not None, as_json=as_json)
            return
        keys = client.door.keys
        if overlap_ms is not None:
            client.runner.run(store.rotate(keys, tenant, store.new_secret(), overlap_ms))
        kept: Secrets = client.runner.run_all(store.secret_of(keys, tenant))[-1]
        now = client.runner.run(clock())
    old = [until for _, until in kept.old if until > now]
    if as_json:
        emit({"tenant": tenant, "secret": kept.current, "set": False, "previous_until": [moment(u) for u in old]})
        return
    say(kept.current)
    for until in old:
        note(f"-- The secret before it signs as well until {times.until(until, now)}.")


def _tell_configured(found: tuple[str, ...], *, rotates: bool, as_json: bool) -> None:
    if rotates:
        raise BadUse(
            "The secret is set by VESSEL_WEBHOOK_SECRET or its file, so it is not rotated here. Put the new one before "
            "the old one there, with a blank between: then both sign.",
            param="--rotate",
        )
    if as_json:
        emit({"tenant": None, "secret": found[0], "set": True, "previous_until": [None for _ in found[1:]]})
        return
    say(found[0])
    note(f"-- It is set for all tenants{f'; {len(found) - 1} more sign as well' if len(found) > 1 else ''}.")


def _span_ms(text: str) -> int:
    if text.strip() == "0":
        return 0
    try:
        return int(parse_duration_s(text) * 1000)
    except ValueError:
        raise BadUse("--overlap: it must be a span like 24h, or 0. Nothing was changed.", param="--overlap") from None
