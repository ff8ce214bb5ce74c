"""Operating a vessel: is it ready, what is wrong with it, and its backup."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from vessel.cli.commands import options

Boot = Annotated[bool, Option("--boot", help="Wait for services to come up, tell systemd and the log how it ended.")]
Deadline = Annotated[float, Option("--deadline", min=0, metavar="SECONDS", help="How long --boot waits.")]
TierList = Annotated[str | None, Option("--tiers", metavar="a,b", help="Which tiers have to be served; all without.")]
Expect = Annotated[
    str | None,
    Option(
        metavar="a,b",
        help="Which of api, mcp, flower have to answer, or none; `units`: all that systemd starts with vessel.target, "
        "and each of its units has to be active. Without this `units` with --boot where there are units, else api.",
    ),
]
NoInference = Annotated[bool, Option("--no-inference", help="Make no test call.")]
Codes = Annotated[
    Path | None, Option("--codes", metavar="FILE", help="Write the code of each step that failed into it, one a line.")
]
CallTimeout = Annotated[float, Option("--timeout", min=0.1, metavar="SECONDS", help="How long the test call may take.")]

Out = Annotated[Path, Argument(metavar="OUT", help="The file; it is there once it is whole.", dir_okay=False)]
Force = Annotated[bool, Option("--force", help="Replace a file of this name.")]
Source = Annotated[Path, Argument(metavar="IN", help="The file.", exists=True, dir_okay=False, readable=True)]
Replace = Annotated[bool, Option("--replace", help="Delete what the namespace holds, in favour of the backup.")]


def check(
    *,
    boot: Boot = False,
    deadline: Deadline = 120.0,
    tiers: TierList = None,
    expect: Expect = None,
    no_inference: NoInference = False,
    timeout: CallTimeout = 30.0,
    codes: Codes = None,
    as_json: options.AsJson = False,
) -> int:
    """Verify the boot: key, Groq, Redis, workers, services, a test call of at most 0.001 USD; then say what is ready.

    Exits 0 when ready, 3 when the first thing that failed is unreachable or missing, else 1.
    """
    from vessel.cli.check import check as verify

    return verify(boot=boot, deadline_s=deadline, tiers=tiers, expect=expect, inference=not no_inference,
                  timeout_s=timeout, codes=codes, as_json=as_json)  # fmt: skip


def doctor(*, as_json: options.AsJson = False) -> int:
    """Examine settings, versions, keys, Redis, clock and queues: each finding with its cure. Exits 1 on an error."""
    from vessel.cli.doctor import examine

    return examine(as_json=as_json)


def backup(out: Out, *, force: Force = False, as_json: options.AsJson = False) -> int:
    """Write jobs, batches, files, ledger, budgets and API keys into a file, as they are at one moment; jobs go on."""
    from vessel.cli.backup import backup as write

    return write(out, force=force, as_json=as_json)


def restore(source: Source, *, replace: Replace = False, as_json: options.AsJson = False) -> int:
    """Restore a backup into an empty namespace while nothing runs in it; what was running then is queued again."""
    from vessel.cli.backup_restore import restore as read

    return read(source, replace=replace, as_json=as_json)
