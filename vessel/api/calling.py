"""Making jobs for REST: as the client library does, with repeats that attach to the job made first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vessel.client.asking import Asking
from vessel.client.steps import Run, Steps, run
from vessel.control import cancel
from vessel.keyspace.script import Call, load, word
from vessel.wire import JobState

if TYPE_CHECKING:
    from vessel.client.asking import Replies
    from vessel.client.request import Ask
    from vessel.jobs.model import Job
    from vessel.keyspace.names import Keys
    from vessel.submit import Accepted, Prepared

REPEAT_MS = 15 * 60 * 1000
"""How long a POST's repeat finds the first job (contract 5)."""


@dataclass(frozen=True, slots=True)
class Repeats:
    """The jobs that one POST of a tenant has made lately, known by the bytes of its body and its address."""

    key: str

    @classmethod
    def of(cls, keys: Keys, tenant: str, path: str, raw: bytes) -> Repeats:
        """Name them; nothing of the body can be read from the name."""
        return cls(keys.repeat(tenant, hashlib.sha256(path.encode() + b"\0" + raw).hexdigest()[:32]))

    def note(self, job_id: str) -> Call[str]:
        """Remember a job, before it is made: it may be that the process ends in between."""
        return self._call("note", job_id)

    def attach(self) -> Call[str]:
        """Return the job for a repeat, empty where there is none: the oldest whose answer nobody got, else the last."""
        return self._call("attach", "")

    def delivered(self, job_id: str) -> Call[str]:
        """Remember that a job's answer went out."""
        return self._call("delivered", job_id)

    def forget(self, job_id: str) -> Call[str]:
        """Forget a job that was not made after all, or that was cancelled."""
        return self._call("forget", job_id)

    def seen(self, job_id: str) -> Call[str]:
        """Return a mark that changes whenever somebody attaches to the job; empty when it is not known any more."""
        return self._call("seen", job_id)

    def _call(self, verb: str, job_id: str) -> Call[str]:
        return load("attach").call({"made": self.key}, {"verb": verb, "id": job_id, "ttl_ms": REPEAT_MS}, word)


@dataclass(frozen=True, slots=True)
class Begun:
    """A job that somebody waits for; `prepared` is None for one that was made before."""

    id: str
    prepared: Prepared | None


class Calling(Asking):
    """The verbs of one tenant."""

    def begin(
        self, ask: Ask, replies: Replies, repeats: Repeats, *, repeated: bool, waits: bool = True
    ) -> Steps[Begun]:
        """Make a job, or attach to the one that this POST made first. Raises NoWorkers where nobody lives to serve."""
        if repeated:
            first = yield from self._first(repeats)
            if first is not None:
                return Begun(first.id, None)
        prepared = yield from self._prepared(ask, replies.reply, waits=waits)
        job_id = prepared.new.id
        if waits:
            replies.register(job_id)
        try:
            _, accepted = yield Run([repeats.note(job_id), self.door.create(prepared)])
        except BaseException:
            replies.forget(job_id)
            raise
        found: Accepted = accepted
        if found.id != job_id:
            replies.forget(job_id)
            yield Run([repeats.forget(job_id), repeats.note(found.id)])
            return Begun(found.id, None)
        return Begun(job_id, prepared)

    def ending(self, begun: Begun, replies: Replies) -> Steps[Job]:
        """Wait for the end of what was begun, however long that takes."""
        if begun.prepared is None:
            return (yield from self.end_of(begun.id, replies, None))
        try:
            return (yield from self._follow(replies, begun.prepared, None))
        finally:
            replies.forget(begun.id)

    def abandon(self, job_id: str, repeats: Repeats, mark: str) -> Steps[bool]:
        """Cancel a job that nobody waits for, unless somebody attached to it since the mark was taken."""
        seen, job = yield Run([repeats.seen(job_id), self.door.store.peek(job_id)])
        if seen != mark or job is None or job.terminal:
            return False
        yield Run([cancel(self.door, job)])
        return True

    def _first(self, repeats: Repeats) -> Steps[Job | None]:
        while job_id := (yield from run(repeats.attach())):
            job: Job | None = yield from run(self.door.store.peek(job_id))
            if job is not None and job.tenant == self.tenant and not _is_cancelled(job):
                return job
            yield from run(repeats.forget(job_id))
        return None


def _is_cancelled(job: Job) -> bool:
    return job.state is JobState.CANCELLED or job.cancel_requested
