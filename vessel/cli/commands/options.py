"""The options that several commands share. Closed sets are written out, as importing their enums costs 100 ms."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

TaskName = Literal[
    "classification",
    "extraction",
    "qa",
    "technical_qa",
    "coding",
    "general",
    "strategic_analysis",
    "deep_reasoning",
    "research",
    "realtime",
]
SpeedName = Literal["balanced", "fast", "maximum"]
PriorityName = Literal["interactive", "normal", "batch"]
OutageName = Literal["queue", "failover", "fail"]
StateName = Literal["queued", "running", "parked", "succeeded", "failed", "cancelled", "expired"]

AsJson = Annotated[bool, Option("--json", help="Write JSON to standard output: one document, or one per line.")]
Text = Annotated[str, Argument(metavar="TEXT", help="The prompt; - reads it from standard input.")]
JobId = Annotated[str, Argument(metavar="ID", help="A job's id.")]
JobIds = Annotated[list[str], Argument(metavar="ID...", help="Jobs' ids; - reads them from standard input.")]
Tier = Annotated[str | None, Option(metavar="TIER", help="Ask a tier; `vessel tiers` lists them.")]
Model = Annotated[str | None, Option(metavar="MODEL", help="Ask a model; `vessel models` lists them.")]
Task = Annotated[TaskName | None, Option(help="What the prompt is for; it decides the tier.")]
Speed = Annotated[SpeedName | None, Option(help="maximum takes the fastest tier, fast shortens waits.")]
System = Annotated[str | None, Option(metavar="TEXT", help="A system message.")]
MaxTokens = Annotated[int | None, Option(min=1, metavar="N", help="At most so many tokens of answer.")]
MaxCost = Annotated[str | None, Option(metavar="USD", help="At most so much money for the job, in the worst case.")]
Timeout = Annotated[float | None, Option(min=0.001, metavar="SECONDS", help="How long to wait; the job goes on.")]
Stream = Annotated[bool, Option("--stream", help="Print the answer as it comes; leaving early cancels the job.")]
Context = Annotated[
    list[str] | None,
    Option("--context", metavar="K=V", help="A hint for the router, e.g. requires_tools=true. May be repeated."),
]
Priority = Annotated[PriorityName | None, Option(help="The lane: interactive work goes first, batch work last.")]
Deadline = Annotated[str | None, Option(metavar="TIME", help="Not worth doing after so long: 90s, 15m, 2h.")]
OnOutage = Annotated[OutageName | None, Option(help="While nobody serves its tier: wait, go elsewhere, or fail.")]
Key = Annotated[str | None, Option(metavar="KEY", help="Idempotency key: the same key and text are the same job.")]
Webhook = Annotated[
    str | None, Option("--webhook", metavar="URL", help="Told, by a signed POST, when it has ended; docs/webhooks.md.")
]
LinesFile = Annotated[
    Path | None,
    Option("--file", "-f", metavar="F.jsonl", help="Submit every line of a file; - is standard input."),
]
Since = Annotated[str | None, Option(metavar="WHEN", help="Not older than: 2h, 7d or 2026-11-24 (local time).")]
OnlyTier = Annotated[str | None, Option("--tier", metavar="TIER", help="Only jobs of this tier.")]
State = Annotated[StateName | None, Option(help="Only jobs in this state.")]
Limit = Annotated[int, Option(min=1, metavar="N", help="At most so many, newest first.")]
Follow = Annotated[bool, Option("--follow", "-F", help="Go on until the job ends.")]
