"""The client for coroutines: one set of connections per event loop."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, assert_never

from vessel.client import batching, core, following, gates, looking, survey
from vessel.client.asking import Asked
from vessel.client.batch_handle import AsyncBatchHandle
from vessel.client.batching import Document, raw_lines, results
from vessel.client.handle import AsyncJobHandle
from vessel.client.many import submit_many
from vessel.client.result import CodeResult, Result
from vessel.client.steps import Await, Effect, Flow, Listen, Run, Steps, drive_async, iterate_async
from vessel.client.streaming import HEARTBEAT_S, AsyncTokenStream
from vessel.client.submitting import Given, submit_batch
from vessel.client.submitting import estimate as estimate_batch
from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.submit import Door, redis_url
from vessel.watch import BLOCK_MS, succeeded
from vessel.watch.loops import AsyncWaiter
from vessel.watch.tokens import follow_async

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
    from decimal import Decimal

    from vessel.batches.estimate import Estimate
    from vessel.batches.model import Batch
    from vessel.client.batching import BatchResult
    from vessel.client.following import Ended, JobEvent
    from vessel.client.gates import GateInfo, MaintenanceInfo
    from vessel.client.looking import Since
    from vessel.client.request import Ask, BuiltinOptions, BuiltinTool, Options, Prompt, SubmitOptions, WaitOptions
    from vessel.client.submitting import Source
    from vessel.client.survey import ModelInfo, RoutePlan, TierInfo
    from vessel.jobs.model import Job
    from vessel.settings import Settings
    from vessel.usage.budgets import Budget
    from vessel.watch.tokens import TokenEvent
    from vessel.watch.waiting import Waiting
    from vessel.wire import JobState

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Session:
    """What an event loop opens once: connections and the tail that wakes its waiters."""

    loop: asyncio.AbstractEventLoop
    url: str
    runner: AsyncRunner
    waiter: AsyncWaiter


class AsyncGroqClient:
    """GroqClient for coroutines; every method does and raises what its namesake there does.

    A cancelled `query` (or analyze, generate_code, research, execute) cancels its job.
    """

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        settings: Settings | None = None,
        tenant: str = "default",
        timeout: float | None = None,
        **overrides: object,
    ) -> None:
        """Take the arguments of GroqClient. Nothing is sent, and no loop need run yet."""
        self._core = core.Core(redis_url, settings, tenant, timeout, overrides)
        self._session: _Session | None = None

    # --- asking and waiting

    async def query(self, prompt: Prompt, **options: Unpack[WaitOptions]) -> Result:
        """Ask and wait for the answer."""
        timeout, rest = self._core.timeout_of(options)
        return Result(await self._answer(core.query(prompt, rest), timeout))

    async def analyze(self, prompt: Prompt, **options: Unpack[WaitOptions]) -> Result:
        """Ask for a strategic analysis and wait."""
        timeout, rest = self._core.timeout_of(options)
        return Result(await self._answer(core.analysis(prompt, rest), timeout))

    async def generate_code(
        self, prompt: Prompt, language: str | None = None, **options: Unpack[WaitOptions]
    ) -> CodeResult:
        """Ask for code and wait."""
        timeout, rest = self._core.timeout_of(options)
        return CodeResult(await self._answer(core.code(prompt, language, rest), timeout))

    async def research(
        self,
        query: Prompt,
        tools: Sequence[BuiltinTool] = ("web_search",),
        max_results: int | None = None,
        **options: Unpack[BuiltinOptions],
    ) -> Result:
        """Ask with built-in tools and wait."""
        timeout, rest = self._core.timeout_of(options)
        return Result(await self._answer(core.research(query, tools, rest), timeout), max_sources=max_results)

    async def execute(
        self,
        task: str,
        code: str | None = None,
        tools: Sequence[BuiltinTool] = ("code_execution",),
        **options: Unpack[BuiltinOptions],
    ) -> Result:
        """Ask to run code and wait."""
        timeout, rest = self._core.timeout_of(options)
        return Result(await self._answer(core.execution(task, code, tools, rest), timeout))

    def stream(self, prompt: Prompt, **options: Unpack[WaitOptions]) -> AsyncTokenStream:
        """Ask, and iterate over pieces of the answer's text as they come."""
        timeout, rest = self._core.timeout_of(options)
        ask = core.query(prompt, rest).streamed()
        return self._stream(lambda: self._run(self._core.asking.submit(ask, "", waits=True)), timeout)

    # --- asking without waiting

    async def submit(self, prompt: Prompt, **options: Unpack[SubmitOptions]) -> AsyncJobHandle:
        """Enqueue and return at once."""
        ask = core.enqueued(prompt, options)
        return self._handle(await self._run(self._core.asking.submit(ask, self.waiter.reply)))

    async def submit_many(self, requests: Iterable[Mapping[str, Any]]) -> list[AsyncJobHandle]:
        """Enqueue many, in chunks of 500."""
        asked = await self._run(submit_many(self._core.asking, requests, self.waiter.reply))
        return [self._handle(job) for job in asked]

    async def retry(self, job_id: str) -> AsyncJobHandle:
        """Run an ended job's request again as a new job."""
        return self._handle(await self._run(self._core.asking.retry(job_id, self.waiter.reply)))

    # --- jobs

    async def job(self, job_id: str) -> Job:
        """Read a job with its payloads and attempts."""
        return await self._run(looking.job_of(self._core.asking, job_id))

    async def state(self, job_id: str) -> JobState:
        """Read where a job stands."""
        return await self._run(looking.state_of(self._core.asking, job_id))

    async def waiting(self, job: str | Job) -> Waiting | None:
        """Say why a job waits and until when; None for one that runs or has ended. Raises JobNotFound.

        A job that was read before, whole, is not read again.
        """
        if isinstance(job, str):
            return await self._run(gates.waiting_of(self._core.asking, job))
        return await self._run(gates.explained(self._core.asking, job))

    async def jobs(
        self, state: str | None = None, tier: str | None = None, since: Since | None = None, limit: int = 50
    ) -> list[Job]:
        """List jobs without payloads and attempts, newest first."""
        return await self._run(looking.jobs_of(self._core.asking, state, tier, since, limit))

    async def result(self, job_id: str, timeout: float | None = None) -> Result:  # noqa: ASYNC109  the job goes on, unlike a cancelled task
        """Wait for a job's result."""
        limit = self._core.timeout if timeout is None else timeout
        return Result(succeeded(await self._run(self._core.asking.end_of(job_id, self.waiter, limit))))

    def stream_of(self, job: AsyncJobHandle | str, timeout: float | None = None) -> AsyncTokenStream:
        """Iterate over the text of a job's answer, from its beginning; in one piece where it does not stream."""
        known = (job.id, job.tier, job.model) if isinstance(job, AsyncJobHandle) else (job, "", "")

        async def made() -> Asked:
            return Asked(*known, existing=True)

        return self._stream(made, self._core.timeout if timeout is None else timeout)

    def wait(self, ids: Iterable[str | AsyncJobHandle], timeout: float | None = None) -> AsyncIterator[Ended]:
        """Yield the result of each job, or its JobFailed, in the order in which they end."""
        limit = self._core.timeout if timeout is None else timeout
        names = [job.id if isinstance(job, AsyncJobHandle) else job for job in ids]
        return self._iterate(following.endings(self._core.asking, names, self.waiter.reply, limit))

    async def cancel(self, job_id: str) -> str:
        """Cancel: `cancelled`, `cancelling` while its call is cut, or the state in which it had ended."""
        return await self._run(looking.cancel(self._core.asking, job_id))

    def events(self, job_id: str, *, follow: bool = False) -> AsyncIterator[JobEvent]:
        """Yield a job's life so far, oldest first; with `follow` until it has ended."""
        return self._iterate(following.events(self._core.asking, job_id, follow=follow))

    # --- batches

    async def submit_batch(
        self,
        lines: Source,
        *,
        window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        max_cost_usd: Decimal | float | str | None = None,
    ) -> AsyncBatchHandle:
        """Submit many requests as one batch: a path of a Groq batch file, or an iterable of what `submit_many` takes.

        Every line is checked before anything is accepted; the bytes are stored once. Raises InvalidBatch with a report
        by line, IdempotencyConflict. `max_cost_usd` caps what all lines cost together; one that does not fit fails.
        """
        given = Given(window, metadata, idempotency_key, max_cost_usd)
        made, estimate = await self._run(submit_batch(self._core.asking, lines, given))
        return AsyncBatchHandle(self, made.id, estimate)

    async def estimate_batch(self, lines: Source) -> Estimate:
        """Estimate a batch's cost and the time that the quota allows it in; nothing is sent. Raises InvalidBatch."""
        return await self._run(estimate_batch(self._core.asking, lines))

    def batch(self, batch_id: str) -> AsyncBatchHandle:
        """Hold a batch that was submitted before; nothing is asked yet."""
        return AsyncBatchHandle(self, batch_id)

    async def batches(self, limit: int = 20) -> list[Batch]:
        """List batches, newest first."""
        read, key = self.door.batches.batch, self.door.keys.batches(self._core.tenant)
        found, _ = await self._run(batching.page(self.door, key, read, None, limit))
        return found

    async def batch_progress(self, batch_id: str) -> Batch:
        """Read a batch as of this moment. Raises BatchNotFound."""
        return await self._run(batching.batch_of(self.door, self._core.tenant, batch_id))

    async def cancel_batch(self, batch_id: str) -> Batch:
        """Cancel a batch; results stay. Raises BatchNotFound, WrongState when it has ended."""
        return await self._run(batching.cancel_batch(self.door, self._core.tenant, batch_id))

    def batch_document(self, batch_id: str, part: str) -> AsyncLines:
        """Open a batch's results (`out`) or errors (`err`), to be read on and on."""
        return AsyncLines(self, Document(self.door, batch_id, part))

    # --- the stack

    async def route(self, prompt: Prompt, **options: Unpack[Options]) -> RoutePlan:
        """Tell where a request would go and what it would cost; submits nothing."""
        return await self._run(survey.route(self._core.asking, core.submission(prompt, options)))

    async def models(self) -> list[ModelInfo]:
        """List every model and whether it is served."""
        return await self._run(survey.models(self._core.asking))

    async def tiers(self) -> list[TierInfo]:
        """List every tier with its live workers and queue lengths."""
        return await self._run(survey.tiers(self._core.asking))

    async def limits(self) -> list[GateInfo]:
        """Look at the gate of every model in use: headroom of each limit, breaker, bookings, who waits."""
        return await self._run(gates.limits(self._core.asking))

    async def maintenance(self) -> MaintenanceInfo:
        """Tell what is in maintenance, until when, and how many jobs are held."""
        return await self._run(gates.maintained(self._core.asking))

    async def budgets(self) -> list[Budget]:
        """List the spend caps, that of everybody first, in nano-USD."""
        return await self._run(gates.budgets(self._core.asking))

    # --- inside

    @property
    def door(self) -> Door:
        """The way in that this client uses."""
        return self._core.door

    @property
    def runner(self) -> AsyncRunner:
        """The running loop's connections, opened when first needed. Raises NoRedis."""
        return self._opened().runner

    @property
    def waiter(self) -> AsyncWaiter:
        """What wakes the running loop's waiting calls. Raises NoRedis."""
        return self._opened().waiter

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        session, self._session = self._session, None
        if session is not None and session.loop is asyncio.get_running_loop():
            await session.waiter.close()
            await session.runner.close()

    async def __aenter__(self) -> Self:
        """Use as a context."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    def _opened(self) -> _Session:
        session, loop = self._session, asyncio.get_running_loop()
        if session is None or session.loop is not loop:
            url = redis_url(self._core.settings)
            runner = AsyncRunner(connect_async(url))
            session = _Session(loop, url, runner, AsyncWaiter(url, self.door.keys, self.door.store, runner))
            self._session = session
        return session

    async def _answer(self, ask: Ask, timeout: float | None) -> Job:  # noqa: ASYNC109  the job goes on, unlike a cancelled task
        return await self._run(self._core.asking.answer(ask, self.waiter, timeout))

    def _handle(self, asked: Asked) -> AsyncJobHandle:
        return AsyncJobHandle(self, asked.id, asked.tier, asked.model, existing=asked.existing)

    def _stream(self, make: Callable[[], Awaitable[Asked]], timeout: float | None) -> AsyncTokenStream:
        def follow(job_id: str) -> AsyncGenerator[TokenEvent]:
            session = self._opened()
            return follow_async(session.url, self.door.store, session.runner, job_id, tenant=self._core.tenant,
                                heartbeat_s=HEARTBEAT_S)  # fmt: skip

        asking = self._core.asking
        return AsyncTokenStream(make, follow, timeout, self.cancel, lambda job_id: self._run(asking.look_after(job_id)))

    async def _run(self, steps: Steps[T]) -> T:
        return await drive_async(steps, self._perform)

    async def _iterate(self, flow: Flow[T]) -> AsyncIterator[T]:
        # A blocking read would keep the shared connections from others, so an iteration has its own.
        listener = AsyncRunner(connect_async(self._opened().url, blocking_s=BLOCK_MS / 1000))

        async def perform(effect: Effect) -> Any:
            return await (listener.run(effect.call) if isinstance(effect, Listen) else self._perform(effect))

        try:
            async for value in iterate_async(flow, perform):
                yield value
        finally:
            await listener.close()

    async def _perform(self, effect: Effect) -> Any:
        match effect:
            case Run(calls):
                return await self.runner.run_all(calls)
            case Listen(call):
                return await self.runner.run(call)
            case Await(job_id, timeout_s):
                return await self.waiter.wait(job_id, timeout_s)
            case _ as never:
                assert_never(never)


class AsyncLines:
    """A document of a batch, read on from where it was left."""

    def __init__(self, client: AsyncGroqClient, document: Document) -> None:
        """Begin at its start."""
        self._client, self._document = client, document

    def read(self) -> AsyncIterator[BatchResult]:
        """Yield what has come since."""
        return self._client._iterate(results(self._document))  # noqa: SLF001  one module

    def raw(self) -> AsyncIterator[bytes]:
        """Yield what has come since, as the lines of the document."""
        return self._client._iterate(raw_lines(self._document))  # noqa: SLF001  one module
