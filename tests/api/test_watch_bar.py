"""`vessel batch watch` on a terminal of its own: a live bar there, and one line that stays."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.api.serving import Served

LINES = 40
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(command: list[str], env: dict[str, str], columns: int) -> tuple[int, str, str]:
    """Run a command whose stderr is a terminal: its exit code, its stdout, and what the terminal got."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=theirs, stdin=theirs, text=True) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # Linux: how a terminal says that its last user has gone
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
        assert process.stdout is not None
        out = process.stdout.read()
    return process.returncode, out, ESCAPES.sub(b"", shown).decode()


@pytest.mark.parametrize("columns", [100, 50])
def test_a_bar_shows_counts_tokens_cost_and_clears_itself(served: Served, tmp_path: Path, columns: int) -> None:
    """Whatever the width the counts are whole and every frame fits; the terminal keeps only the last line."""
    body = {"model": "openai/gpt-oss-20b", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}
    rows = [{"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body} for n in range(LINES)]
    file = tmp_path / "in.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    batch_id = served.run_cli("batch", "submit", str(file))["id"]
    command = [sys.executable, "-m", "vessel.cli.main", "batch", "watch", batch_id]
    env = {name: value for name, value in served.environment().items() if name not in {"COLUMNS", "LINES"}}
    code, out, shown = on_terminal(command, env | {"TERM": "xterm"}, columns)
    *frames, way_on = [frame for frame in re.split(r"[\r\n]+", shown) if frame.strip()]
    assert code == 0
    assert re.fullmatch(rf"completed: {LINES} completed, 0 failed of {LINES}; [\d,]+ tokens, 0\.\d+ USD\n", out)
    assert f"`vessel batch results {batch_id}`" in way_on
    assert re.search(rf"{LINES}/{LINES} 0 failed  [\d,]+ tokens  \$0", frames[-1])
    assert not [frame for frame in frames if len(frame) > columns or not re.search(rf"\d+/{LINES}", frame)]
