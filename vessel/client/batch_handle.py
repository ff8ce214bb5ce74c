"""What a client holds of a batch: its progress, results, end and estimate; sync and async."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from vessel.client.batching import ERR, OUT
from vessel.errors import WaitTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from vessel.batches.estimate import Estimate
    from vessel.batches.model import Batch
    from vessel.client.batching import BatchResult
    from vessel.client.concurrent import AsyncGroqClient
    from vessel.client.sync import GroqClient

LOOK_S = 0.25
"""How often a waiting handle looks at its batch; one command each time, however many lines it has."""


def _left(until: float | None, batch_id: str) -> float:
    """Say how long to wait for the next look. Raises WaitTimeout."""
    if until is None:
        return LOOK_S
    left = until - time.monotonic()
    if left <= 0:
        raise WaitTimeout(f"Batch {batch_id} did not end in the time given; it goes on. Ask again, or cancel it.")
    return min(LOOK_S, left)


class BatchHandle:
    """A batch of a client's. `estimate` is what was known before it was sent; None for one that was looked up."""

    def __init__(self, client: GroqClient, batch_id: str, estimate: Estimate | None = None) -> None:
        """Name the batch."""
        self.id, self.estimate, self._client = batch_id, estimate, client

    def __repr__(self) -> str:
        """Show the id."""
        return f"BatchHandle({self.id!r})"

    def progress(self) -> Batch:
        """Read its status, exact counts, usage and cost as of this moment. Raises BatchNotFound."""
        return self._client.batch_progress(self.id)

    def results(self, *, follow: bool = True) -> Iterator[BatchResult]:
        """Yield a result for each line that has one, in the order in which they end; with `follow` until all have."""
        yield from self._lines(OUT, follow=follow)

    def errors(self, *, follow: bool = True) -> Iterator[BatchResult]:
        """Yield the lines that ended without a result: failed, cancelled and expired ones."""
        yield from self._lines(ERR, follow=follow)

    def wait(self, timeout: float | None = None) -> Batch:
        """Wait for the end of the whole batch. Raises WaitTimeout; the batch goes on."""
        until = None if timeout is None else time.monotonic() + timeout
        while not (batch := self.progress()).ended:
            time.sleep(_left(until, self.id))
        return batch

    def cancel(self) -> Batch:
        """Cancel: results stay, waiting lines end at once, running ones are cut. Raises WrongState when it is over."""
        return self._client.cancel_batch(self.id)

    def _lines(self, part: str, *, follow: bool) -> Iterator[BatchResult]:
        document = self._client.batch_document(self.id, part)
        while True:
            ended = not follow or self.progress().ended
            yield from document.read()
            if ended:
                return
            time.sleep(LOOK_S)


class AsyncBatchHandle:
    """A batch of an async client's. `estimate` is what was known before it was sent."""

    def __init__(self, client: AsyncGroqClient, batch_id: str, estimate: Estimate | None = None) -> None:
        """Name the batch."""
        self.id, self.estimate, self._client = batch_id, estimate, client

    def __repr__(self) -> str:
        """Show the id."""
        return f"AsyncBatchHandle({self.id!r})"

    async def progress(self) -> Batch:
        """Read its status, exact counts, usage and cost as of this moment. Raises BatchNotFound."""
        return await self._client.batch_progress(self.id)

    async def results(self, *, follow: bool = True) -> AsyncIterator[BatchResult]:
        """Yield a result for each line that has one, in the order in which they end; with `follow` until all have."""
        async for result in self._lines(OUT, follow=follow):
            yield result

    async def errors(self, *, follow: bool = True) -> AsyncIterator[BatchResult]:
        """Yield the lines that ended without a result: failed, cancelled and expired ones."""
        async for result in self._lines(ERR, follow=follow):
            yield result

    async def wait(self, timeout: float | None = None) -> Batch:  # noqa: ASYNC109  the batch goes on, unlike a cancelled task
        """Wait for the end of the whole batch. Raises WaitTimeout; the batch goes on."""
        from asyncio import sleep  # noqa: PLC0415  whoever asks here has it; others need not pay for it

        until = None if timeout is None else time.monotonic() + timeout
        while not (batch := await self.progress()).ended:  # noqa: ASYNC110  what it waits for is in Redis
            await sleep(_left(until, self.id))
        return batch

    async def cancel(self) -> Batch:
        """Cancel: results stay, waiting lines end at once, running ones are cut. Raises WrongState when it is over."""
        return await self._client.cancel_batch(self.id)

    async def _lines(self, part: str, *, follow: bool) -> AsyncIterator[BatchResult]:
        from asyncio import sleep  # noqa: PLC0415  as above

        document = self._client.batch_document(self.id, part)
        while True:
            ended = not follow or (await self.progress()).ended
            async for result in document.read():
                yield result
            if ended:
                return
            await sleep(LOOK_S)
