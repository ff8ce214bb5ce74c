"""What is told to systemd: readiness, one line of status, and signs of life that stop when a loop does."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest

from vessel.observe import systemd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen where systemd would."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setattr(systemd, "_notifier", None)
        yield listening
        if systemd._notifier is not None:
            systemd._notifier.socket.close()


def _heard(listener: socket.socket) -> list[str]:
    return listener.recv(4096).decode().split("\n")


def test_each_state_comes_with_one_line_of_status(listener: socket.socket) -> None:
    """A status of several lines would be read as further assignments."""
    systemd.ready("serves power\nREADY=0")
    assert _heard(listener) == ["READY=1", "STATUS=serves power READY=0"]
    systemd.stopping("drains")
    assert _heard(listener) == ["STOPPING=1", "STATUS=drains"]


def test_nobody_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside systemd everything is silent and nothing fails."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not systemd.tell("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "expected"),
    [("30000000", "", 30.0), ("30000000", "own", 30.0), ("30000000", "1", None), ("0", "", None), ("", "", None)],
)
def test_the_watchdog_is_for_one_process(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, expected: float | None
) -> None:
    """A child that inherited the variables gives no signs of life in its parent's name."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert systemd.watchdog_s() == expected


def test_a_beat_stops_when_the_other_loop_does(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that turns but whose neighbour is stuck gives no sign of life; one at rest is not watched."""
    monkeypatch.setenv("WATCHDOG_USEC", "3000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    pulse = systemd.Pulse()

    async def beats() -> bool:
        """Empty what was told and see whether more comes."""
        listener.setblocking(False)  # noqa: FBT003  the socket's own signature
        with suppress(BlockingIOError):
            while True:
                listener.recv(4096)
        await asyncio.sleep(0.02)
        with suppress(BlockingIOError):
            return listener.recv(4096) == b"WATCHDOG=1"
        return False

    async def watch() -> None:
        beating = asyncio.ensure_future(systemd.beat(pulse))
        try:
            assert await beats()
            pulse.touch()
            await asyncio.sleep(0.02)
            assert not await beats()
            pulse.rest()
            assert await beats()
        finally:
            beating.cancel()

    asyncio.run(watch())
