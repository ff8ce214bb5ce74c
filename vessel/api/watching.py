"""One look a second for all viewers of a process, and only while somebody looks."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vessel.api.overview import Overview
from vessel.api.own import OpenBatches, Own
from vessel.api.spending import ENTRIES_BEHIND, Spending
from vessel.errors import VesselError
from vessel.keyspace.script import known
from vessel.keyspace.server import clock
from vessel.observe.logs import get_logger
from vessel.observe.moments import moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from vessel.api.session import Session

log = get_logger(__name__)
TICK_S = 1.0
SCRIPTS = ("alive", "look")
"""Scripts of a look: Redis takes longer to read them for the first time than for anything that a look asks."""

TENANTS_KNOWN = 200
TENANTS_AT_ONCE = 3
"""Tenants whose own work is read in a look; with more of them looking each has its turn."""

Sections = dict[str, str]
"""The page's sections by name, each as JSON text."""


@dataclass(slots=True)
class Frame:
    """What was seen in a tick: sections that all see, and those of each tenant that is looking."""

    at: float
    common: Sections = field(default_factory=dict)
    own: dict[str, Sections] = field(default_factory=dict)

    def of(self, tenant: str) -> Sections:
        """Return what a tenant sees."""
        return self.common | self.own.get(tenant, {})


class Watching:
    """The looks of a process: shared by its viewers, begun by the first one and ended with the last one."""

    def __init__(self, session: Session) -> None:
        """Take the way to Redis; nothing is read before somebody looks."""
        self._session = session
        self._overview = Overview(session.door)
        self._spending = Spending(session.door)
        self._open = OpenBatches(session.door)
        self._looked: dict[str, float] = {}
        self._known: OrderedDict[str, Own] = OrderedDict()
        self._viewers: Counter[str] = Counter()
        self._frame = Frame(-TICK_S)
        self._news = asyncio.Condition()
        self._kick = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def follow(self, tenant: str) -> AsyncIterator[Sections]:
        """Yield what a tenant sees, whole, once a tick for as long as it is iterated."""
        self._viewers[tenant] += 1
        last: Frame | None = None
        try:
            if tenant not in self._frame.own or time.monotonic() - self._frame.at > TICK_S:
                last = self._frame
                self._kick.set()
            self._start()
            while True:
                async with self._news:
                    while self._frame is last or tenant not in self._frame.own:
                        await self._news.wait()
                last = self._frame
                yield last.of(tenant)
        finally:
            self._viewers[tenant] -= 1
            if not self._viewers[tenant]:
                del self._viewers[tenant]

    async def prepare(self) -> None:
        """Make Redis know the scripts of a look before the first one; without Redis nothing is done."""
        with suppress(VesselError):
            await self._session.runner.run_all([known(name) for name in SCRIPTS])

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._session.tasks.add(self._task)
            self._task.add_done_callback(self._session.tasks.discard)

    async def _run(self) -> None:
        while self._viewers:
            began = time.monotonic()
            self._kick.clear()
            # Tenants whose turn it is not see what they saw.
            frame = Frame(began, own={t: seen for t, seen in self._frame.own.items() if t in self._viewers})
            try:
                await self._look(frame)
            except VesselError as error:
                frame = self._away(frame, error)
            except Exception as error:  # a fault in one look must not end the page for good
                log.exception("console.fault")
                frame = self._away(frame, error)
            async with self._news:
                self._frame = frame
                self._news.notify_all()
            left = max(0.05, TICK_S - (time.monotonic() - began))
            if not await self._kicked(left / 2):
                await self._catch_up()
                await self._kicked(left / 2)

    async def _kicked(self, within_s: float) -> bool:
        """Wait until somebody comes who has seen nothing yet, or for a time."""
        try:
            async with asyncio.timeout(within_s):
                await self._kick.wait()
        except TimeoutError:
            return False
        return True

    async def _catch_up(self) -> None:
        """Read on in a ledger that one look could not end: between looks, so that none of them costs much at once."""
        if not (self._spending.behind and self._viewers):
            return
        with suppress(Exception):  # whatever it is, the next look meets it as well, and tells
            await self._session.run(self._spending.read(await self._session.runner.run(clock()), ENTRIES_BEHIND))

    async def _look(self, frame: Frame) -> None:
        run = self._session.run
        now = await self._session.runner.run(clock())
        await run(self._spending.read(now))
        seen = await run(self._overview.look(self._spending.per_minute()))
        frame.common = _written({**seen.sections,
            "clock": {"at": moment(seen.now), "redis": True, "why": None}, "traces": self._spending.traces(seen.now),
        })  # fmt: skip
        await run(self._open.look())
        for tenant in self._due():
            sections = await run(self._own(tenant).look(seen.now))
            frame.own[tenant] = _written(sections | {"spending": self._spending.document(tenant)})
            self._looked[tenant] = frame.at

    def _due(self) -> list[str]:
        """Name the tenants to look at: whoever just came, and of the others those whose look is the oldest."""
        tenants = list(self._viewers)
        self._looked = {tenant: self._looked[tenant] for tenant in tenants if tenant in self._looked}
        new = [tenant for tenant in tenants if tenant not in self._looked]
        return new + sorted(self._looked, key=self._looked.__getitem__)[: max(0, TENANTS_AT_ONCE - len(new))]

    def _away(self, frame: Frame, error: Exception) -> Frame:
        """Keep what was seen last, and say that it is old."""
        text = str(error) if isinstance(error, VesselError) else "The console met a fault of its own; it tries again."
        before = self._frame
        at = json.loads(before.common["clock"])["at"] if "clock" in before.common else None
        frame.common = before.common | _written({"clock": {"at": at, "redis": False, "why": text}})
        frame.own = {tenant: before.own.get(tenant, {}) for tenant in self._viewers}
        return frame

    def _own(self, tenant: str) -> Own:
        found = self._known.pop(tenant, None) or Own(self._session.door, tenant, self._open)
        self._known[tenant] = found
        while len(self._known) > TENANTS_KNOWN:
            self._known.popitem(last=False)
        return found


def _written(sections: Mapping[str, Any]) -> Sections:
    return {name: json.dumps(value, separators=(",", ":")) for name, value in sections.items()}


def joined(sections: Mapping[str, str]) -> str:
    """Write sections as one JSON object."""
    return "{" + ",".join(f"{json.dumps(name)}:{text}" for name, text in sections.items()) + "}"
