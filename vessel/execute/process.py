"""A worker process' executor: its slots, its leases, its heartbeat, and what it knows about the world."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vessel.batches.files import body_of, read_source
from vessel.errors import Unreachable, VesselError
from vessel.execute.job import JobRun
from vessel.execute.measuring import Measured
from vessel.execute.output_history import REFRESH_S, OutputHistory
from vessel.execute.persist import Spool, persist
from vessel.execute.tracing import running
from vessel.jobs.steps import Held
from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.keyspace.listen import ended, listen
from vessel.keyspace.release import release
from vessel.keyspace.script import command, load, word
from vessel.maintain import Sweeper
from vessel.observe.logs import get_logger
from vessel.observe.tracing import STATE
from vessel.registry import Availability, Vessel, resolve, vessel_of
from vessel.submit import SILENT_MS, Door
from vessel.upstream.groq import GroqUpstream
from vessel.upstream.keys import KeySource
from vessel.upstream.openai import OpenAIUpstream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from vessel.jobs.model import Hop
    from vessel.keyspace.script import Call
    from vessel.settings import Settings

HEARTBEAT_S = 0.5
RELEASE_TTL_MS = 60_000
RENEW_PART = 3
"""Leases are renewed every third of their length, so that two renewals may be missed."""

log = get_logger(__name__)


class Executor:
    """Runs the jobs of one worker process on its event loop."""

    def __init__(self, settings: Settings, *, redis_url: str, tiers: Sequence[str], worker: str, slots: int) -> None:
        """Take settings; `open` connects and starts the background work."""
        self.settings = settings
        self.tiers = tuple(tiers)
        self.worker = worker
        self.door = Door(settings)
        self.registry, self.keys, self.store = self.door.registry, self.door.keys, self.door.store
        self._redis_url = redis_url
        self.runner = AsyncRunner(connect_async(redis_url))
        key = settings.groq_api_key.get_secret_value() if settings.groq_api_key else None
        self.upstream = GroqUpstream(KeySource(key, settings.groq_api_key_file), settings.groq_base_url)
        openai_key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else None
        self.failover = OpenAIUpstream(openai_key, settings.openai_base_url)
        self.spool = Spool(settings.data_dir / "spool", redis_url)
        self.availability = Availability(listed=None, gone=frozenset(), today=datetime.now(UTC).date())
        self.history = OutputHistory(self.runner, self.tell, self.keys, settings.org)
        self.alive: dict[str, int] = {}
        self.draining = False
        self._sleepers: dict[str, asyncio.Event] = {}
        self._outages: dict[str, float] = {}
        self.channel = self.keys.wake(worker)
        self.slots = slots
        self._slots = asyncio.Semaphore(slots)
        self._runs: dict[str, JobRun] = {}
        self._claims = itertools.count(1)
        self._clock_offset_ms = 0.0
        self.sweeper: Sweeper | None = None
        self._blocked: dict[str, float] = {}
        self._background: list[asyncio.Task[None]] = []
        self._listening: asyncio.Task[None] | None = None
        self.measured = Measured()

    @classmethod
    async def open(
        cls, settings: Settings, *, redis_url: str, tiers: Sequence[str], worker: str, slots: int
    ) -> Executor:
        """Connect, learn what is served and start renewing, beating and sweeping.

        Raises SpoolUnwritable, and Unreachable where Redis is away.
        """
        executor = cls(settings, redis_url=redis_url, tiers=tiers, worker=worker, slots=slots)
        executor.sweeper = sweeper = Sweeper(executor.door, executor.runner, worker=worker, upstream=executor.upstream,
                          spool=executor.spool)  # fmt: skip
        if executor.door.failover is not None and not executor.failover.load():
            log.warning("failover.not_installed", then="pip install 'groq-vessel[failover]'")
        try:
            await asyncio.to_thread(executor.spool.probe)
            await executor._await_restore()
            # Before this worker counts as alive: routing is to know what is served.
            await sweeper.refresh_models()
            await executor._beat()
            executor.measured.watch(executor)
        except BaseException:
            await executor._disconnect()
            raise
        executor._background = [
            asyncio.ensure_future(executor._repeat(executor._beat, HEARTBEAT_S)),
            asyncio.ensure_future(executor._repeat(executor._renew, settings.lease / RENEW_PART)),
            asyncio.ensure_future(executor._repeat(executor.history.refresh, REFRESH_S)),
            asyncio.ensure_future(sweeper.run()),
        ]
        executor._listening = asyncio.ensure_future(executor._listen())
        return executor

    async def _await_restore(self) -> None:
        """Serve nothing of a namespace that is half restored. Raises Unreachable."""
        if await self.runner.run(command("EXISTS", self.keys.restoring, parse=int)):
            raise Unreachable("A restore of this namespace has not ended; `vessel restore` has to run to its end.")

    async def run(self, tickets: Sequence[tuple[str, int]], queue: str) -> list[dict[str, object]]:
        """Claim and run the jobs of one message; the first error is raised once all of them have ended."""
        runs = [self._one(job_id, generation, queue) for job_id, generation in tickets]
        answers = await asyncio.gather(*runs, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, dict)]

    async def _one(self, job_id: str, generation: int, queue: str) -> dict[str, object] | None:
        async with self._slots:
            owner = f"{self.worker}/{next(self._claims)}"
            held = await persist(self.runner, self.store.claim(job_id, generation, queue, owner))
            if not isinstance(held, Held):
                log.debug("job.ticket_dropped", job_id=job_id, generation=generation, reason=held.word)
                return None
            if held.job.source:
                held = await self._with_body(held)
            run = JobRun(self, held)
            self._runs[owner] = run
            with running(held.job) as span:
                try:
                    ended = await run.serve()
                finally:
                    self._runs.pop(owner, None)
                span.set({STATE: ended})
                log.info("job.served", job_id=job_id, tier=held.job.tier, model=run.model, state=ended,
                         attempt=len(held.job.attempts) + 1, generation=held.generation)  # fmt: skip
            self.measured.served(held.job, ended, self.now_ms())
            # A plain text: Flower is shown the repr of this.
            return {"job": job_id, "state": str(ended), "model": run.model}

    async def _with_body(self, held: Held) -> Held:
        """Read the request of a batch's line, whose record only says where it lies; none where its file is gone."""
        parts = self.door.files.range(*read_source(held.job.source))
        body = body_of([await persist(self.runner, part) for part in parts])
        return replace(held, job=replace(held.job, body=body, prompt_bytes=len(body)))

    def drain(self) -> None:
        """Start nothing more: claimed jobs that have not started are released, running calls end."""
        self.draining = True
        for woken in self._sleepers.values():
            woken.set()

    async def sleep_until_woken(self, job_id: str, seconds: float) -> bool:
        """Sleep to a booked start, or until the gate says that there is room before; true when the process drains."""
        woken = self._sleepers.setdefault(job_id, asyncio.Event())
        with suppress(TimeoutError):
            await asyncio.wait_for(woken.wait(), seconds)
        self._sleepers.pop(job_id, None)
        return self.draining

    def tell(self, call: Call[Any]) -> None:
        """Send a call whose answer nobody needs, before the one that follows at once; without Redis it is lost."""
        self.runner.post(call, leads=True).add_done_callback(_unheard)

    async def close(self) -> None:
        """Stop the background work and close connections; jobs still held go back through their lease."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self._listening is not None:
            await ended(self._listening)
        try:
            await self._leave()
            await self.measured.keep_refusals(self.runner, self.keys)
            if self.sweeper is not None:
                await self.sweeper.leave()
        except VesselError:
            log.warning("worker.leave_unsaid", worker=self.worker)
        await self._disconnect()

    async def _disconnect(self) -> None:
        await self.upstream.close()
        await self.failover.close()
        await self.runner.close()

    async def _leave(self) -> None:
        """Stop counting as alive, so that no work is sent to a tier that nobody else serves."""
        names = [command("ZREM", self.keys.live(tier), self.worker, parse=word) for tier in self.tiers]
        names.append(command("HDEL", self.keys.slots, self.worker, parse=word))
        names.append(command("DEL", self.keys.release(self.worker), parse=word))
        await self.runner.run_all(names)

    @property
    def held(self) -> int:
        """Return how many jobs this process has claimed and not carried on yet."""
        return len(self._runs)

    def now_ms(self) -> int:
        """Return Redis' time as last seen, carried on by this process' monotonic clock."""
        return int(time.monotonic() * 1000 + self._clock_offset_ms)

    def unavailable(self, hops: Sequence[Hop]) -> frozenset[str]:
        """Name the models of a chain that nothing serves any more, and the failover's, to which no step down leads."""
        return frozenset(hop.model for hop in hops if self._unserved(hop.model))

    def _unserved(self, model: str) -> bool:
        if vessel_of(model) is Vessel.OPENAI or model not in self.registry.models:  # made with another registry
            return True
        return resolve(self.registry, model, self.availability) is None

    @property
    def failover_model(self) -> str:
        """Name the failover vessel's model, as hops and gates do; empty where none is set."""
        return self.door.failover.model.id if self.door.failover else ""

    def note_blocked(self, model: str, wait_ms: float) -> None:
        """Remember how long a model is held back, so that decisions can prefer one that is not."""
        self._blocked[model] = self.now_ms() + wait_ms

    def note_outage(self, model: str, why: str) -> None:
        """Say once a minute, not once a job, that calls to a model are held back."""
        now = time.monotonic()
        if now >= self._outages.get(model, 0.0):
            self._outages[model] = now + 60
            log.warning("breaker.open", model=model, reason=why)

    def wait_ms(self, hops: Sequence[Hop]) -> dict[str, int]:
        """Say how long the models of a chain are still held back, as far as this process knows."""
        waits = {hop.model: self.blocked_ms(hop.model) for hop in hops}
        return {model: wait for model, wait in waits.items() if wait > 0}

    def blocked_ms(self, model: str) -> int:
        """Say how long a model is still held back, as far as this process knows; 0 when it is not."""
        return max(0, int(self._blocked.get(model, 0) - self.now_ms()))

    async def mark_gone(self, model: str) -> None:
        """Tell every worker and producer that the upstream does not know this model any more.

        Raises RedisUnreachable or RedisRefused; this process knows it even then.
        """
        if model in self.availability.gone:
            return
        gone = Availability(self.availability.listed, self.availability.gone | {model}, self.availability.today)
        self.availability = gone
        first = await self.runner.run(command("HSETNX", self.keys.models, f"gone:{model}", self.now_ms(), parse=int))
        if first:  # one warning of all workers
            log.warning("model.gone", model=model)
        if self.sweeper is not None:
            self.sweeper.doubt_models(model)

    async def _repeat(self, step: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await step()
            except Unreachable:
                log.warning("redis.away", worker=self.worker)
            except Exception as error:  # noqa: BLE001  a broken beat must not end the worker's renewals
                log.error("worker.step_failed", step=step.__name__, error=type(error).__name__)  # noqa: TRY400  no texts

    async def _listen(self) -> None:
        """Hear on the process' own channel which sleeper may start early; timers stand in while Redis is away."""
        async for job_id in listen(self._redis_url, self.channel):
            woken = self._sleepers.get(job_id)
            if woken is not None:
                woken.set()

    async def _beat(self) -> None:
        if self.draining:
            await self._leave()
            return
        beat = load("heartbeat").call(
            {"slots": self.keys.slots},
            {"worker": self.worker, "silent_ms": 10 * SILENT_MS, "slots_here": self.slots}, word,
            more_keys=[self.keys.live(tier) for tier in self.tiers],
        )  # fmt: skip
        told = command("SET", self.keys.release(self.worker), release(), "PX", RELEASE_TTL_MS, parse=word)
        calls: list[Any] = [beat, self.door.alive(), self.door.availability(), told]
        known = self.availability
        now, self.alive, seen, _ = await self.runner.run_all(calls)
        self.measured.beaten()
        await self.measured.keep_refusals(self.runner, self.keys)
        if self.availability is known:  # else a model was found gone meanwhile, which this reading may not know
            self.availability = seen
        self._clock_offset_ms = float(now) - time.monotonic() * 1000

    async def _renew(self) -> None:
        runs = list(self._runs.values())
        if not runs:
            return
        answers: list[str] = await self.runner.run(self.store.renew([r.held for r in runs]))
        for run, answer in zip(runs, answers, strict=True):
            if answer == "cancel":
                run.cancel()


def _unheard(told: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for, so that the loop does not report it."""
    if not told.cancelled():
        told.exception()
