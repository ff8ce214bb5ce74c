"""What a blocking client holds of the outside: connections, opened when first needed and closed once and for all."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar, assert_never

from vessel.client import core
from vessel.client.steps import Await, Effect, Flow, Listen, Run, Steps, drive, iterate
from vessel.submit import redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vessel.keyspace.connect import SyncRunner
    from vessel.watch.threads import Waiter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Session:
    """What a process opens once: connections and the tail that wakes its waiters."""

    pid: int
    runner: SyncRunner
    waiter: Waiter

    def close(self) -> None:
        """Let go of everything; a child's parent still uses it."""
        if self.pid == os.getpid():
            self.waiter.close()
            self.runner.client.close()


def _open(shared: core.Core) -> _Session:
    # Imported here, because redis costs as much as the rest of this client.
    from vessel.keyspace.connect import SyncRunner, connect  # noqa: PLC0415  as said
    from vessel.watch.threads import Waiter  # noqa: PLC0415  the same

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


class Session(core.Configured):
    """The connections of a client. Safe to share between threads, and to carry over a fork."""

    def _begin(self) -> None:
        self._session: _Session | None = None

    @property
    def runner(self) -> SyncRunner:
        """The connections, opened when first needed. Raises NoRedis."""
        return self._opened().runner

    @property
    def waiter(self) -> Waiter:
        """What wakes this process' waiting calls. Raises NoRedis."""
        return self._opened().waiter

    def close(self) -> None:
        """Close the connections, once; later calls raise ClientClosed.

        Calls that wait end with it, too, while their jobs go on.
        """
        with _Opening.lock:
            self._closed = True
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def __enter__(self) -> Self:
        """Use as a context. Raises ClientClosed."""
        self._check_open()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections."""
        self.close()

    def _opened(self) -> _Session:
        session, pid = self._session, os.getpid()
        if session is not None and session.pid == pid:
            return session
        with _Opening.lock:
            self._check_open()
            session = self._session
            if session is None or session.pid != pid:
                session = self._session = _open(self._core)
                # A client that is dropped without being closed leaves no thread and no connection behind.
                weakref.finalize(self, session.close).atexit = False
            return session

    def _run(self, steps: Steps[T]) -> T:
        return drive(steps, self._perform)

    def _iterate(self, flow: Flow[T]) -> Iterator[T]:
        return iterate(flow, self._perform)

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Run(calls):
                return self.runner.run_all(calls)
            case Listen():
                return self.runner.run(effect.call)
            case Await(job_id, timeout_s):
                return self.waiter.wait(job_id, timeout_s)
            case _ as never:
                assert_never(never)
