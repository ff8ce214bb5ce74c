"""Which keys of a namespace change while it is copied, and a pause of all writes for the last of them.

Redis' client tracking in broadcasting mode names every key below a prefix that is written, expires or is evicted. What
is copied again until little changes, and once more while writes are held, is the namespace as it was at one moment.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from vessel.errors import RedisRefused, RedisUnreachable
from vessel.keyspace.connect import as_vessel_error, connect
from vessel.keyspace.script import word

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANNEL = "__redis__:invalidate"
PAUSE_MS = 2000
"""Redis lets writes go again by itself after this long, should we die while they are held."""


class Changes:
    """Hears of changed keys below a prefix, from entering the block on."""

    def __init__(self, url: str, prefix: str) -> None:
        """Take where to listen; nothing is sent yet."""
        self.prefix = prefix
        self._client = connect(url)
        self._changed: set[bytes] = set()
        self._flushed = False
        self._listening: Any = None
        self._tracking: Any = None

    def __enter__(self) -> Self:
        """Begin to listen. Raises RedisUnreachable, and RedisRefused where the user may not track or subscribe."""
        pool = self._client.connection_pool
        pool.connection_kwargs["protocol"] = 2  # names of keys as messages of a channel, on a connection of their own
        try:
            self._listening, self._tracking = pool.make_connection(), pool.make_connection()
            self._listening.connect()
            number = self._ask(self._listening, "CLIENT", "ID")
            self._ask(self._listening, "SUBSCRIBE", CHANNEL)
            self._tracking.connect()
            self._ask(self._tracking, "CLIENT", "TRACKING", "ON", "REDIRECT", number, "BCAST", "PREFIX", self.prefix)
        except (RedisError, OSError) as error:
            self.__exit__()
            raise as_vessel_error(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening; writes that are held go on."""
        for connection in (self._listening, self._tracking):
            if connection is not None:
                connection.disconnect()
        self._client.close()

    def drain(self) -> None:
        """Take what has been told so far; call it often, as Redis bounds what it keeps for us. Raises Unreachable."""
        try:
            while self._listening.can_read(timeout=0):
                self._take(self._listening.read_response())
        except (RedisError, OSError) as error:
            raise as_vessel_error(error) from None

    def taken(self) -> set[bytes]:
        """Return the keys that have changed since the last call, by their full names. Raises RedisUnreachable."""
        try:
            self._listening.send_command("PING")
            while not self._take(self._listening.read_response()):
                pass
        except (RedisError, OSError) as error:
            raise as_vessel_error(error) from None
        if self._flushed:
            raise RedisUnreachable("Redis was emptied while it was copied. Nothing was kept of the copy.")
        found, self._changed = self._changed, set()
        return found

    @contextmanager
    def writes_held(self) -> Iterator[bool]:
        """Hold all writes to the server for the block, at most PAUSE_MS; false where the user may not do that."""
        try:
            self._ask(self._tracking, "CLIENT", "PAUSE", PAUSE_MS, "WRITE")
        except NoPermissionError:
            yield False
            return
        except ResponseError as error:
            raise RedisRefused(f"Redis does not hold writes: {type(error).__name__}.") from None
        except (RedisError, OSError) as error:
            raise as_vessel_error(error) from None
        try:
            yield True
        finally:
            self._ask(self._tracking, "CLIENT", "UNPAUSE")

    def _take(self, message: Any) -> bool:
        """Note what a message names; true for the answer to a PING, behind which nothing older comes."""
        kind = word(message[0])
        if kind == "message":
            if message[2] is None:
                self._flushed = True
            else:
                self._changed.update(message[2])
        return kind == "pong"

    def _ask(self, connection: Any, *command: str | int | bytes) -> Any:
        connection.send_command(*command)
        return connection.read_response()
