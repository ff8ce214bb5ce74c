"""Waiting in threads: terminal events wake a process through its own reply stream, so that nobody polls."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from typing import TYPE_CHECKING

from vessel.errors import ClientClosed, JobNotFound, Unreachable, WaitTimeout
from vessel.keyspace.connect import SyncRunner, connect
from vessel.watch.calls import BLOCK_MS, read_stream

if TYPE_CHECKING:
    from vessel.jobs.model import Job
    from vessel.jobs.store import JobStore
    from vessel.keyspace.names import Keys

RECONNECT_S = 0.2
LOOK_AGAIN_S = 30.0
"""A waiter looks at its job this often even if it was not woken, as a reply stream is trimmed."""


class Waiter:
    """Wait in threads: one tail per process, started when first needed."""

    def __init__(self, url: str, keys: Keys, store: JobStore, runner: SyncRunner) -> None:
        """Name this process' reply stream; nothing is sent yet."""
        self.reply = keys.reply(secrets.token_hex(8))
        self._url, self._keys, self._store, self._runner = url, keys, store, runner
        self._waiting: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._tail: threading.Thread | None = None
        self._closed = False

    def register(self, job_id: str) -> threading.Event:
        """Expect a job's end; call it before the job is created with this waiter's `reply`."""
        with self._lock:
            if self._tail is None:
                self._tail = threading.Thread(target=self._follow, name="vessel-replies", daemon=True)
                self._tail.start()
            return self._waiting.setdefault(job_id, threading.Event())

    def forget(self, job_id: str, woken: threading.Event | None = None) -> None:
        """Stop expecting a job's end, or only by this event; another thread that waits for it looks and goes on."""
        with self._lock:
            found = self._waiting.get(job_id)
            if found is not None and woken in {None, found}:
                del self._waiting[job_id]
                found.set()

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Wait for a job's end and return it whole. Raises WaitTimeout, JobNotFound, RedisUnreachable, ClientClosed."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        woken = self._waiting.get(job_id)
        if woken is None:
            return self._wait_foreign(job_id, until)
        try:
            return self._wait_own(job_id, woken, until)
        finally:
            self.forget(job_id)

    def _wait_own(self, job_id: str, woken: threading.Event, until: float | None) -> Job:
        while True:
            if woken.wait(_left(until, LOOK_AGAIN_S)):
                self.forget(job_id, woken)
            self._check_open()
            woken = self.register(job_id)
            job = self._read(job_id)
            if job.terminal:
                return job
            _check(until)

    def _read(self, job_id: str) -> Job:
        job = self._runner.run(self._store.read(job_id))
        if job is None:
            raise JobNotFound
        return job

    def _wait_foreign(self, job_id: str, until: float | None) -> Job:
        after = "0"
        client = connect(self._url)
        with contextlib.closing(client):
            runner = SyncRunner(client)
            while True:
                job = runner.run(self._store.peek(job_id))
                if job is None:
                    raise JobNotFound
                if job.terminal:
                    return self._read(job_id)
                block = int(min(BLOCK_MS, 1000 * _left(until, BLOCK_MS / 1000)))
                events = runner.run(read_stream(self._keys.events(job_id), after, block_ms=block))
                after = events[-1][0] if events else after
                self._check_open()
                if not events:
                    _check(until)

    def _follow(self) -> None:
        after = "0"
        client = connect(self._url)
        runner = SyncRunner(client)
        while not self._closed:
            try:
                for seen, fields in runner.run(read_stream(self.reply, after)):
                    after = seen
                    self._wake(fields["job"])
            except Unreachable:
                time.sleep(RECONNECT_S)
        client.close()

    def _wake(self, job_id: str) -> None:
        with self._lock:
            woken = self._waiting.get(job_id)
        if woken is not None:
            woken.set()

    def close(self) -> None:
        """Wake whoever waits, with ClientClosed, and let the tail end at its next wake-up."""
        with self._lock:
            self._closed = True
            for woken in self._waiting.values():
                woken.set()

    def _check_open(self) -> None:
        if self._closed:
            raise ClientClosed


def _left(until: float | None, most: float) -> float:
    return most if until is None else max(0.001, min(most, until - time.monotonic()))


def _check(until: float | None) -> None:
    if until is not None and time.monotonic() >= until:
        raise WaitTimeout
