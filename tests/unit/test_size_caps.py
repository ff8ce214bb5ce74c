"""Functions stay short enough to be read at once; loq caps the files."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("vessel", "workers", "tests", "bench")
MAX_LINES = 50


def _long_functions(path: Path) -> list[str]:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lengths = {
        f"{path.relative_to(ROOT)}:{f.lineno} {f.name}": (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions
    }
    return [f"{place}: {lines} lines" for place, lines in lengths.items() if lines > MAX_LINES]


def test_no_function_is_longer_than_fifty_lines() -> None:
    """Every function of the product, its tests and its benchmarks has at most 50 lines, its docstring included."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert files
    assert [place for path in files for place in _long_functions(path)] == []
