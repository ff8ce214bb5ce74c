"""The one task: hand a message's tickets to this process' executor."""

from __future__ import annotations

from vessel.dispatch.ticket import TASK_NAME
from workers import boot
from workers.app import app


@app.task(name=TASK_NAME)
async def run_jobs(tickets: list[tuple[str, int]]) -> list[dict[str, object]]:
    """Claim and run the jobs named by the tickets."""
    return await boot.run(tickets)
