"""What is asked of a boot verification, what a step found, and what all of them have learned."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vessel.cli.check_cures import Cures
from vessel.cli.faults import FAILED

if TYPE_CHECKING:
    from vessel.cli.installed import Installation
    from vessel.client import Result
    from vessel.keyspace.connect import SyncRunner
    from vessel.keyspace.server import Server
    from vessel.registry import Availability
    from vessel.settings import Settings


@dataclass(frozen=True, slots=True)
class Step:
    """What one step found; `ok` None: not looked at, for the reason in `text`; `code` is for programs."""

    name: str
    title: str
    ok: bool | None
    text: str
    code: str | None = None
    cure: str = ""
    exit_code: int = FAILED
    waits: bool = True
    """Whether it may come right by itself within the deadline of a boot."""


def passed(name: str, title: str, text: str) -> Step:
    """Say that all is well."""
    return Step(name, title, ok=True, text=text)


def skipped(name: str, title: str, text: str) -> Step:
    """Say why something was not looked at."""
    return Step(name, title, ok=None, text=text)


def failed(
    name: str, title: str, text: str, code: str, cure: str, exit_code: int = FAILED, *, waits: bool = True
) -> Step:
    """Say what is wrong and what to do about it."""
    return Step(name, title, ok=False, text=text, code=code, cure=cure, exit_code=exit_code, waits=waits)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for: which tiers must be served, which services must answer, whether a test call is made."""

    settings: Settings
    tiers: tuple[str, ...]
    expected: frozenset[str]
    inference: bool
    inference_s: float
    units: bool = False
    """Whether systemd's units of Vessel have to be active; the cures then name them."""
    patient: bool = True
    """Whether workers and sweeper have a moment to show that they live; a boot repeats the whole look instead."""


@dataclass(slots=True)
class Seen:
    """What the steps have learned, for each other and for the readiness message."""

    steps: list[Step] = field(default_factory=list)
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    redis: SyncRunner | None = None
    server: Server | None = None
    availability: Availability | None = None
    faces: dict[str, str] = field(default_factory=dict)
    """The addresses of the faces that answer, by name."""
    result: Result | None = None
    last: bool = True
    """Whether this is the last look, which tells all that can be told."""
    simulator: str | None = None
    installation: Installation | None = None
    cures: Cures = field(default_factory=Cures)

    @property
    def failed(self) -> list[Step]:
        """Return the steps that failed."""
        return [step for step in self.steps if step.ok is False]

    @property
    def full(self) -> bool:
        """Tell whether Redis has no memory left, so that processes cannot tell it that they live."""
        return any(step.code == "redis_full" for step in self.steps)
