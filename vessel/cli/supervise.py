"""`vessel up`: start the stack, say what runs, start again what crashes, and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vessel.api.tls import check_tls
from vessel.cli.faults import INTERRUPTED, BadUse
from vessel.cli.flower import flower_url
from vessel.cli.output import complain, emit, say
from vessel.cli.pack import Pack
from vessel.cli.preflight import check_redis, key_source, split_tiers
from vessel.cli.readiness import announce
from vessel.cli.simulated import forget_simulator, write_simulator
from vessel.cli.stack import Stack, default_groups
from vessel.embedded import EmbeddedServer, remove_server_file, write_server_file
from vessel.observe.logins import read_logins
from vessel.registry import Registry, load_registry
from vessel.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vessel.cli.stack import Child
    from vessel.settings import Settings

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
STABLE_S = 60.0
"""A child that ran for so long starts its pauses anew."""
TICK_S = 0.2


class StopAsked(BaseException):
    """A signal asks the stack to end; no error, so nothing that handles errors sees it."""


class Stopping:
    """Which signal, if any, has asked to stop."""

    def __init__(self) -> None:
        """Start with none."""
        self.asked: signal.Signals | None = None
        self._event = threading.Event()

    def check(self) -> None:
        """Raise StopAsked once a signal has come."""
        if self.asked is not None:
            raise StopAsked

    def sleep(self, seconds: float) -> None:
        """Wait, or less when a signal comes."""
        self._event.wait(seconds)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Take SIGTERM, SIGHUP and SIGINT over; a second one during the drain changes nothing."""
        numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
        before = {number: signal.signal(number, self._take) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, number: int, _frame: object) -> None:
        self.asked = self.asked or signal.Signals(number)
        self._event.set()


class Teller:
    """Tell what happens: lines for people, or one JSON document per event."""

    def __init__(self, *, as_json: bool) -> None:
        """Choose the form."""
        self.as_json = as_json

    def tell(self, event: str, text: str, **facts: Any) -> None:
        """Tell one thing."""
        if self.as_json:
            emit({"event": event, **facts})
        else:
            say(text)


def supervise(
    *, simulated: bool, groups: Sequence[str] | None, concurrency: int | None, flower: bool, as_json: bool
) -> int:
    """Run the stack until a signal. Raises SettingsError, NoKey, BadUse and Unreachable before anything is started."""
    settings = load_settings()
    check_tls(settings)
    registry = load_registry(settings.registry)
    chosen = _groups(groups, registry)
    if not simulated:
        key_source(settings)
    if flower:
        read_logins(settings.flower_auth_file)
    stopping, teller = Stopping(), Teller(as_json=as_json)
    with contextlib.ExitStack() as held:
        held.enter_context(stopping.signals())
        url, server = _redis(settings, held, teller)
        pack = held.enter_context(Pack())
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="vessel-")))
        stack = Stack(pack, settings, url, folder)
        held.callback(forget_simulator, settings.data_dir, os.getpid())
        with contextlib.suppress(StopAsked):
            _bring_up(
                stack,
                registry,
                chosen,
                concurrency or settings.concurrency,
                stopping,
                teller,
                simulated=simulated,
                flower=flower,
            )
            while True:
                stopping.check()
                _keep_alive(server, teller)
                _look_after(stack, stopping, teller)
                stopping.sleep(TICK_S)
        teller.tell("stopping", "Stopping: running calls end, nothing new starts.")
        killed = stack.stop()
        if killed:
            complain(f"vessel: {len(killed)} processes did not stop in {pack.grace_s:g} s and were killed.")
        teller.tell("stopped", "Stopped.", killed=len(killed))
    return INTERRUPTED if stopping.asked is signal.SIGINT else 0


def _groups(given: Sequence[str] | None, registry: Registry) -> tuple[tuple[str, ...], ...]:
    if not given:
        return default_groups(tuple(registry.tiers))
    chosen = tuple(split_tiers(text, registry, option="--group") for text in given)
    names = [name for group in chosen for name in group]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise BadUse(f"--group: tier {twice} is in two groups. Nothing was started.", param="--group")
    return chosen


def _redis(settings: Settings, held: contextlib.ExitStack, teller: Teller) -> tuple[str, EmbeddedServer | None]:
    """Use the Redis that is set, or start one of our own, and say which."""
    if settings.redis_url is not None:
        check_redis(settings.redis_url)
        write_server_file(settings.data_dir, settings.redis_url, os.getpid())
        held.callback(remove_server_file, settings.data_dir, os.getpid())
        teller.tell("redis", "Redis: the one named by VESSEL_REDIS_URL", kind="external")
        return settings.redis_url, None
    server = held.enter_context(EmbeddedServer(settings.data_dir))
    teller.tell("redis", f"Redis: embedded {server.kind}, data in {server.directory}", kind="embedded",
                server=server.kind, directory=str(server.directory))  # fmt: skip
    return server.url, server


def _bring_up(
    stack: Stack,
    registry: Registry,
    groups: tuple[tuple[str, ...], ...],
    slots: int,
    stopping: Stopping,
    teller: Teller,
    *,
    simulated: bool,
    flower: bool,
) -> None:
    if simulated:
        stack.start_simulator()
        write_simulator(stack.settings.data_dir, stack.groq_url or "", os.getpid())
        teller.tell("simulator", f"Upstream: a simulator on {stack.groq_url}; nothing is sent to Groq",
                    url=stack.groq_url)  # fmt: skip
    token = secrets.token_hex(4)
    stack.start_workers(groups, slots=slots, token=token)
    stack.start_scheduler()
    stack.start_api()
    stack.start_mcp()
    sys.stdout.flush()

    def look() -> None:
        stopping.check()
        _look_after(stack, stopping, teller)

    stack.await_workers(groups, token, look)
    if flower:  # now that there are workers to ask
        _start_flower(stack, teller)
    availability = stack.await_models(look)
    announce(stack, registry, availability, groups, as_json=teller.as_json)


def _start_flower(stack: Stack, teller: Teller) -> None:
    stack.start_flower()
    url, login = flower_url(stack.settings), stack.settings.flower_auth_file is not None
    teller.tell("flower", f"Flower: {url}", url=url, login=login)


def _keep_alive(server: EmbeddedServer | None, teller: Teller) -> None:
    """Start our own Redis again when it has died; what it had acknowledged a second before is on disk."""
    if server is not None and server.revive():
        teller.tell("redis", "Redis has died and was started again; nothing that was accepted is lost but for its last "
                    "second.", kind="embedded", directory=str(server.directory))  # fmt: skip


def _look_after(stack: Stack, stopping: Stopping, teller: Teller) -> None:
    """Start crashed children again, later each time."""
    now = time.monotonic()
    for child in stack.children:
        if child.process is None or stopping.asked is not None:
            continue
        if child.restart_at is not None:
            if now >= child.restart_at:
                stack.restart(child)
        elif (code := child.process.poll()) is not None:
            _plan_restart(child, code, now, teller)


def _plan_restart(child: Child, code: int, now: float, teller: Teller) -> None:
    child.crashes = 1 if now - child.started_at > STABLE_S else child.crashes + 1
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (child.crashes - 1))
    child.restart_at = now + pause
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
    teller.tell("restarting", f"{child.name} {how}; starting it again in {pause:g} s.", child=child.name, code=code,
                pause_s=pause)  # fmt: skip
