"""Submitting many requests: checked chunk by chunk, written in pipelines."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from vessel.client.asking import Asked
from vessel.client.request import compose_line
from vessel.client.steps import Run, Steps
from vessel.errors import IdempotencyConflict, InvalidRequest, NoWorkers, VesselError
from vessel.keyspace.script import Call
from vessel.wire import OnOutage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from vessel.client.asking import Asking
    from vessel.client.request import Ask
    from vessel.submit import Accepted, Prepared

CHUNK = 500


class InvalidLine(InvalidRequest):
    """A line of many is not valid; its chunk was not written."""

    code = "invalid_line"

    def __init__(self, line: int, cause: VesselError, submitted: Sequence[str]) -> None:
        """Name the line, counted from 1, and hold the ids of the jobs that were accepted before."""
        self.line = line
        self.submitted = tuple(submitted)
        before = f" {len(submitted)} jobs of earlier lines were accepted." if submitted else " Nothing was submitted."
        super().__init__(f"Line {line}: {cause.message}{before}", param=cause.param)


def submit_many(asking: Asking, requests: Iterable[Mapping[str, Any]], reply: str) -> Steps[list[Asked]]:
    """Make a job of every request, in order; requests are read as they are written.

    Raises InvalidLine for the first faulty line of a chunk, before anything of that chunk is written. A key that was
    used for another body is only seen while writing: the other lines of its chunk are accepted.
    """
    done: list[Asked] = []
    lines = iter(requests)
    while chunk := list(islice(lines, CHUNK)):
        done += yield from _write(asking, chunk, reply, done)
    return done


def _write(asking: Asking, chunk: Sequence[Mapping[str, Any]], reply: str, done: Sequence[Asked]) -> Steps[list[Asked]]:
    ids = [job.id for job in done]
    asks = list(_checked(chunk, len(done), ids))
    fragile = any(ask.policy.get("on_outage", OnOutage.QUEUE) != OnOutage.QUEUE for ask in asks)
    availability, alive = yield from asking.seen(alive=fragile)
    jobs: list[Prepared] = []
    for number, ask in enumerate(asks, len(done) + 1):
        try:
            jobs.append(asking.prepare(ask, availability, alive, reply))
        except (InvalidRequest, NoWorkers) as fault:
            raise InvalidLine(number, fault, ids) from None
    calls = asking.door.create_many(jobs)
    accepted: list[Accepted | IdempotencyConflict] = yield Run([*map(_kept, calls[: len(jobs)])])
    # Not in one pipeline: a Redis that does not know the script yet gets the jobs again after their messages, and a
    # message that is read before its job exists is dropped.
    yield Run(calls[len(jobs) :])
    made = [Asked(job.id, job.tier, job.model, job.existing) for job in accepted if not isinstance(job, VesselError)]
    for number, answer in enumerate(accepted, len(done) + 1):
        if isinstance(answer, VesselError):
            raise InvalidLine(number, answer, [*ids, *(job.id for job in made)])
    return made


def _checked(chunk: Sequence[Mapping[str, Any]], offset: int, ids: Sequence[str]) -> Iterable[Ask]:
    for number, line in enumerate(chunk, offset + 1):
        try:
            yield compose_line(line)
        except InvalidRequest as fault:
            raise InvalidLine(number, fault, ids) from None


def _kept(call: Call[Accepted]) -> Call[Accepted | IdempotencyConflict]:
    """Read a conflict as a value, so that the other answers of the pipeline are read too."""

    def parse(raw: Any) -> Accepted | IdempotencyConflict:
        try:
            return call.parse(raw)
        except IdempotencyConflict as conflict:
            return conflict

    return Call(call.command, parse, call.script)
