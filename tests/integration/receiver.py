"""A receiver of webhooks on a real socket: it keeps what comes and answers as it is told."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from standardwebhooks import Webhook

from tests.waiting import wait_until

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
HANG = b""


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    """Write an answer."""
    head = "".join(f"{line}\r\n" for line in (f"HTTP/1.1 {status} X", *headers, f"content-length: {len(body)}"))
    return head.encode() + b"\r\n" + body


@dataclass(frozen=True)
class Got:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The message's id."""
        return self.headers["webhook-id"]

    @property
    def message(self) -> Any:
        """The message, not verified."""
        return json.loads(self.body)

    def verified(self, secret: str) -> Any:
        """The message, verified as a receiver does. Raises WebhookVerificationError."""
        return Webhook(secret).verify(self.body, self.headers)


class Receiver:
    """Listens on loopback, in a thread of its own. Answers are taken in turn; the last one stays."""

    def __init__(self, *answers: bytes, tls: ssl.SSLContext | None = None) -> None:
        """Take the answers; an empty one is none at all."""
        self.answers = list(answers or (OK,))
        self.got: list[Got] = []
        self.peers = 0
        self.port = 0
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        """Cut all connections."""
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/hook"

    def wait(self, count: int = 1, which: Callable[[Got], bool] = lambda _: True) -> list[Got]:
        """Wait for so many requests of a kind."""

        def enough() -> list[Got] | None:
            found = [one for one in self.got if which(one)]
            return found if len(found) >= count else None

        return wait_until(enough, 40) or []

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                await self._serve(reader, writer)
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.got.append(Got(head[0].split(" ")[1], headers, body))
        told = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if told == HANG:
            await asyncio.Event().wait()
        writer.write(told)
        await writer.drain()
