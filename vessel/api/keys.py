"""API keys: `vsl_ID_SECRET`. Redis holds an id and the secret's hash, so whoever reads Redis cannot call as anybody.

A secret has 256 random bits, so one SHA-256 is enough: there is nothing to guess, and no password to stretch.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from limits import parse_many

from vessel.errors import InvalidRequest, SettingsError
from vessel.keyspace.script import Call, command, pairs, word
from vessel.submit import DEFAULT_TENANT

if TYPE_CHECKING:
    from pathlib import Path

    from vessel.keyspace.names import Keys

PREFIX = "vsl_"
LONGEST = 256
_SHAPE = re.compile(r"vsl_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LONGEST_NOTE = 100
_FILE_SECRET = re.compile(r"vsl_[\x21-\x7e]{20,252}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept. Times are epoch milliseconds of Redis; `expires_at` 0: never."""

    id: str
    digest: str
    tenant: str = DEFAULT_TENANT
    note: str = ""
    admin: bool = False
    quota: str = ""
    created_at: int = 0
    expires_at: int = 0

    def __repr__(self) -> str:
        """Show its name only."""
        return f"ApiKey({self.id}, tenant={self.tenant})"

    def opens(self, secret: str, now_ms: int) -> bool:
        """Compare in constant time, whatever the key's age."""
        same = hmac.compare_digest(self.digest, digest(secret))
        return same and not (0 < self.expires_at <= now_ms)


NOBODY = ApiKey("", digest="0" * 64)
"""Stands for a key that does not exist, so that a wrong id takes as long as a wrong secret."""


def digest(secret: str) -> str:
    """Hash a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def make(
    now_ms: int, *, tenant: str, note: str = "", admin: bool = False, quota: str = "", lives_ms: int = 0
) -> tuple[ApiKey, str]:
    """Make a key and its text, which is kept nowhere. Raises InvalidRequest for a bad tenant or quota."""
    if not _TENANT.fullmatch(tenant):
        text = "tenant: 1 to 64 letters, digits, '_', '.' or '-', the first a letter or digit. Nothing was made."
        raise InvalidRequest(text, param="tenant")
    if len(note) > _LONGEST_NOTE or not note.isprintable():
        raise InvalidRequest(f"note: at most {_LONGEST_NOTE} printable characters. Nothing was made.", param="note")
    check_quota(quota)
    key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    made = ApiKey(key_id, digest(secret), tenant, note, admin, quota, now_ms, now_ms + lives_ms if lives_ms else 0)
    return made, f"{PREFIX}{key_id}_{secret}"


def check_quota(quota: str) -> None:
    """Make sure that a quota can be read. Raises InvalidRequest."""
    if not quota:
        return
    try:
        parse_many(quota)
    except ValueError:
        text = "quota: it must read like `60/minute` or `60/minute; 1000/day`. Nothing was made."
        raise InvalidRequest(text, param="quota") from None


def split(text: str) -> tuple[str, str]:
    """Part a key's text into id and secret; two empty texts for what is no key."""
    found = _SHAPE.fullmatch(text) if len(text) <= LONGEST else None
    return (found[1], found[2]) if found else ("", "")


def store(keys: Keys, key: ApiKey) -> Call[int]:
    """Keep a key."""
    kept = {name: value for name, value in asdict(key).items() if name != "id"}
    return command("HSET", keys.api_keys, key.id, json.dumps(kept), parse=int)


def find(keys: Keys, key_id: str) -> Call[ApiKey | None]:
    """Look a key up by its id."""
    return command("HGET", keys.api_keys, key_id or "-", parse=lambda raw: _read(key_id, raw) if raw else None)


def count(keys: Keys) -> Call[int]:
    """Count the keys there are."""
    return command("HLEN", keys.api_keys, parse=int)


def every(keys: Keys) -> Call[list[ApiKey]]:
    """List the keys, oldest first."""

    def parse(raw: Any) -> list[ApiKey]:
        found = (_read(key_id, value) for key_id, value in pairs(raw).items())
        return sorted(found, key=lambda key: key.created_at)

    return command("HGETALL", keys.api_keys, parse=parse)


def revoke(keys: Keys, key_id: str) -> Call[bool]:
    """Forget a key; it opens nothing from now on."""
    return command("HDEL", keys.api_keys, key_id or "-", parse=bool)


def _read(key_id: str, raw: bytes) -> ApiKey:
    return ApiKey(key_id, **json.loads(word(raw)))


class KeyFile:
    """A first key out of a file (VESSEL_API_KEY_FILE), read again when it changes. It may do everything."""

    def __init__(self, path: Path | None) -> None:
        """Read it. Raises SettingsError for one that cannot be used."""
        self.path = path
        self._seen: tuple[int, int] | None = None
        self._digest = ""
        if path is not None and not self._look():
            raise SettingsError(
                [
                    (
                        f"VESSEL_API_KEY_FILE: {path} cannot be read or holds no key; write one into it, alone: vsl_ "
                        "and at least 20 more printable characters without spaces"
                    )
                ]
            )

    def __bool__(self) -> bool:
        """Tell whether there is one."""
        return self.path is not None

    def opens(self, text: str) -> bool:
        """Compare in constant time."""
        self._look()
        return hmac.compare_digest(self._digest or NOBODY.digest, digest(text)) and bool(self._digest)

    def _look(self) -> bool:
        """Read the file where it has changed; a file that is away or spoilt leaves what was read last."""
        if self.path is None:
            return False
        try:
            stat = self.path.stat()
            if self._seen == (stat.st_mtime_ns, stat.st_size):
                return bool(self._digest)
            text = self.path.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return bool(self._digest)
        self._seen = (stat.st_mtime_ns, stat.st_size)
        if _FILE_SECRET.fullmatch(text):
            self._digest = digest(text)
        return bool(self._digest)
