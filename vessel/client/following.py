"""Following jobs: the events of one, and the endings of many in the order in which they end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from vessel.client.result import Result
from vessel.client.steps import Emit, Flow, Listen, Run, Steps
from vessel.client.structured import settled
from vessel.errors import JobFailed, JobNotFound, WaitTimeout
from vessel.keyspace.script import Call, command, words
from vessel.watch import BLOCK_MS, events_of, last_id, succeeded
from vessel.wire import TERMINAL, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vessel.client.asking import Asking, Replies
    from vessel.client.schema import Form
    from vessel.jobs.model import Job
    from vessel.watch import Event

WINDOW = 200
"""How many jobs of other processes are listened to at once."""

READ_AT_ONCE = 32
LOOK_AGAIN_S = 30.0
"""A wait looks at its jobs this often even if no event came, as a reply stream is trimmed."""

Ended = Result[Any] | JobFailed


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One moment in a job's life; `at` is epoch milliseconds of Redis' clock."""

    id: str
    name: str
    state: JobState
    generation: int
    at: int
    detail: str


def events(asking: Asking, job_id: str, *, follow: bool) -> Flow[JobEvent]:
    """Give a job's life so far, oldest first, and with `follow` the rest of it to its end. Raises JobNotFound."""
    keys = asking.door.keys
    job, past = yield Run([asking.door.store.peek(job_id), events_of(keys, job_id)])
    if job is None or job.tenant != asking.tenant:
        raise JobNotFound
    last, state = "0", job.state
    if not past and job.terminal:
        yield from _told_by_record(asking, job_id)
        return
    while True:
        for event in map(_event, past):
            last, state = event.id, event.state
            yield Emit(event)
        if not follow or state in TERMINAL:
            return
        past = (yield Listen({keys.events(job_id): last})).get(keys.events(job_id), [])


def _told_by_record(asking: Asking, job_id: str) -> Flow[JobEvent]:
    """Give what the record tells of a life whose stream is not kept any more, as with lines of batches."""
    (job,) = yield Run([asking.door.store.read(job_id)])
    if job is None:
        raise JobNotFound
    moments = [(job.created_at, "created", JobState.QUEUED, "")]
    moments += [(a.started_at, "started", JobState.RUNNING, str(a.number)) for a in job.attempts]
    moments.append((job.finished_at or job.updated_at, str(job.state), job.state, job.reason))
    for number, (at, name, state, detail) in enumerate(moments):
        yield Emit(JobEvent(f"{at}-{number}", name, state, job.generation, at, detail))


def endings(
    asking: Asking,
    ids: Iterable[str],
    replies: Replies,
    timeout_s: float | None,
    forms: Mapping[str, Form | None],
) -> Flow[Ended]:
    """Give every job's result, or the JobFailed of one without, as they end; those with a form are read by it.

    Raises JobNotFound, WaitTimeout.
    """
    reply = replies.reply
    crowd = Crowd(asking, ids, reply)
    until = None if timeout_s is None else time.monotonic() + timeout_s
    # The stream's end is read before the jobs are: an ending in between is then in the stream, too.
    (crowd.positions[reply],) = yield Run([last_id(reply)])
    look_at = 0.0
    while True:
        if time.monotonic() >= look_at:
            rows = yield Run(crowd.look())
            ended, look_at = crowd.sort(rows), time.monotonic() + LOOK_AGAIN_S
        else:
            ended = crowd.heard((yield Listen(crowd.listen(), _block_ms(until))))
        for at in range(0, len(ended), READ_AT_ONCE):
            jobs: list[Job | None] = yield Run([asking.door.store.read(i) for i in ended[at : at + READ_AT_ONCE]])
            for job in jobs:
                if job is None:
                    raise JobNotFound
                yield Emit((yield from _ended(asking, job, forms.get(job.id), replies, until)))
        if not crowd.open:
            return
        if until is not None and time.monotonic() >= until:
            raise WaitTimeout(
                f"{len(crowd.open)} of {crowd.size} jobs did not end within {timeout_s:g} s; they go on. Ask again "
                "with `vessel wait`."
            )


class Crowd:
    """The jobs of one wait that are still open, and how far their streams have been read."""

    def __init__(self, asking: Asking, ids: Iterable[str], reply: str) -> None:
        """Take ids, each once, in the order given."""
        self.asking, self.reply = asking, reply
        self.open: dict[str, bool] = dict.fromkeys(ids, False)
        """Whether the end of each will be announced on our own reply stream."""
        self.size = len(self.open)
        self.positions: dict[str, str] = {}
        self._foreign: dict[str, str] = {}

    def look(self) -> list[Call[list[str]]]:
        """Ask where every open job stands."""
        return [
            command("HMGET", self.asking.door.keys.job(job_id), "state", "tenant", "reply", parse=words)
            for job_id in self.open
        ]

    def sort(self, rows: Sequence[list[str]]) -> list[str]:
        """Learn whom to listen to; return the jobs that have ended."""
        for job_id, (state, tenant, reply) in zip(list(self.open), rows, strict=True):
            if not state or tenant != self.asking.tenant:
                raise JobNotFound(f"There is no job {job_id}, or it was finished longer ago than results are kept.")
            self.open[job_id] = reply == self.reply
        return self._leave(i for i, row in zip(list(self.open), rows, strict=True) if row[0] in TERMINAL)

    def listen(self) -> dict[str, str]:
        """Listen to our own reply stream and to the events of the first open jobs of other processes."""
        foreign = islice((job_id for job_id, own in self.open.items() if not own), WINDOW)
        self._foreign = {self.asking.door.keys.events(job_id): job_id for job_id in foreign}
        names = [*self._foreign, self.reply] if len(self._foreign) < len(self.open) else list(self._foreign)
        return {name: self.positions.get(name, "0") for name in names}

    def heard(self, streams: Mapping[str, list[Event]]) -> list[str]:
        """Remember how far was read; return the jobs that have ended."""
        ended: list[str] = []
        for name, rows in streams.items():
            self.positions[name] = rows[-1][0]
            if name == self.reply:
                ended += [fields["job"] for _, fields in rows]
            elif any(fields["state"] in TERMINAL for _, fields in rows):
                ended.append(self._foreign[name])
        return self._leave(ended)

    def _leave(self, ended: Iterable[str]) -> list[str]:
        return [job_id for job_id in list(ended) if self.open.pop(job_id, None) is not None]


def _ended(asking: Asking, job: Job, form: Form | None, replies: Replies, until: float | None) -> Steps[Ended]:
    try:
        if form is None or job.state is not JobState.SUCCEEDED:
            return Result(succeeded(job))
        return (yield from settled(asking, job, form, replies, until, lasting=True))
    except JobFailed as failed:
        return failed


def _event(raw: Event) -> JobEvent:
    event_id, fields = raw
    return JobEvent(
        event_id,
        fields["event"],
        JobState(fields["state"]),
        int(float(fields["generation"])),
        int(float(fields["at"])),
        fields.get("detail", ""),
    )


def _block_ms(until: float | None) -> int:
    return BLOCK_MS if until is None else max(1, min(BLOCK_MS, int(1000 * (until - time.monotonic()))))
