"""The blocking client: thread-safe, and safe to carry over a fork."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, assert_never

from vessel.client import batching, core, following, gates, looking, survey
from vessel.client.asking import Asked
from vessel.client.batch_handle import BatchHandle
from vessel.client.batching import Document, raw_lines, results
from vessel.client.handle import JobHandle
from vessel.client.many import submit_many
from vessel.client.result import CodeResult, Result
from vessel.client.steps import Await, Effect, Flow, Listen, Run, Steps, drive, iterate
from vessel.client.streaming import HEARTBEAT_S, TokenStream
from vessel.client.submitting import Given, submit_batch
from vessel.client.submitting import estimate as estimate_batch
from vessel.submit import Door, redis_url
from vessel.watch import succeeded

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
    from vessel.client.submitting import Source
    from vessel.client.survey import ModelInfo, RoutePlan, TierInfo
    from vessel.jobs.model import Job
    from vessel.keyspace.connect import SyncRunner
    from vessel.settings import Settings
    from vessel.usage.budgets import Budget
    from vessel.watch.threads import Waiter
    from vessel.watch.waiting import Waiting
    from vessel.wire import JobState

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Session:
    """What a process opens once: connections and the tail that wakes its waiters."""

    pid: int
    runner: SyncRunner
    waiter: Waiter


def _open(shared: core.Core) -> _Session:
    # Imported here, because redis costs as much as the rest of this client.
    from vessel.keyspace.connect import SyncRunner, connect  # noqa: PLC0415
    from vessel.watch.threads import Waiter  # noqa: PLC0415

    url = redis_url(shared.settings)
    runner = SyncRunner(connect(url))
    return _Session(os.getpid(), runner, Waiter(url, shared.door.keys, shared.door.store, runner))


class _Opening:
    """Opening is short, so one lock serves every client; a child's is new, for the parent's may be held for ever."""

    lock = threading.Lock()

    @classmethod
    def renew(cls) -> None:
        cls.lock = threading.Lock()


os.register_at_fork(after_in_child=_Opening.renew)


class GroqClient:
    """Ask Groq through the job queue. Nothing is sent before the first call."""

    def __init__(
        self,
        redis_url: str | None = None,
        *,
        settings: Settings | None = None,
        tenant: str = "default",
        timeout: float | None = None,
        **overrides: object,
    ) -> None:
        """Take settings from the environment, or given as a whole or by name (`namespace=`, `org=`).

        `timeout` bounds, in seconds, every call that waits and names none itself. Raises SettingsError.
        """
        self._core = core.Core(redis_url, settings, tenant, timeout, overrides)
        self._session: _Session | None = None

    # --- asking and waiting

    def query(self, prompt: Prompt, **options: Unpack[WaitOptions]) -> Result:
        """Ask and wait for the answer. An interrupt cancels the job.

        Raises InvalidRequest, NoRedis, NoWorkers (before anything is enqueued), WaitTimeout (the job goes on),
        JobFailed (with every attempt).
        """
        timeout, rest = self._core.timeout_of(options)
        return Result(self._answer(core.query(prompt, rest), timeout))

    def analyze(self, prompt: Prompt, **options: Unpack[WaitOptions]) -> Result:
        """Ask as `query` does, for a strategic analysis unless another task type is named."""
        timeout, rest = self._core.timeout_of(options)
        return Result(self._answer(core.analysis(prompt, rest), timeout))

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
        return Result(self._answer(core.research(query, tools, rest), timeout), max_sources=max_results)

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
        return self._stream(asked, self._core.timeout if timeout is None else timeout)

    # --- asking without waiting

    def submit(self, prompt: Prompt, **options: Unpack[SubmitOptions]) -> JobHandle:
        """Enqueue and return at once, in the normal lane; workers need not be alive.

        With `stream=True` the answer is read by the handle's `stream`; without a reader for 10 s it is cancelled.
        """
        ask = core.enqueued(prompt, options)
        return self._handle(self._run(self._core.asking.submit(ask, self.waiter.reply)))

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

    def result(self, job_id: str, timeout: float | None = None) -> Result:
        """Wait for a job's result. Raises JobNotFound, WaitTimeout, JobFailed."""
        limit = self._core.timeout if timeout is None else timeout
        return Result(succeeded(self._run(self._core.asking.end_of(job_id, self.waiter, limit))))

    def stream_of(self, job: JobHandle | str, timeout: float | None = None) -> TokenStream:
        """Iterate over the text of a job's answer, from its beginning; in one piece where it does not stream.

        Raises JobNotFound when it is first asked.
        """
        known = (job.id, job.tier, job.model) if isinstance(job, JobHandle) else (job, "", "")
        return self._stream(Asked(*known, existing=True), self._core.timeout if timeout is None else timeout)

    def wait(self, ids: Iterable[str | JobHandle], timeout: float | None = None) -> Iterator[Ended]:
        """Yield the result of each job, or its JobFailed, in the order in which they end.

        Raises JobNotFound, and WaitTimeout once `timeout` seconds have passed.
        """
        limit = self._core.timeout if timeout is None else timeout
        names = [job.id if isinstance(job, JobHandle) else job for job in ids]
        return self._iterate(following.endings(self._core.asking, names, self.waiter.reply, limit))

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
        max_cost_usd: Decimal | float | str | None = None,
    ) -> BatchHandle:
        """Submit many requests as one batch: a path of a Groq batch file, or an iterable of what `submit_many` takes.

        Every line is checked before anything is accepted; the bytes are stored once. Raises InvalidBatch with a report
        by line, IdempotencyConflict. `max_cost_usd` caps what all lines cost together; one that does not fit fails.
        """
        given = Given(window, metadata, idempotency_key, max_cost_usd)
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
        return found

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
        return self._run(gates.limits(self._core.asking))

    def maintenance(self) -> MaintenanceInfo:
        """Tell what is in maintenance, until when, and how many jobs are held."""
        return self._run(gates.maintained(self._core.asking))

    def budgets(self) -> list[Budget]:
        """List the spend caps, that of everybody first, in nano-USD."""
        return self._run(gates.budgets(self._core.asking))

    # --- inside

    @property
    def door(self) -> Door:
        """The way in that this client uses."""
        return self._core.door

    @property
    def runner(self) -> SyncRunner:
        """The connections, opened when first needed. Raises NoRedis."""
        return self._opened().runner

    @property
    def waiter(self) -> Waiter:
        """What wakes this process' waiting calls. Raises NoRedis."""
        return self._opened().waiter

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        session, self._session = self._session, None
        if session is not None and session.pid == os.getpid():
            session.waiter.close()
            session.runner.client.close()

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def _opened(self) -> _Session:
        session, pid = self._session, os.getpid()
        if session is not None and session.pid == pid:
            return session
        with _Opening.lock:
            session = self._session
            if session is None or session.pid != pid:
                session = self._session = _open(self._core)
            return session

    def _answer(self, ask: Ask, timeout: float | None) -> Job:
        return self._run(self._core.asking.answer(ask, self.waiter, timeout))

    def _handle(self, asked: Asked) -> JobHandle:
        return JobHandle(self, asked.id, asked.tier, asked.model, existing=asked.existing)

    def _stream(self, asked: Asked, timeout: float | None) -> TokenStream:
        from vessel.watch.tokens import follow  # noqa: PLC0415  only who streams needs it

        url = redis_url(self._core.settings)
        events = follow(url, self.door.store, self.runner, asked.id, tenant=self._core.tenant, heartbeat_s=HEARTBEAT_S)
        asking = self._core.asking
        return TokenStream(
            asked, events, timeout, lambda: self.cancel(asked.id), lambda: self._run(asking.look_after(asked.id))
        )

    def _run(self, steps: Steps[T]) -> T:
        return drive(steps, self._perform)

    def _iterate(self, flow: Flow[T]) -> Iterator[T]:
        return iterate(flow, self._perform)

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Run(calls):
                return self.runner.run_all(calls)
            case Listen(call):
                return self.runner.run(call)
            case Await(job_id, timeout_s):
                return self.waiter.wait(job_id, timeout_s)
            case _ as never:
                assert_never(never)


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
