"""JSON as Groq's Go servers write it: compact, with a newline at the end."""

from __future__ import annotations

import json
from typing import Any

_encode = json.JSONEncoder(separators=(",", ":")).encode


def encode(value: Any) -> bytes:
    """Write an answer's body; beyond ASCII as escapes, so that every text a request can hold comes back."""
    return (_encode(value) + "\n").encode("ascii")


def encode_text(value: Any) -> str:
    """Write JSON for a line of text."""
    return _encode(value)
