"""Deliver webhooks that are due. Any number of processes may: each delivery is leased by Redis' clock to one of them.

A message is sent at least once: a process that dies after it was received, and before that is noted, leaves it to be
sent again under the same id.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

from vessel.errors import SettingsError, Unreachable
from vessel.notify import store
from vessel.notify.backoff import DeliveryState, Outcome, Step, Trouble, follow
from vessel.notify.secret import configured, headers
from vessel.notify.sender import Sender, look_up
from vessel.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from vessel.keyspace.connect import AsyncRunner
    from vessel.keyspace.names import Keys
    from vessel.notify.delivery import Delivery
    from vessel.notify.sender import Found
    from vessel.notify.store import Taken
    from vessel.settings import Settings

IN_FLIGHT = 16
AT_RECEIVER = 4
"""Calls to one receiver at once, so that one that hangs leaves room for others."""

NOTED_AGAIN = 3
NOTED_AFTER_S = 1.0

log = get_logger(__name__)


class Courier:
    """Sends what is due and notes what became of it."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        runner: AsyncRunner,
        lookup: Callable[[str, int], list[Found]] = look_up,
    ) -> None:
        """Take the shared handles; connections are opened with the first message."""
        self.settings, self.keys, self.runner = settings, keys, runner
        self._lookup = lookup
        self._sender: Sender | None = None
        self._running: dict[asyncio.Task[None], str] = {}

    async def tick(self) -> int:
        """Begin to deliver what is due, as far as there is room; waits for none of it. Returns how many were begun."""
        room = IN_FLIGHT - len(self._running)
        if room <= 0:
            return 0
        under_way = Counter(receiver for receiver in self._running.values() if receiver)
        taken = await self.runner.run(store.take(self.keys, room, AT_RECEIVER, under_way))
        for member in taken.members:
            task = asyncio.create_task(self._deliver(member, taken))
            self._running[task] = member.partition(" ")[2]
            task.add_done_callback(self._done)
        return len(taken.members)

    async def drained(self) -> None:
        """Wait until no message is under way."""
        while self._running:
            await asyncio.wait(self._running)
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Stop: what is under way is due again once its lease is over."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        if self._sender is not None:
            await self._sender.close()
            self._sender = None

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Unreachable):
            log.debug("webhook.redis_away")
        elif error is not None:
            log.error("webhook.broken", error=type(error).__name__, then="it is sent again when its lease is over")

    async def _deliver(self, member: str, taken: Taken) -> None:
        found = await self.runner.run(store.delivery(self.keys, store.of_member(member)))
        if found is None:
            log.info("webhook.record_gone", of=store.of_member(member))
            gone = Outcome(Trouble.NONE), Step(DeliveryState.GIVEN_UP)
            await self.runner.run(store.settle(self.keys, member, taken, *gone))
            return
        try:
            secrets = configured(self.settings) or await self._own_secrets(found, taken)
        except SettingsError as fault:
            log.error("webhook.secret_unusable", reason=str(fault), then="nothing is sent until it is readable")  # noqa: TRY400  no traceback
            return
        if self._sender is None:
            self._sender = Sender(allow_private=self.settings.webhook_allow_private, lookup=self._lookup)
        payload = found.payload()
        outcome = await self._sender.post(found.url, payload, headers(secrets, found.message_id, taken.now, payload))
        step = follow(outcome, found.round + 1, random.random())  # noqa: S311  jitter, not a secret
        answer = await self._note(store.settle(self.keys, member, taken, outcome, step))
        _tell(found, outcome, step, answer)

    async def _own_secrets(self, found: Delivery, taken: Taken) -> tuple[str, ...]:
        answers = await self.runner.run_all(store.secret_of(self.keys, found.tenant))
        kept: store.Secrets = answers[-1]
        return kept.signing(taken.now)

    async def _note(self, call: Any) -> str:
        """Note the end of an attempt; Redis may be away for a moment, and what is not noted is sent again."""
        for _ in range(NOTED_AGAIN):
            try:
                return str(await self.runner.run(call))
            except Unreachable:
                await asyncio.sleep(NOTED_AFTER_S)
        return str(await self.runner.run(call))


def _tell(found: Delivery, outcome: Outcome, step: Step, answer: str) -> None:
    told = log.warning if step.state is DeliveryState.GIVEN_UP else log.info
    told(
        f"webhook.{'again' if step.state is DeliveryState.PENDING else step.state}",
        of=found.id,
        type=found.type,
        receiver=found.receiver,
        attempt=found.attempts + 1,
        status=outcome.status,
        reason=str(outcome.trouble) or None,
        again_in_s=step.delay_ms // 1000 or None,
        noted=answer,
    )
