"""What `vessel keys` does and prints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from vessel.api import keys as api_keys
from vessel.cli import times
from vessel.cli.faults import FAILED, BadUse
from vessel.cli.output import complain, emit, note, say, table
from vessel.client import GroqClient
from vessel.keyspace.server import clock
from vessel.observe.moments import moment
from vessel.wire import parse_duration_s

if TYPE_CHECKING:
    from vessel.api.keys import ApiKey

_ID = re.compile(r"[0-9a-f]{16}")


def create(tenant: str, about: str, quota: str, expires: str | None, *, admin: bool, as_json: bool) -> None:
    """Make a key and print it. Raises BadUse, InvalidRequest, Unreachable; then none was made."""
    lives_ms = 0 if expires is None else _span_ms(expires)
    with GroqClient() as client:
        now = client.runner.run(clock())
        key, text = api_keys.make(now, tenant=tenant, note=about, admin=admin, quota=quota, lives_ms=lives_ms)
        client.runner.run(api_keys.store(client.door.keys, key))
    if as_json:
        emit({"key": text} | _document(key))
        return
    say(text)
    note(f"-- Key {key.id} of tenant {key.tenant}. It is shown this once; keep it where only its user can read it.")


def show(*, as_json: bool) -> None:
    """Print the keys there are."""
    with GroqClient() as client:
        found = client.runner.run(api_keys.every(client.door.keys))
    if as_json:
        for key in found:
            emit(_document(key))
        return
    rows = [
        (
            k.id,
            k.tenant,
            "admin" if k.admin else "-",
            k.quota or "-",
            times.stamp(k.created_at),
            times.stamp(k.expires_at),
            k.note,
        )
        for k in found
    ]
    table(("ID", "TENANT", "MAY", "QUOTA", "CREATED", "EXPIRES", "NOTE"), rows)
    if not found:
        note("-- There are no keys: the API serves this machine only, and asks for none.")


def revoke(key_id: str, *, as_json: bool) -> int:
    """Revoke a key, given by its id or whole; 1 when there is none."""
    found = api_keys.split(key_id)[0] or key_id
    if not _ID.fullmatch(found):
        raise BadUse("ID: it must be a key's id, 16 hexadecimal digits. `vessel keys list` tells it.", param="ID")
    with GroqClient() as client:
        done = client.runner.run(api_keys.revoke(client.door.keys, found))
        left = client.runner.run(api_keys.count(client.door.keys))
    if as_json:
        emit({"id": found, "revoked": done})
    else:
        say(f"{found} revoked" if done else f"There is no key {found}; nothing was changed.")
    if done and not left:
        complain(
            "-- That was the last key. Unless VESSEL_API_KEY_FILE names one, the API now serves everybody on this "
            "machine without any, and nobody else. `vessel keys create` makes the next one."
        )
    return 0 if done else FAILED


def _span_ms(text: str) -> int:
    try:
        return int(parse_duration_s(text) * 1000)
    except ValueError:
        raise BadUse("--expires: it must be a span like 90d or 12h. Nothing was made.", param="--expires") from None


def _document(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "admin": key.admin,
        "quota": key.quota or None,
        "note": key.note or None,
        "created_at": moment(key.created_at),
        "expires_at": moment(key.expires_at),
    }
