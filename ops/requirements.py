"""Print what a pyproject.toml depends on, for an image that installs it before the code."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def main(file: str, *extras: str) -> None:
    """Print one requirement per line."""
    project = tomllib.loads(Path(file).read_text("utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
