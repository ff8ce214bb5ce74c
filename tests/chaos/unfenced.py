"""The worker's app with the fence of `claim` switched off: proof that the judge can fail."""

from __future__ import annotations

import dataclasses
import hashlib

from vessel.keyspace import script
from workers.app import app

_fenced = script.load("claim")
_text = _fenced.text.replace("if not among(from, held[1]) then", "if false then").replace(
    "if tonumber(held[2]) ~= tonumber(ticket_generation) then", "if false then"
)
if _text == _fenced.text:
    raise RuntimeError("claim.lua has changed: its fence was not found")


def _load(name: str) -> script.Script:
    loaded = _fenced_load(name)
    if name != "claim":
        return loaded
    sha = hashlib.sha1(_text.encode(), usedforsecurity=False).hexdigest()
    return dataclasses.replace(loaded, text=_text, sha=sha)


_fenced_load = script.load
script.load = _load  # type: ignore[assignment]  # a stand-in of the same signature

import vessel.jobs.store  # noqa: E402  after the fence is gone

vessel.jobs.store.load = _load  # type: ignore[assignment,attr-defined]  # it was imported by name

__all__ = ["app"]
