"""Commands and programs at a fraction of their cost: forked from a process that has imported Vessel once.

What runs is what `vessel` runs, with arguments, environment, folder and streams of its own; only the second that each
start takes to import the same modules is saved. `python -m tests.integration.forking SOCKET` is that process.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
MOST_BYTES = 1 << 20
CLIENT = """#!{python} -SEs
import json, os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect({socket!r})
words = {words} + sys.argv[1:]
socket.send_fds(door, [b"."], [0, 1, 2])
door.sendall(json.dumps([words, dict(os.environ), os.getcwd()]).encode())
door.shutdown(socket.SHUT_WR)
sys.exit(int(door.recv(8) or b"70"))
"""


class Forks:
    """The process that forks, and a folder with a `vessel` and a `python` that ask it."""

    def __init__(self, folder: Path) -> None:
        """Start it; the first command waits until it has imported everything."""
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        path = str(folder / "forks")
        for name in ("vessel", "python"):
            script = self.bin / name
            script.write_text(CLIENT.format(python=sys.executable, socket=path, words=[name]), "utf-8")
            script.chmod(0o755)
        with socket.socket(socket.AF_UNIX) as door:  # closed here, so that nobody waits for a process that has died
            door.bind(path)
            door.listen(16)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.forking", str(door.fileno())],
                pass_fds=[door.fileno()],
                cwd=ROOT,
            )

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it; what it forked has ended, as somebody waited for each."""
        self._process.terminate()
        self._process.wait(20)

    def run(self, kind: str, text: str, env: Mapping[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run a block of shell or Python to its end."""
        command = ["/bin/bash", "-euo", "pipefail", "-c", text] if kind == "sh" else [str(self.bin / "python"), text]
        paths = (self.bin, Path(sys.executable).parent, "/usr/bin", "/bin")
        return subprocess.run(
            command, env={**env, "PATH": ":".join(map(str, paths))}, cwd=folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip


def _serve(door: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asking, _ = door.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            door.close()
            _attend(asking)
        asking.close()


def _attend(asking: socket.socket) -> NoReturn:
    """Fork what is asked for, and tell how it ended."""
    _, fds, _, _ = socket.recv_fds(asking, 1, 3)
    told = b""
    while part := asking.recv(MOST_BYTES):
        told += part
    child = os.fork()
    if child == 0:
        asking.close()
        _become(fds, *json.loads(told))
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with suppress(OSError):
        asking.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _become(fds: list[int], words: list[str], env: dict[str, str], folder: str) -> NoReturn:
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    sys.stdin, sys.stdout, sys.stderr = (open(n, mode, encoding="utf-8") for n, mode in enumerate("rww"))  # noqa: PTH123, SIM115  streams
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    code = 1
    try:
        code = _vessel(words[1:]) if words[0] == "vessel" else _python(words[1])
    except BaseException:  # noqa: BLE001  as the interpreter would
        traceback.print_exc()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _vessel(arguments: list[str]) -> int:
    from vessel.cli import main  # noqa: PLC0415  only the process that forks

    return main.run(arguments)


def _python(text: str) -> int:
    names = {"__name__": "__main__"}
    exec(compile(text, "block", "exec"), names)  # noqa: S102  a block of the documentation
    return 0


def _import_all() -> None:
    """Import what commands import when they run."""
    import_module("groq_vessel")
    for path in sorted((ROOT / "vessel" / "cli").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        import_module(".".join(part for part in parts if part != "__init__"))
    for name in ("rich.table", "rich.box", "rich.console", "openai", "groq", "vessel.watch.tokens"):
        import_module(name)


if __name__ == "__main__":
    _import_all()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
