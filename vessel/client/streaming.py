"""An answer as it comes: an iterator over pieces of text, which holds the whole result once it has ended."""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, Self

from vessel.client.asking import LOOK_S, Asked
from vessel.client.result import Result
from vessel.client.sources import MarkFilter
from vessel.errors import JobFailed, VesselError, WaitTimeout
from vessel.watch.tokens import Ended, TokenEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

HEARTBEAT_S = 0.25
"""How late a timeout, or a look after a silent job, may come."""


class _Stream:
    """What both kinds know. `cut` cancels the job; a stream that did not make it has none."""

    def __init__(self, timeout_s: float | None) -> None:
        self.job_id = self.tier = self.model = ""
        self.result: Result | None = None
        """The whole answer, with who gave it and its cost; None before the end."""
        self._timeout_s = timeout_s
        self._until = None if timeout_s is None else time.monotonic() + timeout_s
        self._over = False
        self._marks: MarkFilter | None = None
        self._look_at = time.monotonic() + LOOK_S

    def _looks(self, event: TokenEvent) -> bool:
        """Tell whether to look after the job now: it is silent from its beginning on."""
        if event is not None:
            self._look_at = math.inf
        if time.monotonic() < self._look_at:
            return False
        self._look_at = time.monotonic() + LOOK_S
        return True

    @property
    def whole(self) -> Result:
        """The result of a stream that was read to its end. Raises RuntimeError before."""
        if self.result is None:
            raise RuntimeError("the stream has not been read to its end")
        return self.result

    def _made(self, asked: Asked) -> None:
        self.job_id, self.tier, self.model = asked.id, asked.tier, asked.model
        self._marks = MarkFilter() if asked.marked else None

    def _text(self, event: TokenEvent) -> str:
        """Read what an event adds; an answer that was not streamed comes whole, at its end."""
        if isinstance(event, Ended):
            self._over, self.result = True, Result(event.job)
            if not event.streamed:
                return self.result.text
            return "" if self._marks is None else self._marks.end()
        if self._until is not None and time.monotonic() >= self._until:
            text = f"The answer of job {self.job_id} was not whole within {self._timeout_s:g} s, so reading it ended. "
            raise WaitTimeout(f"{text}The job is cancelled unless others read it.", job_id=self.job_id)
        if event is None:
            return ""
        return event.text if self._marks is None else self._marks.feed(event.text)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.job_id} tier={self.tier} model={self.model}>"


class TokenStream(_Stream):
    """Pieces of an answer's text. Leaving the loop early, or closing, cancels a job that was made by `stream`."""

    def __init__(
        self,
        asked: Asked,
        events: Generator[TokenEvent],
        timeout_s: float | None,
        cut: Callable[[], object],
        look: Callable[[], bool],
    ) -> None:
        """Read these events; `look` looks after a silent job and tells whether to do so again."""
        super().__init__(timeout_s)
        self._made(asked)
        self._texts = self._read(events, asked, cut, look)

    def _read(
        self, events: Generator[TokenEvent], asked: Asked, cut: Callable[[], object], look: Callable[[], bool]
    ) -> Generator[str]:
        try:
            for event in events:
                if self._looks(event) and not look():
                    self._look_at = math.inf
                text = self._text(event)
                if text:
                    yield text
        except JobFailed:
            self._over = True
            raise
        finally:
            events.close()
            with contextlib.suppress(VesselError):
                if not (self._over or asked.existing):
                    cut()

    def __iter__(self) -> Self:
        """Iterate over the pieces."""
        return self

    def __next__(self) -> str:
        """Wait for the next piece. Raises JobFailed, WaitTimeout, RedisUnreachable."""
        return next(self._texts)

    def close(self) -> None:
        """Stop reading."""
        self._texts.close()

    def __enter__(self) -> Self:
        """Use as a context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop reading."""
        self.close()


class AsyncTokenStream(_Stream):
    """TokenStream for coroutines; its job is made when the first piece is asked for."""

    def __init__(
        self,
        make: Callable[[], Awaitable[Asked]],
        follow: Callable[[str], AsyncGenerator[TokenEvent]],
        timeout_s: float | None,
        cut: Callable[[str], Awaitable[object]],
        look: Callable[[str], Awaitable[bool]],
    ) -> None:
        """Make the job by `make`, and cancel one that is new by `cut`; `look` is TokenStream's."""
        super().__init__(timeout_s)
        self._texts = self._read(make, follow, cut, look)

    async def _read(
        self,
        make: Callable[[], Awaitable[Asked]],
        follow: Callable[[str], AsyncGenerator[TokenEvent]],
        cut: Callable[[str], Awaitable[object]],
        look: Callable[[str], Awaitable[bool]],
    ) -> AsyncGenerator[str]:
        asked = await make()
        self._made(asked)
        events = follow(asked.id)
        try:
            async for event in events:
                if self._looks(event) and not await look(asked.id):
                    self._look_at = math.inf
                text = self._text(event)
                if text:
                    yield text
        except JobFailed:
            self._over = True
            raise
        finally:
            with contextlib.suppress(VesselError):
                await events.aclose()
                if not (self._over or asked.existing):
                    await cut(asked.id)

    def __aiter__(self) -> Self:
        """Iterate over the pieces."""
        return self

    async def __anext__(self) -> str:
        """Wait for the next piece."""
        return await anext(self._texts)

    async def close(self) -> None:
        """Stop reading."""
        await self._texts.aclose()

    async def __aenter__(self) -> Self:
        """Use as a context."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop reading."""
        await self.close()
