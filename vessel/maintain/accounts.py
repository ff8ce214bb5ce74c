"""The books of one process: the usage log, the sums of past hours, the ledger's retention, and caps nearly used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.keyspace.script import Arg, Call, command, load, word
from vessel.keyspace.server import clock
from vessel.observe.logs import get_logger
from vessel.usage.budgets import WARNED_AT, spend_events
from vessel.usage.log import DAY_MS, Rotation, UsageLog, at_ms
from vessel.usage.sums import HOUR_MS, HOURS

if TYPE_CHECKING:
    from vessel.keyspace.connect import AsyncRunner
    from vessel.submit import Door
    from vessel.usage.budgets import SpendEvent

DAYS_KEPT = 3653
"""How long a day's sums stay: ten years."""


log = get_logger(__name__)


class Accountant:
    """Keeps the books while it holds the lease of `usage_log`; at most one process does at a time."""

    def __init__(self, door: Door, runner: AsyncRunner) -> None:
        """Take the shared handles."""
        settings = door.settings
        self.keys, self.runner = door.keys, runner
        self.kept_ms = settings.ledger_retention * DAY_MS
        rotation = Rotation(settings.usage_log_max_bytes, settings.usage_log_daily)
        self.usage_log = UsageLog(settings.usage_log_path, self.keys.ledger, rotation)

    async def write(self) -> bool:
        """Write what is new in the ledger to the usage log. Raises OSError for a file that cannot be written.

        Returns whether the log holds the whole ledger now; it does not while a process outside the lease has its file.
        """
        before = self.usage_log.written
        while await self.usage_log.follow(self.runner):
            pass
        if self.usage_log.written not in {"", before}:
            told = command("HSET", self.keys.ledger_log, "written", self.usage_log.written, parse=int)
            await self.runner.run(told)
        return self.usage_log.level

    async def keep(self) -> None:
        """Move the sums of hours that are over to their days, and trim the ledger."""
        await self._roll()
        await self._trim()

    async def _roll(self) -> None:
        now = await self.runner.run(clock())
        names = [self.keys.sums("sums"), self.keys.sums("tags")]
        fields = await self.runner.run_all([command("HKEYS", name, parse=list) for name in names])
        hours = {int(word(field).partition("|")[0]) for some in fields for field in some}
        days = sorted({hour // HOURS for hour in hours if hour < now // HOUR_MS})
        await self.runner.run_all([self._roll_day(day) for day in days])

    def _roll_day(self, day: int) -> Call[int]:
        sums = self.keys.sums
        names = {"sums": sums("sums"), "tag_sums": sums("tags"), "day_sums": sums("day", day)}
        names |= {"hour_sums": sums("hours", day), "day_tags": sums("tags", day), "log": self.keys.ledger_log}
        kept = self.kept_ms + 2 * DAY_MS
        args: dict[str, Arg] = {"day": day, "keep_ms": kept, "day_keep_ms": max(kept, DAYS_KEPT * DAY_MS)}
        return load("roll").call(names, args, int)

    async def _trim(self) -> None:
        """Drop entries beyond retention, as far as this process knows them to be in its own file."""
        written = self.usage_log.written
        if not written:
            return
        now = await self.runner.run(clock())
        horizon = min(now - self.kept_ms, at_ms(written))
        calls = [
            command("HSET", self.keys.ledger_log, "trimmed", horizon, parse=int),
            command("XTRIM", self.keys.ledger, "MINID", horizon, parse=int),
        ]
        oldest = await self.runner.run(command("XRANGE", self.keys.ledger, "-", "+", "COUNT", 1, parse=list))
        if oldest and at_ms(word(oldest[0][0])) < horizon:
            _, gone = await self.runner.run_all(calls)
            log.info("ledger.trimmed", entries=gone)

    async def tell_spend(self) -> None:
        """Log caps that are nearly or wholly used, once; a process that dies in between tells it twice at most."""
        seen = await self.runner.run(command("HGET", self.keys.ledger_log, "spend_told", parse=word))
        found = await self.runner.run(spend_events(self.keys.spend_events, seen))
        for event in found:
            _log_spend(event)
        if found:
            await self.runner.run(command("HSET", self.keys.ledger_log, "spend_told", found[-1].id, parse=int))


def _log_spend(event: SpendEvent) -> None:
    whose = {"batch_id": event.batch} if event.batch else {"tenant": event.tenant or "everybody"}
    amounts = {"spent_usd": event.spent_nano / 10**9, "cap_usd": event.cap_nano / 10**9}
    if event.event == "warned":
        log.warning("budget.nearly_used", cap=event.cap, percent=WARNED_AT, **whose, **amounts)
    else:
        log.warning("budget.used_up", cap=event.cap, then="jobs wait, or fail as they ask", **whose, **amounts)
