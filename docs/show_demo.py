"""Put the output of a real `vessel demo` into the README, unless only its figures would change."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- demo -->\n```text\n", "```\n<!-- /demo -->"
FIGURES = re.compile(r"[\d.,]+|vessel-demo-\w+| +|─+")


def main() -> None:
    """Run the demonstration and replace what stands between the marks."""
    # Without a PATH no Redis of this machine is found, so it is the shipped server that shows.
    environment = {"PATH": "", "COLUMNS": "100", "PYTHONUTF8": "1", "HOME": os.environ.get("HOME", "")}
    command = [sys.executable, "-m", "vessel.cli.main", "demo"]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout  # noqa: S603  ours
    shown = "".join(f"{line.rstrip()}\n" for line in shown.splitlines())
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    if FIGURES.sub("", old) != FIGURES.sub("", shown):
        README.write_text(before + BEGIN + shown + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
