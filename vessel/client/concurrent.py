"""The client for coroutines: one set of connections per event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, overload

from vessel.client import batching, core, following, gates, looking, survey
from vessel.client.asking import Asked
from vessel.client.batch_handle import AsyncBatchHandle
from vessel.client.batching import Document, raw_lines, results
from vessel.client.handle import AsyncJobHandle
from vessel.client.many import submit_many
from vessel.client.result import CodeResult, Result, T
from vessel.client.schema import form_of
from vessel.client.session_async import AsyncSession
from vessel.client.streaming import HEARTBEAT_S, AsyncTokenStream
from vessel.client.structured import asked, result_of, shaped
from vessel.client.submitting import Given, submit_batch
from vessel.client.submitting import estimate as estimate_batch

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
    from vessel.client.schema import Form
    from vessel.client.submitting import Source
    from vessel.client.survey import ModelInfo, RoutePlan, TierInfo
    from vessel.gate.refusals import Refused
    from vessel.jobs.model import Job
    from vessel.usage.budgets import Budget
    from vessel.watch.tokens import TokenEvent
    from vessel.watch.waiting import Waiting
    from vessel.wire import JobState


class AsyncGroqClient(AsyncSession):
    """GroqClient for coroutines; every method does and raises what its namesake there does.

    A cancelled `query` (or analyze, generate_code, research, execute) cancels its job.
    """

    # --- asking and waiting

    @overload
    async def query(self, prompt: Prompt, *, response_model: None = None, **options: Unpack[WaitOptions]) -> Result: ...
    @overload
    async def query(self, prompt: Prompt, *, response_model: type[T], **options: Unpack[WaitOptions]) -> Result[T]: ...
    async def query(self, prompt: Prompt, *, response_model: Any = None, **options: Unpack[WaitOptions]) -> Result[Any]:
        """Ask and wait for the answer; a cancelled task cancels the job."""
        timeout, rest = self._core.timeout_of(options)
        return await self._asked(core.query(prompt, rest), response_model, timeout)

    @overload
    async def analyze(
        self, prompt: Prompt, *, response_model: None = None, **options: Unpack[WaitOptions]
    ) -> Result: ...
    @overload
    async def analyze(
        self, prompt: Prompt, *, response_model: type[T], **options: Unpack[WaitOptions]
    ) -> Result[T]: ...
    async def analyze(
        self, prompt: Prompt, *, response_model: Any = None, **options: Unpack[WaitOptions]
    ) -> Result[Any]:
        """Ask for a strategic analysis and wait."""
        timeout, rest = self._core.timeout_of(options)
        return await self._asked(core.analysis(prompt, rest), response_model, timeout)

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
        return Result(
            await self._answer(core.research(query, tools, rest, max_results), timeout), max_sources=max_results
        )

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

    @overload
    async def submit(
        self, prompt: Prompt, *, response_model: None = None, **options: Unpack[SubmitOptions]
    ) -> AsyncJobHandle: ...
    @overload
    async def submit(
        self, prompt: Prompt, *, response_model: type[T], **options: Unpack[SubmitOptions]
    ) -> AsyncJobHandle[T]: ...
    async def submit(
        self, prompt: Prompt, *, response_model: Any = None, **options: Unpack[SubmitOptions]
    ) -> AsyncJobHandle[Any]:
        """Enqueue and return at once."""
        ask, form = core.enqueued(prompt, options), None
        if response_model is not None:
            form = form_of(response_model)
            ask = shaped(ask, form)
        return self._handle(await self._run(self._core.asking.submit(ask, self.waiter.reply)), form)

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

    async def webhook(self, job: Job) -> dict[str, Any] | None:
        """Describe what became of a job's webhook; None where it has none."""
        return await self._run(looking.webhook_of(self.door, job))

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

    @overload
    async def result(self, job_id: str, timeout: float | None = None, *, response_model: None = None) -> Result: ...  # noqa: ASYNC109  the job goes on, unlike a cancelled task
    @overload
    async def result(self, job_id: str, timeout: float | None = None, *, response_model: type[T]) -> Result[T]: ...  # noqa: ASYNC109  the job goes on, unlike a cancelled task
    async def result(
        self,
        job_id: str,
        timeout: float | None = None,  # noqa: ASYNC109  the job goes on, unlike a cancelled task
        *,
        response_model: Any = None,
    ) -> Result[Any]:
        """Wait for a job's result."""
        return await self.result_by(job_id, None if response_model is None else form_of(response_model), timeout)

    def stream_of(self, job: AsyncJobHandle[Any] | str, timeout: float | None = None) -> AsyncTokenStream:
        """Iterate over the text of a job's answer, from its beginning; in one piece where it does not stream."""
        known = (job.id, job.tier, job.model) if isinstance(job, AsyncJobHandle) else (job, "", "")

        async def made() -> Asked:
            return Asked(*known, existing=True)

        return self._stream(made, self._core.waits_s(timeout))

    def wait(
        self, ids: str | AsyncJobHandle[Any] | Iterable[str | AsyncJobHandle[Any]], timeout: float | None = None
    ) -> AsyncIterator[Ended]:
        """Yield the result of each job, or its JobFailed, in the order in which they end."""
        limit = self._core.waits_s(timeout)
        every = [ids] if isinstance(ids, (str, AsyncJobHandle)) else list(ids)
        forms = {job.id: job.form for job in every if isinstance(job, AsyncJobHandle)}
        names = [job.id if isinstance(job, AsyncJobHandle) else job for job in every]
        return self._iterate(following.endings(self._core.asking, names, self.waiter, limit, forms))

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
        webhook: str | None = None,
        max_cost_usd: Decimal | float | str | None = None,
    ) -> AsyncBatchHandle:
        """Submit many requests as one batch: a path of a Groq batch file, or an iterable of what `submit_many` takes.

        Every line is checked before anything is accepted; the bytes are stored once. Raises InvalidBatch with a report
        by line, IdempotencyConflict. `max_cost_usd` caps what all lines cost together; one that does not fit fails.
        """
        given = Given(window, metadata, idempotency_key, max_cost_usd, webhook)
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
        return await self._run(batching.with_deliveries(self.door, found))

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
        return await self._run(gates.limits(self._core.asking, failover=True))

    async def maintenance(self) -> MaintenanceInfo:
        """Tell what is in maintenance, until when, and how many jobs are held."""
        return await self._run(gates.maintained(self._core.asking))

    async def refusals(self) -> list[Refused]:
        """Tell how often calls were refused in this hour and the last 24, by whom, why and of which model."""
        return await self._run(gates.refusals(self._core.asking))

    async def budgets(self) -> list[Budget]:
        """List the spend caps, that of everybody first, in nano-USD."""
        return await self._run(gates.budgets(self.door))

    # --- inside

    async def result_by(self, job_id: str, form: Form | None, timeout: float | None) -> Result[Any]:  # noqa: ASYNC109  the job goes on, unlike a cancelled task
        """Wait for a job's result and read it by a form, as its handle does."""
        limit = self._core.waits_s(timeout)
        return await self._run(result_of(self._core.asking, job_id, form, self.waiter, limit))

    async def _asked(self, ask: Ask, wanted: Any, timeout: float | None) -> Result[Any]:  # noqa: ASYNC109  the job goes on, unlike a cancelled task
        return await self._run(asked(self._core.asking, ask, wanted, self.waiter, timeout))

    async def _answer(self, ask: Ask, timeout: float | None) -> Job:  # noqa: ASYNC109  the job goes on, unlike a cancelled task
        return await self._run(self._core.asking.answer(ask, self.waiter, timeout))

    def _handle(self, asked: Asked, form: Form | None = None) -> AsyncJobHandle[Any]:
        return AsyncJobHandle(self, asked.id, asked.tier, asked.model, existing=asked.existing, form=form)

    def _stream(self, make: Callable[[], Awaitable[Asked]], timeout: float | None) -> AsyncTokenStream:
        def follow(job_id: str) -> AsyncGenerator[TokenEvent]:
            return self.waiter.readers.follow(job_id, tenant=self._core.tenant, heartbeat_s=HEARTBEAT_S)

        asking = self._core.asking
        return AsyncTokenStream(make, follow, timeout, self.cancel, lambda job_id: self._run(asking.look_after(job_id)))


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
