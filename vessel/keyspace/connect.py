"""Connections and the two runners, sync for producers and async for workers; a Redis call is defined once for both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import redis
import redis.asyncio as aredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel as AsyncSentinel
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoScriptError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry
from redis.sentinel import Sentinel

from vessel.errors import RedisRefused, RedisUnreachable, SettingsError
from vessel.settings.redis_urls import SENTINEL, sentinels_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from limits.aio.storage import Storage

    from vessel.keyspace.script import Call
    from vessel.settings.redis_urls import Sentinels

T = TypeVar("T")
SOCKET_TIMEOUT_S = 5.0
PIPELINE_SIZE = 128
FLUSHES_AT_ONCE = 4
_REFUSALS = {
    "OOM": "Its memory is full: free some, or raise maxmemory.",
    "MISCONF": "It cannot write to its disk: free space there.",
    "READONLY": "It is a replica: name the primary, or the sentinels, in VESSEL_REDIS_URL.",
    "NOPERM": "Give its ACL user the commands and keys that Vessel needs.",
    "NOREPLICAS": "Too few of its replicas are connected: start them.",
}
_PASSING = {
    "BUSY": "It runs a script that takes too long.",
    "LOADING": "It reads its data after a start.",
    "MASTERDOWN": "It is a replica that has lost its primary.",
    "CLUSTERDOWN": "Its cluster is not whole.",
    "TRYAGAIN": "Its cluster moves keys.",
}
"""What is over by itself, or with an operator's help: redis-py has no class for some, and retries none but LOADING."""

_NO_SUCH_DATABASE = "DB index is out of range"
_OPTIONS_FAULT = (
    "VESSEL_REDIS_URL has an option after its '?' that is not known or has a value it cannot have; "
    "those of redis-py are taken, such as ssl_ca_certs=/path"
)


def _options() -> dict[str, Any]:
    return {"socket_timeout": SOCKET_TIMEOUT_S, "socket_connect_timeout": 2.0, "health_check_interval": 25}


def _primary(found: Sentinels) -> dict[str, Any]:
    return {"db": found.database, "username": found.username, "password": found.password}


def _client(kind: Any, url: str, options: dict[str, Any]) -> Any:
    """Make a client, and try what its address says of connections on one that is not opened. Raises SettingsError."""
    try:
        client = kind.from_url(url, **options)
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (TypeError, ValueError, RedisError):
        raise SettingsError([_OPTIONS_FAULT]) from None
    return client


def connect(url: str) -> redis.Redis:
    """Open a sync client; redis, rediss, unix and sentinel URLs. Nothing is sent yet. Raises SettingsError."""
    retry = Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), 3)
    if url.startswith(SENTINEL):
        found = sentinels_of(url)
        primary: redis.Redis = Sentinel(found.nodes, **_options()).master_for(
            found.master, retry=retry, **_primary(found)
        )
        return primary
    client: redis.Redis = _client(redis.Redis, url, _options() | {"retry": retry})
    return client


def connect_async(url: str, *, blocking_s: float = 0.0) -> aredis.Redis:
    """Open an async client; `blocking_s` widens the socket timeout for blocking reads. Nothing is sent yet.

    Raises SettingsError.
    """
    retry = AsyncRetry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), 3)
    options = _options() | {"socket_timeout": SOCKET_TIMEOUT_S + blocking_s}
    if url.startswith(SENTINEL):
        found = sentinels_of(url)
        primary: aredis.Redis = AsyncSentinel(found.nodes, **_options()).master_for(
            found.master, retry=retry, **options, **_primary(found)
        )
        return primary
    client: aredis.Redis = _client(aredis.Redis, url, options | {"retry": retry})
    return client


def as_vessel_error(error: Exception) -> Exception:
    """Turn a Redis client's error into ours: unreachable, refused, or the error itself."""
    if isinstance(error, AuthenticationError) or str(error).startswith(("NOAUTH", "WRONGPASS")):
        return RedisRefused(
            "Redis answered, but did not take the name or password. Nothing was done. Correct VESSEL_REDIS_URL."
        )
    if isinstance(error, InvalidResponse):
        return RedisUnreachable(
            "What answers at VESSEL_REDIS_URL is not a Redis. Nothing was done. Check its host and port."
        )
    if told := _of_reply(error):
        return told
    return RedisUnreachable() if isinstance(error, (RedisConnectionError, RedisTimeoutError, OSError)) else error


def _of_reply(error: Exception) -> RedisUnreachable | RedisRefused | None:
    """Read what Redis itself answered, as far as it says that this is no time, or no place, for commands."""
    if not isinstance(error, (ResponseError, BusyLoadingError)):
        return None
    # redis-py takes the first word off the errors that it has a class for.
    kind = error.status_code or str(error).split(" ", 1)[0]
    if kind in _PASSING:
        return RedisUnreachable(
            f"Redis answers, but takes no commands now ({kind}); nothing was accepted. {_PASSING[kind]} Try again soon."
        )
    if _NO_SUCH_DATABASE in str(error):
        return RedisRefused(
            "Redis has no database of the number in VESSEL_REDIS_URL. Nothing was done. Name one that it has, as 0."
        )
    if kind in _REFUSALS:
        return RedisRefused(f"Redis refused the write ({kind}); nothing was accepted. {_REFUSALS[kind]}")
    return None


def quota_storage(runner: AsyncRunner, prefix: str) -> Storage:
    """Let `limits` count in keys that begin with a prefix, over a runner's own connections."""
    from limits.aio.storage import RedisStorage  # noqa: PLC0415  only the REST face counts requests

    # With a pool of ours the address is read only for its kind; `limits` knows neither sentinel:// nor our timeouts.
    pool: Any = runner.client.connection_pool
    return RedisStorage("async+redis://", implementation="redispy", key_prefix=prefix, connection_pool=pool)


class SyncRunner:
    """Run calls one by one or in one round trip, for producers."""

    def __init__(self, client: redis.Redis) -> None:
        """Take an open client; it is not closed here."""
        self.client = client

    def run(self, call: Call[T]) -> T:
        """Run one call. Raises RedisUnreachable or RedisRefused."""
        return self.run_all([call])[0]

    def run_all(self, calls: Sequence[Call[T]]) -> list[T]:
        """Run calls in pipelines, in order, not as a transaction; raise the first error."""
        answers: list[T] = []
        for start in range(0, len(calls), PIPELINE_SIZE):
            chunk = calls[start : start + PIPELINE_SIZE]
            try:
                raw = self._pipeline(chunk)
            except (RedisError, OSError) as error:
                raise as_vessel_error(error) from None
            answers.extend(call.parse(value) for call, value in zip(chunk, raw, strict=True))
        return answers

    def _pipeline(self, calls: Sequence[Call[Any]]) -> list[Any]:
        raw = self._send(calls)
        lost = [i for i, value in enumerate(raw) if isinstance(value, NoScriptError)]
        if lost:
            for script in {call.script.sha: call.script for call in calls if call.script}.values():
                self.client.script_load(script.text)
            for i, value in zip(lost, self._send([calls[i] for i in lost]), strict=True):
                raw[i] = value
        for value in raw:
            if isinstance(value, Exception):
                raise value
        return raw

    def _send(self, calls: Sequence[Call[Any]]) -> list[Any]:
        pipe = self.client.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(*call.command)
        return list(pipe.execute(raise_on_error=False))


class AsyncRunner:
    """Run calls for many coroutines; calls of one loop tick share a round trip.

    A cancelled caller never cancels a round trip: shared connections would hand answers to the wrong caller
    (CVE-2023-28858).
    """

    def __init__(self, client: aredis.Redis) -> None:
        """Take an open client; `close` closes it."""
        self.client = client
        self._waiting: list[tuple[Call[Any], asyncio.Future[Any]]] = []
        self._leading: set[asyncio.Future[Any]] = set()
        self._flushes: set[asyncio.Task[None]] = set()
        self._kicked = False

    async def run(self, call: Call[T]) -> T:
        """Run one call. Raises RedisUnreachable or RedisRefused."""
        return call.parse(await self.post(call))

    def post(self, call: Call[Any], *, leads: bool = False) -> asyncio.Future[Any]:
        """Send a call; the future gives what Redis answered, unparsed.

        One that `leads` goes along with the next call that is made before the loop turns, and runs before it, but where
        Redis has forgotten its script. Else calls that are many take several connections, in no order.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((call, future))
        if leads:
            self._leading.add(future)
        if not self._kicked:
            self._kicked = True
            loop.call_soon(self._kick)
        return future

    async def run_all(self, calls: Sequence[Call[T]]) -> list[T]:
        """Run calls together; raise the first error."""
        return list(await asyncio.gather(*(self.run(call) for call in calls)))

    def _kick(self) -> None:
        self._kicked = False
        while self._waiting and len(self._flushes) < FLUSHES_AT_ONCE:
            size = min(PIPELINE_SIZE, len(self._waiting))
            while size < len(self._waiting) and self._waiting[size - 1][1] in self._leading:
                size += 1
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            self._leading.difference_update(future for _, future in batch)
            task = asyncio.get_running_loop().create_task(self._flush(batch))
            self._flushes.add(task)
            task.add_done_callback(self._flushed)

    def _flushed(self, task: asyncio.Task[None]) -> None:
        self._flushes.discard(task)
        if self._waiting:
            self._kick()

    async def _flush(self, batch: list[tuple[Call[Any], asyncio.Future[Any]]]) -> None:
        try:
            raw = await self._pipeline([call for call, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, nobody may wait for ever
            raw = [as_vessel_error(error)] * len(batch)
        for (_, future), value in zip(batch, raw, strict=True):
            if future.done():
                continue
            if isinstance(value, Exception):
                future.set_exception(as_vessel_error(value))
            else:
                future.set_result(value)

    async def _pipeline(self, calls: Sequence[Call[Any]]) -> list[Any]:
        raw = await self._send(calls)
        lost = [i for i, value in enumerate(raw) if isinstance(value, NoScriptError)]
        if lost:
            for script in {call.script.sha: call.script for call in calls if call.script}.values():
                await self.client.script_load(script.text)
            for i, value in zip(lost, await self._send([calls[i] for i in lost]), strict=True):
                raw[i] = value
        return raw

    async def _send(self, calls: Sequence[Call[Any]]) -> list[Any]:
        pipe = self.client.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command(*call.command)
        return list(await pipe.execute(raise_on_error=False))

    async def close(self) -> None:
        """Let calls that were made end, also those that no round trip has taken yet, then close the client."""
        while self._waiting or self._flushes:
            self._kick()
            await asyncio.gather(*self._flushes, return_exceptions=True)
        await self.client.aclose()
