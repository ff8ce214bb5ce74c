"""The processes of a vessel, started together: simulator, workers by tier group, scheduler."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from vessel.cli.launch import (
    api_command,
    child_environment,
    flower_command,
    mcp_command,
    scheduler_command,
    simulator_command,
    without_keys,
    worker_command,
)
from vessel.errors import Unreachable
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.script import command, words
from vessel.submit import Door

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vessel.cli.pack import Pack
    from vessel.keyspace.script import Call
    from vessel.registry import Availability
    from vessel.settings import Settings

GROUPS = (("ultra_fast", "speed_demon"), ("balanced", "power"), ("compound", "compound_mini"))
"""Which tiers share a process unless told otherwise: those alike in speed and in the length of their answers."""
READY_S = 60.0
LOOK_S = 0.05
LIST_S = 10.0
"""How long to wait for the upstream's list of models, which only the counts of the readiness message need."""


def default_groups(tiers: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Group the tiers of a registry; those it adds share one more process."""
    known = [tuple(name for name in group if name in tiers) for group in GROUPS]
    others = tuple(name for name in tiers if not any(name in group for group in known))
    return tuple(group for group in (*known, others) if group)


@dataclass(slots=True)
class Child:
    """A process that is to run for as long as the stack does."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    crashes: int = 0
    restart_at: float | None = None


@dataclass(slots=True)
class Stack:
    """What runs, by name; `log` takes the children's output, standard error without one."""

    pack: Pack
    settings: Settings
    redis_url: str
    folder: Path
    log: IO[bytes] | None = None
    base: Mapping[str, str] | None = None
    """The environment to start from; ours without one."""
    groq_url: str | None = None
    children: list[Child] = field(default_factory=list)

    def start_simulator(self, *, latency_scale: float = 1.0) -> None:
        """Start the simulator and wait until it listens. Raises Unreachable."""
        url_file = self.folder / "simulator.url"
        url_file.unlink(missing_ok=True)
        command = simulator_command(url_file, latency_scale=latency_scale)
        child = self._start("simulator", command, child_environment(self.redis_url, base=self.base))
        until = time.monotonic() + READY_S
        while not url_file.exists():
            if not _runs(child) or time.monotonic() > until:
                raise Unreachable("The simulator did not start. Its own words stand above.")
            time.sleep(LOOK_S)
        self.groq_url = url_file.read_text("utf-8")
        port = int(self.groq_url.rpartition(":")[2])
        # Started anew, it has to come back where the workers look for it.
        child.command = simulator_command(url_file, port=port, latency_scale=latency_scale)

    def start_workers(self, groups: Sequence[Sequence[str]], *, slots: int, token: str) -> None:
        """Start one worker process per group; `token` tells its nodes from those of other stacks."""
        for group in groups:
            name = f"{group[0]}-{token}"
            command = worker_command(group, concurrency=slots, name=name)
            self._start(f"worker {','.join(group)}", command, self.environment())

    def start_scheduler(self) -> None:
        """Start the scheduler."""
        self._start("scheduler", scheduler_command(), self.environment())

    def start_api(self) -> None:
        """Start the REST face; it says itself where it listens."""
        self._start("api", api_command(), self.environment())

    def start_mcp(self) -> None:
        """Start the MCP face over HTTP; it says itself where it listens."""
        self._start("mcp", mcp_command(), self.environment())

    def start_flower(self) -> None:
        """Start Flower, read-only; with the login that is set."""
        self._start("flower", flower_command(), without_keys(self.environment()))

    def environment(self) -> Mapping[str, str]:
        """Build what workers and the scheduler see."""
        return child_environment(self.redis_url, base=self.base, groq_url=self.groq_url)

    def await_workers(self, groups: Sequence[Sequence[str]], token: str, look: Callable[[], None]) -> None:
        """Wait for a heartbeat of every tier from this stack's own workers; `look` is called meanwhile."""
        door = Door(self.settings)
        with contextlib.closing(connect(self.redis_url)) as client:
            runner = SyncRunner(client)
            until = time.monotonic() + READY_S
            wanted = {tier: f"{group[0]}-{token}@" for group in groups for tier in group}
            while wanted:
                members = runner.run_all([_members(door.keys.live(tier)) for tier in wanted])
                wanted = {
                    tier: node
                    for (tier, node), found in zip(list(wanted.items()), members, strict=True)
                    if not any(name.startswith(node) for name in found)
                }
                look()
                if wanted and time.monotonic() > until:
                    raise Unreachable(f"No worker came up for {', '.join(wanted)}. Their own words stand above.")
                time.sleep(LOOK_S)

    def await_models(self, look: Callable[[], None]) -> Availability:
        """Wait a little for the upstream's list of models and return what is known then."""
        door = Door(self.settings)
        with contextlib.closing(connect(self.redis_url)) as client:
            runner = SyncRunner(client)
            until = time.monotonic() + LIST_S
            while (known := runner.run(door.availability())).listed is None and time.monotonic() < until:
                look()
                time.sleep(LOOK_S)
        return known

    def _start(self, name: str, command: list[str], environment: Mapping[str, str]) -> Child:
        child = Child(name, command, environment)
        self.children.append(child)
        self.restart(child)
        return child

    def restart(self, child: Child) -> None:
        """Start a child, for the first time or again."""
        child.process = self.pack.start(child.command, child.environment, log=self.log)
        child.started_at, child.restart_at = time.monotonic(), None

    def stop(self) -> list[int]:
        """Drain the workers, then end the rest; returns the pids that had to be killed."""
        running = [c for c in self.children if c.process is not None]
        last = [c.process for c in running if c.name == "simulator"]
        first = [c.process for c in running if c.name != "simulator"]
        return [*self.pack.stop([p for p in first if p]), *self.pack.stop([p for p in last if p])]


def _runs(child: Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _members(name: str) -> Call[list[str]]:
    return command("ZRANGE", name, 0, -1, parse=words)
