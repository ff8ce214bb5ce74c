"""A call whose answer is read as it comes: its pieces go into Redis at once, and it is cut when nobody reads them."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from vessel.errors import Unreachable
from vessel.execute.persist import persist
from vessel.jobs.tokens import READER_GONE_MS, Batch, last_read, stream
from vessel.observe.logs import get_logger
from vessel.registry import Vessel
from vessel.upstream.gather import Pace

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from vessel.execute.plan import Plan
    from vessel.execute.process import Executor
    from vessel.jobs.model import Job
    from vessel.jobs.steps import Held
    from vessel.upstream.outcome import Outcome

CHECK_S = 1.0
PROBE_DEADLINE_S = 20.0
"""A call that looks whether a model is back is given up sooner: it may hang, and the next look waits for it."""

UNREAD = f"Nobody has read the answer for {READER_GONE_MS / 1000:g} s"
_UNSTREAMED = "json_schema"
"""Groq refuses a stream of such an answer (groq-facts 6); readers get it as a whole."""

log = get_logger(__name__)


def left_unread(executor: Executor, job: Job) -> bool:
    """Tell whether a job had readers and they have gone, so that its answer would go nowhere."""
    return job.streams and job.read_at is not None and executor.now_ms() - job.read_at >= READER_GONE_MS


class Readers:
    """Who reads the answer of one call. Inside its `with` block pieces are written and absent readers end the call.

    A job that does not stream has none, and nothing is done for it.
    """

    def __init__(self, executor: Executor, held: Held, attempt: int, cut: Callable[[str], None]) -> None:
        """Serve the readers of a claimed job; `cut` ends the call, for the reason it is given."""
        self.executor, self.held, self.attempt, self._cut = executor, held, attempt, cut
        self._waiting: list[dict[str, Any]] = []
        self._head: dict[str, Any] | None = None
        self._batches = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._writing: asyncio.Task[None] | None = None

    @property
    def served(self) -> bool:
        """Tell whether a reader may have seen a part of the answer."""
        return self._batches > 0

    async def call(self, planned: Plan, attempt: str, *, probes: bool) -> Outcome:
        """Call Groq or the failover endpoint, streamed where the job has readers and the vessel can.

        A call that `probes` whether a model is back is given up sooner; a stream shows that by its first token.
        """
        executor, model = self.executor, planned.call.model
        upstream = executor.failover if model.vessel is Vessel.OPENAI else executor.upstream
        form = planned.body.get("response_format")
        whole = model.vessel is Vessel.OPENAI or (isinstance(form, dict) and form.get("type") == _UNSTREAMED)
        sooner = PROBE_DEADLINE_S if probes else math.inf
        if whole or not self.held.job.streams:
            deadline_s = min(planned.deadline_s, sooner)
            return await upstream.call(model.served_id, planned.body, deadline_s=deadline_s, attempt=attempt)
        settings = executor.settings
        first_token_s = min(settings.first_token_timeout, sooner)
        pace = Pace(planned.deadline_s, first_token_s, settings.stream_idle_timeout)
        return await executor.upstream.stream(
            model.served_id, planned.body, pace=pace, attempt=attempt, take=self._take
        )

    async def __aenter__(self) -> Self:
        """Begin to look after the readers."""
        if self.held.job.streams:
            self._tasks.append(asyncio.ensure_future(self._watch()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have everything written before the job's end is; after an error what is left is dropped."""
        for task in self._tasks:
            task.cancel()
        if self._writing is not None:
            if kind is not None:
                self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing

    def _take(self, head: dict[str, Any], piece: dict[str, Any]) -> None:
        """Take a piece; those of one turn of the event loop, or of one round trip, are written together."""
        self._head = self._head or head
        self._waiting.append(piece)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        while self._waiting:
            pieces, self._waiting = self._waiting, []
            self._batches += 1
            batch = Batch(self._batches, pieces, self._head if self._batches == 1 else None)
            try:
                answer = await persist(self.executor.runner, stream(self.held, self.attempt, batch))
            except Unreachable:
                self._cut("Redis could not be reached for a minute")
                return
            if answer.word == "superseded":
                self._waiting.clear()
                self._cut("Another worker had taken the job over")
            elif answer.word == "cancel_requested":
                self._cut("The job was cancelled")

    async def _watch(self) -> None:
        """Cut the call once nobody has read for long; whoever comes has that long from the call's start, too."""
        since = self.executor.now_ms()
        while True:
            await asyncio.sleep(CHECK_S)
            try:
                read_at = await self.executor.runner.run(last_read(self.executor.keys, self.held.job.id))
            except Unreachable:  # readers cannot say that they are there either
                since = self.executor.now_ms()
                continue
            if self.executor.now_ms() - max(read_at, since) >= READER_GONE_MS:
                log.info("stream.unread", job_id=self.held.job.id, attempt=self.attempt)
                self._cut(UNREAD)
                return
