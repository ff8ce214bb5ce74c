"""Jobs: submit them, look at them, wait for them, end them, run them again."""

from typing import Annotated

from typer import Argument

from vessel.cli.commands import options
from vessel.cli.reading import context, given

OptionalText = Annotated[str | None, Argument(metavar="[TEXT]", help="The prompt; - reads it from standard input.")]


def submit(
    text: OptionalText = None,
    *,
    file: options.LinesFile = None,
    tier: options.Tier = None,
    model: options.Model = None,
    task: options.Task = None,
    priority: options.Priority = None,
    deadline: options.Deadline = None,
    on_outage: options.OnOutage = None,
    key: options.Key = None,
    webhook: options.Webhook = None,
    system: options.System = None,
    max_tokens: options.MaxTokens = None,
    max_cost: options.MaxCost = None,
    hints: options.Context = None,
    as_json: options.AsJson = False,
) -> None:
    """Enqueue and print the job ids at once, one per line.

    A line of a file is a chat-completions body (with an optional `vessel` object), {"prompt": ...} with options by
    their Python names, or a line of a Groq batch file. Every line is checked before anything is sent.
    """
    from vessel.cli.submitting import submit as submit_work

    asked = given(
        tier=tier, model=model, task_type=task, priority=priority, deadline=deadline, on_outage=on_outage,
        idempotency_key=key, system=system, max_completion_tokens=max_tokens, max_cost_usd=max_cost,
        context=context(hints), webhook=webhook,
    )  # fmt: skip
    submit_work(text, file, asked, as_json=as_json)


def job(job_id: options.JobId, *, as_json: options.AsJson = False) -> None:
    """Show a job: where it stands, every attempt, and its answer."""
    from vessel.cli.jobs import show

    show(job_id, as_json=as_json)


def jobs(
    *,
    state: options.State = None,
    tier: options.OnlyTier = None,
    since: options.Since = None,
    limit: options.Limit = 50,
    as_json: options.AsJson = False,
) -> None:
    """List jobs, newest first."""
    from vessel.cli.jobs import show_many

    show_many(state, tier, since, limit, as_json=as_json)


def wait(ids: options.JobIds, *, timeout: options.Timeout = None, as_json: options.AsJson = False) -> int:
    """Wait for jobs and report each one as it ends. Exits 1 when one of them has no result."""
    from vessel.cli.jobs import wait as wait_for

    return wait_for(ids, timeout, as_json=as_json)


def cancel(job_id: options.JobId, *, as_json: options.AsJson = False) -> int:
    """Cancel a job; a call that runs is cut. Exits 1 when the job had ended before."""
    from vessel.cli.jobs import cancel as cancel_job

    return cancel_job(job_id, as_json=as_json)


def retry(job_id: options.JobId, *, as_json: options.AsJson = False) -> None:
    """Run an ended job's request again, as a new job; the old one stays as it is."""
    from vessel.cli.jobs import retry as retry_job

    retry_job(job_id, as_json=as_json)


def events(job_id: options.JobId, *, follow: options.Follow = False, as_json: options.AsJson = False) -> None:
    """Show a job's life, oldest event first."""
    from vessel.cli.jobs import show_events

    show_events(job_id, follow=follow, as_json=as_json)
