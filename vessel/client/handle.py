"""Handles of submitted jobs; they hold an id and a client, no state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from vessel.client.result import T

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from vessel.client.concurrent import AsyncGroqClient
    from vessel.client.following import JobEvent
    from vessel.client.result import Result
    from vessel.client.schema import Form
    from vessel.client.streaming import AsyncTokenStream, TokenStream
    from vessel.client.sync import GroqClient
    from vessel.watch.waiting import Waiting
    from vessel.wire import JobState


class _Handle(Generic[T]):
    def __init__(self, job_id: str, tier: str, model: str, *, existing: bool, form: Form | None) -> None:
        self.id = job_id
        self.tier = tier
        """The tier that was chosen when the job was made."""
        self.model = model
        """The model that was chosen; a result names the one that answered."""
        self.existing = existing
        """Whether the idempotency key had been used for the same request, whose job this is."""
        self.form = form
        """How `result` reads the answer: what was given as `response_model`."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} tier={self.tier} model={self.model}>"


class JobHandle(_Handle[T]):
    """A submitted job."""

    def __init__(
        self,
        client: GroqClient,
        job_id: str,
        tier: str,
        model: str,
        *,
        existing: bool = False,
        form: Form | None = None,
    ) -> None:
        """Hold on to a job through a client."""
        super().__init__(job_id, tier, model, existing=existing, form=form)
        self._client = client

    def state(self) -> JobState:
        """Read where it stands."""
        return self._client.state(self.id)

    def waiting(self) -> Waiting | None:
        """Say why it waits and until when, as far as that can be known; None once it runs or has ended."""
        return self._client.waiting(self.id)

    def result(self, timeout: float | None = None) -> Result[T]:
        """Wait for its result; a timeout leaves the job running. Raises WaitTimeout, JobFailed, InvalidAnswer."""
        return self._client.result_by(self.id, self.form, timeout)

    def stream(self, timeout: float | None = None) -> TokenStream:
        """Iterate over the text of its answer, from its beginning; in one piece unless it was submitted to stream."""
        return self._client.stream_of(self, timeout)

    def cancel(self) -> str:
        """Cancel it: `cancelled`, `cancelling` while its call is cut, or the state in which it had ended."""
        return self._client.cancel(self.id)

    def events(self, *, follow: bool = False) -> Iterator[JobEvent]:
        """Yield its life so far; with `follow` until it has ended."""
        return self._client.events(self.id, follow=follow)


class AsyncJobHandle(_Handle[T]):
    """A submitted job, for coroutines."""

    def __init__(
        self,
        client: AsyncGroqClient,
        job_id: str,
        tier: str,
        model: str,
        *,
        existing: bool = False,
        form: Form | None = None,
    ) -> None:
        """Hold on to a job through a client."""
        super().__init__(job_id, tier, model, existing=existing, form=form)
        self._client = client

    async def state(self) -> JobState:
        """Read where it stands."""
        return await self._client.state(self.id)

    async def waiting(self) -> Waiting | None:
        """Say why it waits and until when, as far as that can be known; None once it runs or has ended."""
        return await self._client.waiting(self.id)

    async def result(self, timeout: float | None = None) -> Result[T]:  # noqa: ASYNC109  the job goes on, unlike a cancelled task
        """Wait for its result; a timeout leaves the job running. Raises WaitTimeout, JobFailed, InvalidAnswer."""
        return await self._client.result_by(self.id, self.form, timeout)

    def stream(self, timeout: float | None = None) -> AsyncTokenStream:
        """Iterate over the text of its answer, from its beginning; in one piece unless it was submitted to stream."""
        return self._client.stream_of(self, timeout)

    async def cancel(self) -> str:
        """Cancel it: `cancelled`, `cancelling` while its call is cut, or the state in which it had ended."""
        return await self._client.cancel(self.id)

    def events(self, *, follow: bool = False) -> AsyncIterator[JobEvent]:
        """Yield its life so far; with `follow` until it has ended."""
        return self._client.events(self.id, follow=follow)
