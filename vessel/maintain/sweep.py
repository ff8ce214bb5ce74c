"""The sweeper's loop: every step is an atomic script that rechecks, so any number of processes may run it."""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import TYPE_CHECKING, Any

from vessel.errors import Unreachable
from vessel.gate.vocabulary import count
from vessel.keyspace.script import Arg, Call, command, load, word, words
from vessel.keyspace.server import clock
from vessel.maintain.accounts import Accountant
from vessel.maintain.batches import BatchKeeper
from vessel.maintain.carry import Carrier
from vessel.maintain.feed import Feeder
from vessel.maintain.models import store_models
from vessel.maintain.reconcile import Reconciler
from vessel.notify.courier import Courier
from vessel.observe.logs import get_logger
from vessel.registry import resolve
from vessel.upstream.outcome import Failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vessel.execute.persist import Spool
    from vessel.jobs.model import Job
    from vessel.keyspace.connect import AsyncRunner
    from vessel.submit import Door
    from vessel.upstream.groq import GroqUpstream

TICK_S = 0.5
FEED_EVERY_S = 0.1
SWEEPER_LEASE_S = 1.4
USAGE_LOG_LEASE_S = 5.0
"""How long nobody else takes over from a process that does not come back."""

LOADS_S = 10.0
"""The same while a vocabulary is loaded, which stops a process for most of a second, longer on a busy machine."""

MODELS_EVERY_S = 60.0
MODELS_AGAIN_S = 5.0
PRUNE_EVERY_S = 60.0
ACCOUNTS_EVERY_S = 30.0
UNWRITTEN_EVERY_S = 60.0
"""How often it is logged that the usage log cannot be written."""

PRUNE_AT_ONCE = 500

log = get_logger(__name__)


class Sweeper:
    """Runs the sweeps of one process; a short role lease keeps others from doing the same work twice."""

    def __init__(
        self, door: Door, runner: AsyncRunner, *, worker: str, spool: Spool, upstream: GroqUpstream | None
    ) -> None:
        """Take the shared handles; without an upstream the model list is not refreshed here."""
        self.door, self.runner, self.worker = door, runner, worker
        self.store, self.keys = door.store, door.keys
        self.spool, self.upstream = spool, upstream
        self.reconciler = Reconciler(door, runner)
        self.feeder = Feeder(door, runner)
        self.carrier = Carrier(door, runner)
        self.batches = BatchKeeper(door, runner, worker, self._prepare)
        self.courier = Courier(door.settings, door.keys, runner)
        self._sweeps_until = 0.0
        self.accountant = Accountant(door, runner)
        self._next: dict[str, float] = {}
        self._doubted = self._loaded = False
        self._log_level_at: float | None = None

    async def run(self) -> None:
        """Sweep until cancelled; trouble is logged and the next tick goes on."""
        # Apart, because a list of models that does not come, a long file or many batches must not keep jobs waiting.
        try:
            await asyncio.gather(
                self._keep(self.tick),
                self._keep(self._feed, every_s=FEED_EVERY_S),
                self._keep(self._unfold, every_s=FEED_EVERY_S),
                self._keep(self._validate, every_s=FEED_EVERY_S),
                self._keep(self._notify, every_s=FEED_EVERY_S),
                self._keep(self._replay, self._write_usage, self._refresh_models, self._prune),
            )
        finally:
            await self.courier.close()

    async def _keep(self, *steps: Callable[[], Awaitable[object]], every_s: float = TICK_S) -> None:
        while True:
            for step in steps:
                await self._guard(step)
            await asyncio.sleep(every_s * random.uniform(0.8, 1.2))  # noqa: S311  jitter, not a secret

    async def _guard(self, step: Callable[[], Awaitable[object]]) -> None:
        try:
            await step()
        except Unreachable:
            log.debug("sweep.redis_away", step=step.__name__)
        except Exception as error:  # noqa: BLE001  one broken sweep must not end the others
            log.error("sweep.failed", step=step.__name__, error=type(error).__name__)  # noqa: TRY400  no texts

    async def tick(self) -> None:
        """Look at what is due once."""
        now = asyncio.get_running_loop().time()
        if not await self._holds("sweeper", SWEEPER_LEASE_S):
            return
        self._sweeps_until = now + SWEEPER_LEASE_S
        due = await self.runner.run(self.store.due())
        await self._each(due.parked, self.store.promote)
        await self._each(due.leased, self.store.rescue, "job.rescued")
        await self._each(due.deadlines, self.store.expire)
        await self.reconciler.tick()
        await self.carrier.tick()

    async def _feed(self) -> None:
        if self._sweeps():
            await self.feeder.tick()

    async def _unfold(self) -> None:
        if self._sweeps():
            await self.batches.tick()

    async def _validate(self) -> None:
        if self._sweeps():
            await self.batches.validate()

    async def _prepare(self) -> bool:
        """Load what counts long texts, in possession of the role; false where another process has it.

        One that lost the role while it stood still would hand it on to others, and they would stand still in turn.
        """
        if self._loaded:
            return True
        if not await self._holds("sweeper", LOADS_S):
            return False
        known = await self.runner.run(self.door.availability())
        for tier in self.door.registry.tiers.values():
            count("", resolve(self.door.registry, tier.model, known))
        self._loaded = True
        return await self._holds("sweeper", SWEEPER_LEASE_S)

    async def _notify(self) -> None:
        if self._sweeps():
            await self.courier.tick()

    def _sweeps(self) -> bool:
        return asyncio.get_running_loop().time() < self._sweeps_until

    async def _each(self, ids: Sequence[str], act: Callable[[Job], Call[Any]], event: str = "") -> None:
        jobs = await self.runner.run_all([self.store.peek(job_id) for job_id in ids])
        for job_id, job in zip(ids, jobs, strict=True):
            if job is None:
                await self.runner.run_all([self._forget(name, job_id) for name in self._sets()])
        found = [job for job in jobs if job]
        answers = await asyncio.gather(*(self.runner.run(act(job)) for job in found), return_exceptions=True)
        for job, answer in zip(found, answers, strict=True):
            if isinstance(answer, Unreachable):
                raise answer
            if isinstance(answer, BaseException):  # one job's trouble must not keep the others waiting
                log.error("sweep.job_failed", job_id=job.id, error=type(answer).__name__)
            elif event and answer.word in {"done", "poisoned", "broken"}:
                log.warning(event, job_id=job.id, tier=job.tier, model=job.model, outcome=answer.word)

    def _sets(self) -> tuple[str, ...]:
        return (self.keys.parked, self.keys.leases, self.keys.deadlines)

    def _forget(self, name: str, job_id: str) -> Call[str]:
        return command("ZREM", name, job_id, parse=word)

    async def _holds(self, role: str, lease_s: float) -> bool:
        args: dict[str, Arg] = {"owner": self.worker, "lease_ms": int(lease_s * 1000)}
        return bool(await self.runner.run(load("role").call({"role": self.keys.role(role)}, args, int)))

    async def leave(self) -> None:
        """Give the roles back once `run` has ended, so that nobody waits for their leases. Raises Unreachable."""
        for role in ("sweeper", "usage_log"):  # the others say how often something is done, not who does it
            await self._holds(role, 0)

    def _due(self, what: str, every_s: float) -> bool:
        now = asyncio.get_running_loop().time()
        if now < self._next.get(what, 0.0):
            return False
        self._next[what] = now + every_s
        return True

    async def _replay(self) -> None:
        await self.spool.replay(self.runner)

    async def _write_usage(self) -> None:
        if not await self._holds("usage_log", USAGE_LOG_LEASE_S):
            self._log_level_at = None
            return
        now = time.monotonic()
        if self._log_level_at is None:
            self._log_level_at = now  # how far behind it is is not known, but one that cannot be written is told of
        try:
            if await self.accountant.write():
                self._log_level_at = now
        except OSError as error:
            self._tell_unwritten(error)
        await self.accountant.tell_spend()
        if self._due("accounts", ACCOUNTS_EVERY_S):
            await self.accountant.keep()

    def _tell_unwritten(self, error: OSError) -> None:
        if self._due("unwritten", UNWRITTEN_EVERY_S):
            log.error("usage_log.not_written", reason=error.strerror, file=str(self.accountant.usage_log.path),
                      then="nothing is lost: it goes on where it stopped as soon as it can")  # fmt: skip

    def usage_log_behind_s(self) -> float:
        """Return how long ago the usage log held the whole ledger, as far as this process knows.

        Not a number where another process has the lease. Also for other threads than the loop's.
        """
        known = self._log_level_at
        return math.nan if known is None else time.monotonic() - known

    async def _refresh_models(self) -> None:
        """Let one process ask now and then what the key may call, for all; at once where a model is doubted."""
        if not self._due("models", MODELS_EVERY_S):
            return
        doubted, self._doubted = self._doubted, False
        if doubted or await self._holds("models", MODELS_EVERY_S / 2):
            await self.refresh_models()

    def doubt_models(self, model: str) -> None:
        """Ask for the list soon, because a model that it held answered as gone; for one model once a minute.

        A 404 that passes then costs jobs seconds; one that stays while the model is listed is not asked about for ever.
        """
        now = asyncio.get_running_loop().time()
        if now < self._next.get(f"doubt {model}", 0.0):
            return
        self._next[f"doubt {model}"] = now + MODELS_EVERY_S
        self._next["models"] = min(self._next.get("models", now), now + MODELS_AGAIN_S)
        self._doubted = True

    async def refresh_models(self) -> None:
        """Fetch the list now; when the upstream does not give it, the last one stays and it is asked again soon."""
        if self.upstream is None:
            return
        listed = await store_models(self.upstream, self.runner, self.keys.models)
        if isinstance(listed, Failure):
            self._next["models"] = asyncio.get_running_loop().time() + MODELS_AGAIN_S
            log.warning("models.not_listed", reason=str(listed.reason), status=listed.status)
        elif not listed:
            log.warning("models.none_listed", then="the last list stays")

    async def _prune(self) -> None:
        if self._due("prune", PRUNE_EVERY_S) and await self._holds("prune", PRUNE_EVERY_S / 2):
            await self.prune()

    async def prune(self) -> None:
        """Drop every index entry whose record has gone by its TTL; one whose job is still kept is passed over."""
        tenants: list[str] = await self.runner.run(command("SMEMBERS", self.keys.tenants, parse=words))
        await self._prune_index(self.keys.index)
        for tenant in tenants:
            own = self.keys.own_index(tenant)
            await self._prune_index(own)
            if await self.runner.run(command("EXISTS", own, parse=int)) == 0:
                left = command("SREM", self.keys.tenants, tenant, parse=int)
                _, made = await self.runner.run_all([left, command("EXISTS", own, parse=int)])
                if made:  # by a job that was created in between
                    await self.runner.run(command("SADD", self.keys.tenants, tenant, parse=int))

    async def _prune_index(self, index: str) -> None:
        now = await self.runner.run(clock())
        horizon = now - int(self.door.settings.result_ttl * 1000)
        kept, page = 0, PRUNE_AT_ONCE
        while page == PRUNE_AT_ONCE:
            old = command("ZRANGE", index, "-inf", horizon, "BYSCORE", "LIMIT", kept, PRUNE_AT_ONCE,
                          parse=words)  # fmt: skip
            ids = await self.runner.run(old)
            alive = await self.runner.run_all([command("EXISTS", self.keys.job(i), parse=int) for i in ids])
            gone = [i for i, there in zip(ids, alive, strict=True) if not there]
            await self.runner.run_all([self._forget(index, i) for i in gone])
            kept, page = kept + len(ids) - len(gone), len(ids)
