"""Code out of Markdown (CommonMark 4.5, fenced code blocks)."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^(?P<indent> {0,3})(?P<marks>`{3,}|~{3,})(?P<info>.*)$")


def fenced(code: str) -> str:
    """Put code into a fence that is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    marks = "`" * max(3, longest + 1)
    return f"{marks}\n{code}\n{marks}"


def unfenced(text: str) -> str:
    """Return what stands inside fenced blocks, joined by an empty line; a text without a fence comes back stripped.

    A block that was cut off before its closing fence counts to the end.
    """
    blocks: list[list[str]] = []
    marks = indent = ""
    for line in text.splitlines():
        found = _FENCE.match(line)
        if marks:
            if found and found["marks"].startswith(marks) and not found["info"].strip():
                marks = ""
            else:
                blocks[-1].append(line.removeprefix(indent))
        elif found and not (found["marks"][0] == "`" and "`" in found["info"]):
            marks, indent = found["marks"], found["indent"]
            blocks.append([])
    if not blocks:
        return text.strip()
    return "\n\n".join("\n".join(block) for block in blocks)
