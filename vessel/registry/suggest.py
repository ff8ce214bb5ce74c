"""Name what somebody probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def suggest(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean ...?` with up to three known names that look alike, or nothing.

    A model's id is also found without its owner: `gpt-oss-20b` means `openai/gpt-oss-20b`.
    """
    names = {key.lower(): key for key in known}
    asked = name.strip().lower()
    ends = {key.rsplit("/", 1)[-1]: key for key in names}
    if asked in ends:
        near = [ends[asked]]
    else:
        near = [key for key in names if len(asked) > 3 and asked in key]  # noqa: PLR2004  shorter parts are in everything
        near = near or get_close_matches(asked, names, n=3)
        near = near or [ends[end] for end in get_close_matches(asked, ends, n=3)]
    found = list(dict.fromkeys(names[key] for key in near))[:3]
    return f" Did you mean {' or '.join(found)}?" if found else ""


def no_tier(tier: str, known: Iterable[str]) -> str:
    """Say that there is no such tier, and which may be meant."""
    return f"There is no tier {tier!r}.{suggest(tier, known)}"
