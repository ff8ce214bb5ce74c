"""API keys and the organisations they belong to: limits are an organisation's, whichever key is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_ORG = "org_01simulated000000000000000"
_OPEN_PREFIXES = ("gsk_", "sim-")


class KeyRing:
    """Which keys are good: those listed, or, with none listed, every `gsk_...` and `sim-...`.

    A key is written `KEY` or `ORG:KEY`; without an organisation it belongs to the default one.
    """

    def __init__(self, keys: Iterable[str], org: str) -> None:
        """Accept these keys."""
        self.org = org
        self.listed: dict[str, str] = {}
        self.revoked: set[str] = set()
        self._known: dict[bytes, str] = {}
        self.open = True
        self.add(keys)
        self.open = not self.listed

    def add(self, keys: Iterable[str]) -> None:
        """Accept more keys, or accept revoked ones again."""
        for entry in keys:
            org, _, key = entry.rpartition(":")
            self.listed[key] = org or self.org
            self.revoked.discard(key)
        self._known.clear()

    def revoke(self, keys: Iterable[str]) -> None:
        """Refuse these keys from now on."""
        self.revoked.update(keys)
        self._known.clear()

    def restrict(self, *, only_listed: bool) -> None:
        """Accept listed keys alone, or every key of the usual form too."""
        self.open = not only_listed
        self._known.clear()

    def org_of(self, authorization: bytes) -> str | None:
        """Return the organisation behind an Authorization header, None when its key is not good."""
        org = self._known.get(authorization)
        if org is None and (org := self._find(authorization)) is not None:
            self._known[authorization] = org
        return org

    def _find(self, authorization: bytes) -> str | None:
        scheme, _, key = authorization.decode("latin-1").partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not key or key in self.revoked:
            return None
        if key in self.listed:
            return self.listed[key]
        return self.org if self.open and key.startswith(_OPEN_PREFIXES) else None
