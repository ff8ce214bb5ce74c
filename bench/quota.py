"""How much of a limited upstream a batch uses: RPM 3,000 and TPM 600,000 in continuous buckets, 300 ms median latency.

Efficiency is the least time that full buckets need for the tokens really used, over the makespan from the first
submission to the last end. Modes: `configured` tells the workers the limits; `learned` does not, and counts what began
after the first 60 s; `foreign` lets another program eat 30 % of the tokens and asks what part of the rest was used.
`--peers` runs, one after the other on the same upstream, the OpenAI cookbook's algorithm and async-batch-llm 0.28.
Goals are printed beside the figures and never decide the exit status: the machine is shared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from groq_vessel import GroqClient

from bench.peers.foreign import NAME as FOREIGN
from bench.rig import calls_of, failed, makespan_s, submit, upstream, wait
from bench.stack import KEY
from bench.workload import (
    MINUTE_S,
    MODEL,
    Quota,
    Request,
    between,
    bound_s,
    refused,
    requests,
    share,
    used_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.stack import Stack

Mode = Literal["configured", "learned", "foreign"]
FOREIGN_PART = 0.3
LEARNING_S = 60.0
LONG_BATCH = 6000
PEER_TIMEOUT_S = 1800
PEERS = Path(__file__).parent / "peers"
ROOT = Path(__file__).parent.parent
ASYNC_BATCH = ("async-batch-llm==0.28.*", "aiohttp>=3.14")


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one tool. `efficiency` is None where the run was too short for it."""

    tool: str
    efficiency: float | None
    makespan_s: float
    bound_s: float
    calls: int
    refused: int
    refused_part: float
    failed: int


def judged(tool: str, calls: Sequence[dict[str, Any]], quota: Quota, taken_s: float, lost: int) -> Run:
    """Judge a whole run by the tokens that its calls used."""
    done = sum(call["completed"] for call in calls)
    bound = bound_s(quota, done, used_tokens(calls))
    no = refused(calls)
    return Run(tool, share(bound, taken_s) or None, taken_s, bound, len(calls), no, share(no, len(calls)), lost)


def after_learning(calls: Sequence[dict[str, Any]], quota: Quota, taken_s: float, lost: int) -> Run:
    """Judge only what began after the first minute, when the buckets are empty and the limits are to be known."""
    start = min((call["started_at"] for call in calls), default=0.0) + LEARNING_S
    end = max((call["finished_at"] for call in calls), default=0.0)
    late = between(calls, start, end + 1)
    least, span = used_tokens(late) / quota.tpm * MINUTE_S, end - start
    no = refused(late)
    enough = span >= LEARNING_S / 2
    return Run(
        "vessel", share(least, span) if enough else None, taken_s, least, len(late), no, share(no, len(late)), lost
    )


def beside_foreign(calls: Sequence[dict[str, Any]], quota: Quota, taken_s: float, lost: int) -> Run:
    """Judge by what another program left: a full bucket and the refill of the whole run, less what it used."""
    ours = [call for call in calls if call["user"] != FOREIGN]
    theirs = used_tokens(call for call in calls if call["user"] == FOREIGN)
    left = quota.tpm * (1 + taken_s / MINUTE_S) - theirs
    no = refused(ours)
    bound = (used_tokens(ours) + theirs - quota.tpm) / quota.tpm * MINUTE_S
    return Run(
        "vessel", share(used_tokens(ours), left), taken_s, bound, len(ours), no, share(no, len(ours)), lost
    )  # fmt: skip


def run_vessel(folder: Path, work: Sequence[Request], quota: Quota, mode: Mode, processes: int) -> Run:
    """Send the jobs through Vessel."""
    told = None if mode == "learned" else quota
    with upstream(folder, quota, told, processes) as stack, GroqClient(settings=stack.settings()) as client:
        if mode == "foreign":
            start_foreign(stack, quota)
        jobs = wait(stack, [handle.id for handle in submit(client, work)])
        calls, taken, lost = calls_of(stack), makespan_s(jobs), failed(jobs)
    match mode:
        case "configured":
            return judged("vessel", calls, quota, taken, lost)
        case "learned":
            return after_learning(calls, quota, taken, lost)
        case "foreign":
            return beside_foreign(calls, quota, taken, lost)


def start_foreign(stack: Stack, quota: Quota) -> None:
    """Start the other program; it ends with the stack."""
    url, rate = f"{stack.base_url}/openai/v1/chat/completions", FOREIGN_PART * quota.tpm / MINUTE_S
    program = [sys.executable, str(PEERS / "foreign.py"), url, KEY, MODEL, str(rate)]
    stack.workers.append(stack.spawn(program, "foreign"))


def run_peer(folder: Path, work: Sequence[Request], quota: Quota, name: str, python: str) -> Run:
    """Run a peer's program on an upstream of its own."""
    with upstream(folder, quota, quota, processes=0) as stack:
        task = {
            "url": f"{stack.base_url}/openai/v1/chat/completions",
            "key": KEY,
            "rpm": quota.rpm,
            "tpm": quota.tpm,
            "requests": [{"body": request.body(), "prompt_tokens": request.prompt_tokens} for request in work],
        }
        path = folder / "work.json"
        path.write_text(json.dumps(task), "utf-8")
        command = [python, str(PEERS / f"{name}.py"), str(path)]
        ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=PEER_TIMEOUT_S)
        told = json.loads(ended.stdout)
        return judged(name, calls_of(stack), quota, told["makespan_s"], told["failed"])


def peer_python(folder: Path) -> str | None:
    """Make a venv with async-batch-llm; None, and a word about it, where it cannot be installed."""
    python = folder / "venv" / "bin" / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True, capture_output=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *ASYNC_BATCH]
        subprocess.run(install, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"async-batch-llm could not be installed ({error}), so it is left out.", file=sys.stderr)
        return None
    return str(python)


def median_of(runs: Sequence[Run]) -> Run:
    """Take the median of every figure."""
    known = [run.efficiency for run in runs if run.efficiency is not None]
    figures = {
        name: statistics.median(getattr(run, name) for run in runs)
        for name in ("makespan_s", "bound_s", "calls", "refused", "refused_part", "failed")
    }
    return Run(runs[0].tool, statistics.median(known) if known else None, **figures)


def goals(mode: Mode, jobs: int) -> tuple[float, float]:
    """Return the efficiency wanted and the part of 429s allowed."""
    if mode == "foreign":
        return 0.95, 0.005
    return (0.985 if jobs >= LONG_BATCH else 0.97), 0.001


def measure(given: argparse.Namespace, folder: Path) -> dict[str, list[Run]]:
    """Run all tools, round by round."""
    quota, mode = Quota(given.rpm, given.tpm), given.mode
    found: dict[str, list[Run]] = {}
    python = peer_python(folder) if given.peers else None
    peers = [("cookbook", sys.executable), *([("async_batch", python)] if python else [])] if given.peers else []
    for number in range(given.runs):
        work = requests(given.jobs, seed=number + 1)
        runs = [run_vessel(folder / f"vessel{number}", work, quota, mode, given.processes)]
        runs += [run_peer(folder / f"{name}{number}", work, quota, name, path) for name, path in peers]
        for run in runs:
            found.setdefault(run.tool, []).append(run)
    return found


def arguments() -> argparse.Namespace:
    """Read the command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=3000)
    options.add_argument("--processes", type=int, default=4)
    options.add_argument("--mode", choices=get_args(Mode), default="configured")
    options.add_argument("--runs", type=int, default=1, help="medians of so many; the goals are about three")
    options.add_argument("--peers", action=argparse.BooleanOptionalAction, default=False)
    options.add_argument("--rpm", type=int, default=3000)
    options.add_argument("--tpm", type=int, default=600_000)
    options.add_argument("--json", action="store_true")
    return options.parse_args()


def main() -> None:
    """Print the medians and the goals."""
    given = arguments()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given, Path(folder))
    medians = {tool: median_of(runs) for tool, runs in found.items()}
    wanted, allowed = goals(given.mode, given.jobs)
    if given.json:
        kept = {tool: {"median": asdict(medians[tool]), "runs": [asdict(r) for r in runs]}
                for tool, runs in found.items()}  # fmt: skip
        print(json.dumps({"mode": given.mode, "jobs": given.jobs, "goal": [wanted, allowed], "tools": kept}))
        return
    print(f"{given.jobs} jobs, {given.processes} processes, limits {given.mode}, medians of {given.runs}")
    print(f"{'tool':14} {'efficiency':>10} {'makespan s':>10} {'least s':>8} {'429s':>6} {'share':>8} {'failed':>6}")
    for run in medians.values():
        part = "too short" if run.efficiency is None else f"{run.efficiency:.3f}"
        print(f"{run.tool:14} {part:>10} {run.makespan_s:10.1f} {run.bound_s:8.1f} {run.refused:6.0f} "
              f"{run.refused_part:8.3%} {run.failed:6.0f}")  # fmt: skip
    print(f"{'goal (vessel)':14} {wanted:10.3f} {'':10} {'':8} {'':6} {allowed:8.3%} {0:6}")
    if {"vessel", "async_batch"} <= set(medians):
        ours, theirs = medians["vessel"].efficiency or 0.0, medians["async_batch"].efficiency or 0.0
        print(f"against async-batch-llm: {100 * (ours - theirs):+.1f} points (goal: -1.0 or better)")


if __name__ == "__main__":
    main()
