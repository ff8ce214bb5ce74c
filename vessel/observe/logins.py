"""Who may look at Flower: lines of user:password in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_LINE = 512


def read_logins(path: Path | None) -> list[str]:
    """Read `user:password` lines. Raises SettingsError for a file that cannot be used; no line is quoted."""
    if path is None:
        return []
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError([f"VESSEL_FLOWER_AUTH_FILE: {path} cannot be read ({why})"]) from None
    if not lines or not all(_is_login(line) for line in lines):
        raise SettingsError(
            [
                (
                    f"VESSEL_FLOWER_AUTH_FILE: {path} must hold lines of the form user:password, both of printable "
                    "characters and neither empty"
                )
            ]
        )
    return lines


def _is_login(line: str) -> bool:
    user, colon, password = line.partition(":")
    return bool(user and colon and password) and line.isprintable() and len(line) <= LONGEST_LINE
