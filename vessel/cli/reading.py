"""What commands read: prompts, hints and files of requests, from arguments or standard input."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

from vessel.cli.faults import BadUse

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

STDIN = "-"
COMPLETIONS = "/v1/chat/completions"
MOST_BYTES = 200 << 20
"""What one command reads at most, as a Groq batch file; an endless stream is refused before it fills the memory."""


def given(**options: Any) -> dict[str, Any]:
    """Keep the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def prompt_text(text: str) -> str:
    """Return the prompt, read from standard input where it is `-`. Raises BadUse for an empty or unreadable one."""
    if text != STDIN:
        found = text
    else:
        try:
            found = _stdin().decode().removesuffix("\n")
        except UnicodeDecodeError:
            raise BadUse("Standard input is not UTF-8 text. Nothing was sent.", param="TEXT") from None
    if not found.strip():
        raise BadUse("The prompt is empty. Nothing was sent. Give a text, or - to read standard input.", param="TEXT")
    return found


def words(given: Sequence[str]) -> list[str]:
    """Return the words given, those of standard input in the place of `-`."""
    found: list[str] = []
    for word in given:
        found += _stdin().decode(errors="replace").split() if word == STDIN else [word]
    return list(dict.fromkeys(found))


def context(pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """Read `k=v` hints; a value that is JSON (true, 3) counts as such, and `k` alone means true. Raises BadUse."""
    if not pairs:
        return None
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name:
            raise BadUse("--context: write NAME=VALUE, for example requires_tools=true.", param="--context")
        found[name] = _value(value) if equals else True
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a UTF-8 file (`-`: standard input) that are not blank. Raises BadUse."""
    try:
        raw = _stdin() if str(file) == STDIN else _file(file)
    except OSError as error:
        raise BadUse(f"{file} cannot be read: {error.strerror}. Nothing was sent.", param="--file") from None
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if line.strip():
            try:
                yield number, line.decode()
            except UnicodeDecodeError:
                raise BadUse(f"{file}: line {number} is not UTF-8. Nothing was sent.", param="--file") from None


def request_line(text: str) -> dict[str, Any]:
    """Read one line: a chat body, `{"prompt": ...}`, or a line of a Groq batch file. Raises ValueError."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({getattr(error, 'msg', 'nested too deeply')})") from None
    if not isinstance(found, dict):
        raise ValueError("it must be a JSON object")  # noqa: TRY004  a fault of the line, told with its number
    if "body" in found and "messages" not in found:
        if found.get("method", "POST") != "POST" or not str(found.get("url", COMPLETIONS)).endswith(COMPLETIONS):
            raise ValueError(f"only POST {COMPLETIONS} is served")
        if not isinstance(found["body"], dict):
            raise ValueError("its body must be a JSON object")
    elif not ("messages" in found or "prompt" in found):
        raise ValueError("it has neither `messages` nor `prompt` nor `body`")
    return found


def _stdin() -> bytes:
    if sys.stdin is None or sys.stdin.closed:
        raise BadUse("Standard input is closed, so nothing can be read from it.")
    if sys.stdin.isatty():
        end = "Ctrl-Z and Enter" if os.name == "nt" else "Ctrl-D"
        sys.stderr.write(f"Reading standard input; end with {end}.\n")
    return _bounded(sys.stdin.buffer, "Standard input")


def _file(file: Path) -> bytes:
    with file.open("rb") as source:
        return _bounded(source, str(file))


def _bounded(source: BinaryIO, name: str) -> bytes:
    found = source.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise BadUse(f"{name} holds more than {MOST_BYTES >> 20} MiB. Nothing was sent. Split it.")
    return found
