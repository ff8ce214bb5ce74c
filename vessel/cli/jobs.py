"""What the commands about jobs do and print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.cli import times
from vessel.cli.answer import result_document
from vessel.cli.faults import FAILED, BadUse
from vessel.cli.output import emit, say, table, usd
from vessel.cli.reading import words
from vessel.cli.waiting import endings, waiting_line
from vessel.cli.webhooks import line
from vessel.client import GroqClient, JobFailed, Result, documents
from vessel.keyspace.server import clock
from vessel.wire import TERMINAL

if TYPE_CHECKING:
    from vessel.client import Job, Waiting


def show(job_id: str, *, as_json: bool) -> None:
    """Print one job."""
    with GroqClient() as client:
        found = client.job(job_id)
        waiting = client.waiting(found)
        now = client.runner.run(clock()) if waiting else found.updated_at
        webhook = client.webhook(found)
    if as_json:
        emit(job_document(found, whole=True) | {"waiting": documents.waiting(waiting), "webhook": webhook})
    else:
        _show(found, waiting, now, webhook)


def show_many(state: str | None, tier: str | None, since: str | None, limit: int, *, as_json: bool) -> None:
    """Print a list of jobs."""
    with GroqClient() as client:
        found = client.jobs(state, tier, since, limit)
    if as_json:
        for one in found:
            emit(job_document(one))
        return
    rows = [
        (
            j.id,
            j.state,
            j.served_tier or j.tier,
            j.served_model or j.model,
            j.priority,
            times.stamp(j.created_at),
            j.reason,
        )
        for j in found
    ]
    table(("ID", "STATE", "TIER", "MODEL", "PRIORITY", "CREATED", "REASON"), rows)


def wait(given: list[str], timeout: float | None, *, as_json: bool) -> int:
    """Print each job's ending as it comes; 1 when one of them has no result."""
    ids = words(given)
    if not ids:
        raise BadUse("No job id was given. Name at least one, or - to read ids from standard input.")
    failed = 0
    with GroqClient() as client:
        try:
            for ended in endings(client, ids, timeout):
                failed += isinstance(ended, JobFailed)
                if as_json:
                    emit(_failure_document(ended) if isinstance(ended, JobFailed) else result_document(ended))
                else:
                    say(_ending_line(ended))
        except KeyboardInterrupt as stop:
            which = f"Job {ids[0]} goes on" if len(ids) == 1 else "The jobs go on"
            stop.add_note(f"{which}. `vessel wait` with the same ids waits again, `vessel cancel ID` ends one.")
            raise
    return FAILED if failed else 0


def cancel(job_id: str, *, as_json: bool) -> int:
    """Cancel a job; 1 when it had ended before."""
    with GroqClient() as client:
        before = client.state(job_id)
        state = client.cancel(job_id)
    done = state in {"cancelled", "cancelling"} and before not in TERMINAL
    if as_json:
        emit({"id": job_id, "state": state, "cancelled": done})
    else:
        say(f"{job_id} {state}" if done else f"{job_id} had ended before ({state}); nothing was cancelled.")
    return 0 if done else FAILED


def retry(job_id: str, *, as_json: bool) -> None:
    """Make a new job of an ended one."""
    with GroqClient() as client:
        handle = client.retry(job_id)
    if as_json:
        emit({"id": handle.id, "tier": handle.tier, "model": handle.model, "retry_of": job_id})
    else:
        say(handle.id)


def show_events(job_id: str, *, follow: bool, as_json: bool) -> None:
    """Print a job's events as they are read."""
    with GroqClient() as client:
        try:
            for event in client.events(job_id, follow=follow):
                if as_json:
                    emit(documents.event(event))
                else:
                    say(f"{times.exact(event.at)}  {event.name:<10} {event.state:<10} {event.detail}".rstrip())
        except KeyboardInterrupt as stop:
            stop.add_note(f"The job goes on; `vessel job {job_id}` shows where it stands.")
            raise


def job_document(job: Job, *, whole: bool = False) -> dict[str, Any]:
    """Describe a job in JSON; `whole` adds what only a full read knows."""
    return documents.job(job, whole=whole) | ({"text": answer_of(job)} if whole else {})


def answer_of(job: Job) -> str | None:
    """Return the answer's text; None where there is no result."""
    return Result(job).text if job.response is not None else None


def _show(job: Job, waiting: Waiting | None, now_ms: int, webhook: dict[str, Any] | None) -> None:
    where = ", failed over to openai" if job.served_vessel == "openai" else ""
    served = f"{job.served_model} ({job.served_tier}{where})" if job.served_model else f"{job.model} ({job.tier})"
    most = "at most " if (job.usage or {}).get("unknown_calls") else ""
    facts = {
        "job": job.id,
        "state": f"{job.state}: {job.message or job.reason}" if job.reason else str(job.state),
        "waits": waiting_line(waiting, now_ms) if waiting else None,
        "model": served,
        "routing": "; ".join(job.reasons),
        "created": times.stamp(job.created_at),
        "finished": times.stamp(job.finished_at),
        "retry of": job.retry_of,
        "usage": f"{most}{job.usage['prompt_tokens']} + {job.usage['completion_tokens']} tokens" if job.usage else None,
        "cost": f"{most}{usd(job.cost_usd)}" if job.cost_usd is not None else None,
        "webhook": line(webhook) if webhook else None,
    }
    for name, value in facts.items():
        if value:
            say(f"{name:<13}{value}")
    if job.attempts:
        say()
        _show_tries(job)
    text = answer_of(job)
    if text is not None:
        say(f"\n{text}")


def _show_tries(job: Job) -> None:
    """Print a row for each call, then what was said of them, each text once."""
    rows = [
        (a.number, a.model, a.tier, times.stamp(a.started_at), a.duration_ms, a.outcome, a.status) for a in job.attempts
    ]
    columns = ("TRY", "MODEL", "TIER", "STARTED", "MS", "OUTCOME", "STATUS")
    table(columns, rows, right=("TRY", "MS", "STATUS"))
    told: dict[str, list[str]] = {}
    for attempt in job.attempts:
        for text in filter(None, (attempt.message, *attempt.notes)):
            told.setdefault(text, []).append(str(attempt.number))
    for text, tries in told.items():
        say(f"try {', '.join(tries)}: {text}")


def _failure_document(failed: JobFailed) -> dict[str, Any]:
    return {
        "job_id": failed.job_id,
        "state": failed.state,
        "error": {"message": failed.message, "type": "job_error", "code": failed.reason, "param": None},
        "attempts": documents.attempts(failed.attempts),
    }


def _ending_line(ended: Result | JobFailed) -> str:
    if isinstance(ended, Exception):
        return f"{ended.job_id} {ended.state} ({ended.reason})"
    return f"{ended.job_id} succeeded {ended.model} {usd(ended.cost_usd)}"
