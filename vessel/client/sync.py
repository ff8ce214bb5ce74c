"""The blocking client: thread-safe, and safe to carry over a fork."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, overload

from vessel.client import batching, core, following, gates, looking, survey
from vessel.client.asking import Asked
from vessel.client.batch_handle import BatchHandle
from vessel.client.batching import Document, raw_lines, results
from vessel.client.handle import JobHandle
from vessel.client.many import submit_many
from vessel.client.result import CodeResult, Result, T
from vessel.client.schema import form_of
from vessel.client.session import Session
from vessel.client.streaming import HEARTBEAT_S, TokenStream
from vessel.client.structured import asked, result_of, shaped
from vessel.client.submitting import Given, submit_batch
from vessel.client.submitting import estimate as estimate_batch
from vessel.submit import redis_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    from vessel.watch.waiting import Waiting
    from vessel.wire import JobState


class GroqClient(Session):
    """Ask Groq through the job queue. Nothing is sent before the first call."""

    # --- asking and waiting

    @overload
    def query(self, prompt: Prompt, *, response_model: None = None, **options: Unpack[WaitOptions]) -> Result: ...
    @overload
    def query(self, prompt: Prompt, *, response_model: type[T], **options: Unpack[WaitOptions]) -> Result[T]: ...
    def query(self, prompt: Prompt, *, response_model: Any = None, **options: Unpack[WaitOptions]) -> Result[Any]:
        """Ask and wait for the answer. An interrupt cancels the job.

        With `response_model`, a pydantic model or another type that JSON can hold, the result's `parsed` is of that
        type: by a strict JSON schema where the model has it, else checked; an answer that does not fit is asked for
        again at most twice, each time as a job of its own.

        Raises InvalidRequest, NoRedis, NoWorkers (before anything is enqueued), WaitTimeout (the job goes on),
        JobFailed (with every attempt), InvalidAnswer (a JobFailed; no answer fits `response_model`).
        """
        timeout, rest = self._core.timeout_of(options)
        return self._asked(core.query(prompt, rest), response_model, timeout)

    @overload
    def analyze(self, prompt: Prompt, *, response_model: None = None, **options: Unpack[WaitOptions]) -> Result: ...
    @overload
    def analyze(self, prompt: Prompt, *, response_model: type[T], **options: Unpack[WaitOptions]) -> Result[T]: ...
    def analyze(self, prompt: Prompt, *, response_model: Any = None, **options: Unpack[WaitOptions]) -> Result[Any]:
        """Ask as `query` does, for a strategic analysis unless another task type is named."""
        timeout, rest = self._core.timeout_of(options)
        return self._asked(core.analysis(prompt, rest), response_model, timeout)

    def generate_code(self, prompt: Prompt, language: str | None = None, **options: Unpack[WaitOptions]) -> CodeResult:
        """Ask as `query` does, for code: the result's `code` is the text without its Markdown fence."""
        timeout, rest = self._core.timeout_of(options)
        return CodeResult(self._answer(core.code(prompt, language, rest), timeout))

    def research(
        self,
        query: Prompt,
        tools: Sequence[BuiltinTool] = ("web_search",),
        max_results: int | None = None,
        **options: Unpack[BuiltinOptions],
    ) -> Result:
        """Ask as `query` does, with built-in tools; `sources` holds at most `max_results` pages."""
        timeout, rest = self._core.timeout_of(options)
        return Result(self._answer(core.research(query, tools, rest, max_results), timeout), max_sources=max_results)

    def execute(
        self,
        task: str,
        code: str | None = None,
        tools: Sequence[BuiltinTool] = ("code_execution",),
        **options: Unpack[BuiltinOptions],
    ) -> Result:
        """Ask as `query` does, to run code; `executed_tools` holds what ran, where the model tells."""
        timeout, rest = self._core.timeout_of(options)
        return Result(self._answer(core.execution(task, code, tools, rest), timeout))

    def stream(self, prompt: Prompt, **options: Unpack[WaitOptions]) -> TokenStream:
        """Ask as `query` does and iterate over pieces of the answer's text as they come; leaving early cancels the job.

        Once it has ended, the stream's `result` is what `query` gives. Raises what `query` raises; JobFailed with the
        reason `stream_broken` where the answer broke off after its first piece.
        """
        timeout, rest = self._core.timeout_of(options)
        return self.stream_ask(core.query(prompt, rest), timeout)

    def stream_ask(self, ask: Ask, timeout: float | None = None) -> TokenStream:
        """Stream a request that was composed before, as by the command line."""
        asked = self._run(self._core.asking.submit(ask.streamed(), "", waits=True))
        return self._stream(asked, self._core.waits_s(timeout))

    # --- asking without waiting

    @overload
    def submit(self, prompt: Prompt, *, response_model: None = None, **options: Unpack[SubmitOptions]) -> JobHandle: ...
    @overload
    def submit(self, prompt: Prompt, *, response_model: type[T], **options: Unpack[SubmitOptions]) -> JobHandle[T]: ...
    def submit(self, prompt: Prompt, *, response_model: Any = None, **options: Unpack[SubmitOptions]) -> JobHandle[Any]:
        """Enqueue and return at once, in the normal lane; workers need not be alive.

        With `stream=True` the answer is read by the handle's `stream`; without a reader for 10 s it is cancelled.
        With `response_model` the handle's `result` is read and repaired as that of `query` is.
        """
        ask, form = core.enqueued(prompt, options), None
        if response_model is not None:
            form = form_of(response_model)
            ask = shaped(ask, form)
        return self._handle(self._run(self._core.asking.submit(ask, self.waiter.reply)), form)

    def submit_many(self, requests: Iterable[Mapping[str, Any]]) -> list[JobHandle]:
        """Enqueue many: chat bodies with an optional `vessel` object, or `{"prompt": ...}` with keyword options.

        Written in chunks of 500. Raises InvalidLine for the first bad line; nothing of its chunk is written.
        """
        return [self._handle(a) for a in self._run(submit_many(self._core.asking, requests, self.waiter.reply))]

    def retry(self, job_id: str) -> JobHandle:
        """Run an ended job's request again as a new job. Raises JobNotFound, WrongState."""
        return self._handle(self._run(self._core.asking.retry(job_id, self.waiter.reply)))

    # --- jobs

    def job(self, job_id: str) -> Job:
        """Read a job with its payloads and attempts. Raises JobNotFound."""
        return self._run(looking.job_of(self._core.asking, job_id))

    def webhook(self, job: Job) -> dict[str, Any] | None:
        """Describe what became of a job's webhook; None where it has none."""
        return self._run(looking.webhook_of(self.door, job))

    def state(self, job_id: str) -> JobState:
        """Read where a job stands. Raises JobNotFound."""
        return self._run(looking.state_of(self._core.asking, job_id))

    def waiting(self, job: str | Job) -> Waiting | None:
        """Say why a job waits and until when; None for one that runs or has ended. Raises JobNotFound.

        A job that was read before, whole, is not read again.
        """
        if isinstance(job, str):
            return self._run(gates.waiting_of(self._core.asking, job))
        return self._run(gates.explained(self._core.asking, job))

    def jobs(
        self, state: str | None = None, tier: str | None = None, since: Since | None = None, limit: int = 50
    ) -> list[Job]:
        """List jobs without payloads and attempts, newest first; `since` is a time or an age such as `"2h"`."""
        return self._run(looking.jobs_of(self._core.asking, state, tier, since, limit))

    @overload
    def result(self, job_id: str, timeout: float | None = None, *, response_model: None = None) -> Result: ...
    @overload
    def result(self, job_id: str, timeout: float | None = None, *, response_model: type[T]) -> Result[T]: ...
    def result(self, job_id: str, timeout: float | None = None, *, response_model: Any = None) -> Result[Any]:
        """Wait for a job's result; with `response_model` it is read, and repaired, as that of `query` is.

        Raises JobNotFound, WaitTimeout (the job goes on), JobFailed, InvalidAnswer.
        """
        return self.result_by(job_id, None if response_model is None else form_of(response_model), timeout)

    def stream_of(self, job: JobHandle[Any] | str, timeout: float | None = None) -> TokenStream:
        """Iterate over the text of a job's answer, from its beginning; in one piece where it does not stream.

        Raises JobNotFound when it is first asked.
        """
        known = (job.id, job.tier, job.model) if isinstance(job, JobHandle) else (job, "", "")
        return self._stream(Asked(*known, existing=True), self._core.waits_s(timeout))

    def wait(
        self, ids: str | JobHandle[Any] | Iterable[str | JobHandle[Any]], timeout: float | None = None
    ) -> Iterator[Ended]:
        """Yield the result of each job, or its JobFailed, in the order in which they end.

        Raises JobNotFound, and WaitTimeout once `timeout` seconds have passed.
        """
        limit = self._core.waits_s(timeout)
        every = [ids] if isinstance(ids, (str, JobHandle)) else list(ids)
        forms = {job.id: job.form for job in every if isinstance(job, JobHandle)}
        names = [job.id if isinstance(job, JobHandle) else job for job in every]
        return self._iterate(following.endings(self._core.asking, names, self.waiter, limit, forms))

    def cancel(self, job_id: str) -> str:
        """Cancel: `cancelled`, `cancelling` while its call is cut, or the state in which it had ended."""
        return self._run(looking.cancel(self._core.asking, job_id))

    def events(self, job_id: str, *, follow: bool = False) -> Iterator[JobEvent]:
        """Yield a job's life so far, oldest first; with `follow` until it has ended. Raises JobNotFound."""
        return self._iterate(following.events(self._core.asking, job_id, follow=follow))

    # --- batches

    def submit_batch(
        self,
        lines: Source,
        *,
        window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
        webhook: str | None = None,
        max_cost_usd: Decimal | float | str | None = None,
    ) -> BatchHandle:
        """Submit many requests as one batch: a path of a Groq batch file, or an iterable of what `submit_many` takes.

        Every line is checked before anything is accepted; the bytes are stored once. Raises InvalidBatch with a report
        by line, IdempotencyConflict. `max_cost_usd` caps what all lines cost together; one that does not fit fails.
        """
        given = Given(window, metadata, idempotency_key, max_cost_usd, webhook)
        made, estimate = self._run(submit_batch(self._core.asking, lines, given))
        return BatchHandle(self, made.id, estimate)

    def estimate_batch(self, lines: Source) -> Estimate:
        """Estimate a batch's cost and the time that the quota allows it in; nothing is sent. Raises InvalidBatch."""
        return self._run(estimate_batch(self._core.asking, lines))

    def batch(self, batch_id: str) -> BatchHandle:
        """Hold a batch that was submitted before; nothing is asked yet."""
        return BatchHandle(self, batch_id)

    def batches(self, limit: int = 20) -> list[Batch]:
        """List batches, newest first."""
        read, key = self.door.batches.batch, self.door.keys.batches(self._core.tenant)
        found, _ = self._run(batching.page(self.door, key, read, None, limit))
        return self._run(batching.with_deliveries(self.door, found))

    def batch_progress(self, batch_id: str) -> Batch:
        """Read a batch as of this moment. Raises BatchNotFound."""
        return self._run(batching.batch_of(self.door, self._core.tenant, batch_id))

    def cancel_batch(self, batch_id: str) -> Batch:
        """Cancel a batch; results stay. Raises BatchNotFound, WrongState when it has ended."""
        return self._run(batching.cancel_batch(self.door, self._core.tenant, batch_id))

    def batch_document(self, batch_id: str, part: str) -> Lines:
        """Open a batch's results (`out`) or errors (`err`), to be read on and on."""
        return Lines(self, Document(self.door, batch_id, part))

    # --- the stack

    def route(self, prompt: Prompt, **options: Unpack[Options]) -> RoutePlan:
        """Tell where a request would go and what it would cost; submits nothing and works without Redis."""
        return self._run(survey.route(self._core.asking, core.submission(prompt, options)))

    def models(self) -> list[ModelInfo]:
        """List every model and whether it is served; works without Redis."""
        return self._run(survey.models(self._core.asking))

    def tiers(self) -> list[TierInfo]:
        """List every tier with its live workers and queue lengths; works without Redis."""
        return self._run(survey.tiers(self._core.asking))

    def limits(self) -> list[GateInfo]:
        """Look at the gate of every model in use: headroom of each limit, breaker, bookings, who waits."""
        return self._run(gates.limits(self._core.asking, failover=True))

    def maintenance(self) -> MaintenanceInfo:
        """Tell what is in maintenance, until when, and how many jobs are held."""
        return self._run(gates.maintained(self._core.asking))

    def refusals(self) -> list[Refused]:
        """Tell how often calls were refused in this hour and the last 24, by whom, why and of which model."""
        return self._run(gates.refusals(self._core.asking))

    def budgets(self) -> list[Budget]:
        """List the spend caps, that of everybody first, in nano-USD."""
        return self._run(gates.budgets(self.door))

    # --- inside

    def result_by(self, job_id: str, form: Form | None, timeout: float | None) -> Result[Any]:
        """Wait for a job's result and read it by a form, as its handle does."""
        limit = self._core.waits_s(timeout)
        return self._run(result_of(self._core.asking, job_id, form, self.waiter, limit))

    def _asked(self, ask: Ask, wanted: Any, timeout: float | None) -> Result[Any]:
        return self._run(asked(self._core.asking, ask, wanted, self.waiter, timeout))

    def _answer(self, ask: Ask, timeout: float | None) -> Job:
        return self._run(self._core.asking.answer(ask, self.waiter, timeout))

    def _handle(self, asked: Asked, form: Form | None = None) -> JobHandle[Any]:
        return JobHandle(self, asked.id, asked.tier, asked.model, existing=asked.existing, form=form)

    def _stream(self, asked: Asked, timeout: float | None) -> TokenStream:
        from vessel.watch.tokens import follow  # noqa: PLC0415  only who streams needs it

        url = redis_url(self._core.settings)
        events = follow(url, self.door.store, self.runner, asked.id, tenant=self._core.tenant, heartbeat_s=HEARTBEAT_S)
        asking = self._core.asking
        return TokenStream(
            asked, events, timeout, lambda: self.cancel(asked.id), lambda: self._run(asking.look_after(asked.id))
        )


class Lines:
    """A document of a batch, read on from where it was left."""

    def __init__(self, client: GroqClient, document: Document) -> None:
        """Begin at its start."""
        self._client, self._document = client, document

    def read(self) -> Iterator[BatchResult]:
        """Yield what has come since."""
        return self._client._iterate(results(self._document))  # noqa: SLF001  one module

    def raw(self) -> Iterator[bytes]:
        """Yield what has come since, as the lines of the document."""
        return self._client._iterate(raw_lines(self._document))  # noqa: SLF001  one module
