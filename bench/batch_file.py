"""A batch file of 50,000 lines through the served app, with real workers: accepted, watched, read, and compared.

Starts a Redis, the simulator with raised limits, two workers and the API. The openai SDK uploads the file and makes a
batch of it; from then on one thread asks for the batch all the time and checks that its counts only grow and stay
within the total, one reads the output while it is written, and one chats. At the end every line must be in the output
once, with the answer to its own messages. Goals are shown and never asserted; what may not be (a count that shrinks, a
line that is lost, doubled or mixed up) ends the run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai

from bench.served import NO_LIMITS, Api, load_average, p95, table, verdict
from bench.submit import MODELS, line, timed
from vessel.simulator.answers import digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openai.types import Batch

GOAL_ACCEPTED_S, GOAL_MIB, GOAL_FIRST_S, GOAL_CHAT_MS = 30.0, 250.0, 15.0, 1000.0
LOOK_EVERY_S, CHAT_EVERY_S = 0.1, 0.5
TERMINAL = {"completed", "failed", "expired", "cancelled"}
REGISTRY = "".join(
    f'[models."{model}".limits.developer]\nrpm = 10000000\ntpm = 1000000000\n' for model in dict.fromkeys(MODELS)
)
TIERS = ("speed_demon", "power")


@dataclass
class Seen:
    """What was seen of a batch while it ran; times in seconds from its creation."""

    begun: float
    total: int
    looks: int = 0
    done: int = 0
    first_done: float | None = None
    first_readable: float | None = None
    at_first_read: int = 0
    ended: float | None = None
    chats: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        """Tell the time."""
        return time.perf_counter() - self.begun

    def look(self, batch: Batch) -> None:
        """Compare a batch's counts with those before."""
        counts = batch.request_counts
        assert counts is not None
        done = counts.completed + counts.failed
        self.looks += 1
        if counts.total not in {0, self.total} or done > self.total or done < self.done:
            self.faults.append(f"{counts} after {self.done} had been done of {self.total}")
        self.done = done
        if done and self.first_done is None:
            self.first_done = self.now()
        if batch.status in TERMINAL:
            self.ended = self.now()
            self.over.set()


def write(path: Path, count: int) -> None:
    """Write the file."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(line(number)) + "\n" for number in range(count))


def parsed(path: Path) -> int:
    """Read the file as any program would: each line as JSON."""
    with path.open("rb") as file:
        return sum(1 for text in file if json.loads(text))


def watch(sdk: openai.OpenAI, batch_id: str, seen: Seen) -> None:
    """Ask for the batch until it has ended."""
    while not seen.over.wait(LOOK_EVERY_S):
        seen.look(sdk.batches.retrieve(batch_id))


def read_early(sdk: openai.OpenAI, batch_id: str, seen: Seen) -> None:
    """Read the output while it is written, until there is a line."""
    while not seen.over.wait(LOOK_EVERY_S):
        batch = sdk.batches.retrieve(batch_id)
        if batch.output_file_id is None:
            continue
        with contextlib.suppress(openai.NotFoundError):
            lines = sdk.files.content(batch.output_file_id).content.splitlines()
            if lines:
                seen.first_readable, seen.at_first_read = seen.now(), len(lines)
                assert all(json.loads(text)["response"]["status_code"] == httpx.codes.OK for text in lines)
                return


def chat(sdk: openai.OpenAI, seen: Seen) -> None:
    """Ask one thing after another, as people do."""
    while not seen.over.wait(CHAT_EVERY_S):
        begun = time.perf_counter()
        sdk.chat.completions.create(
            model=MODELS[0],
            messages=[{"role": "user", "content": f"Chat {len(seen.chats)}?"}],
            max_completion_tokens=64,
        )
        seen.chats.append((time.perf_counter() - begun) * 1000)


@contextlib.contextmanager
def beside(*work: threading.Thread) -> Iterator[None]:
    """Run threads and wait for their end."""
    for thread in work:
        thread.start()
    try:
        yield
    finally:
        for thread in work:
            thread.join()


def compare(path: Path, count: int) -> list[str]:
    """Check that each line has one answer, and that it is its own."""
    found: dict[str, int] = {}
    ids: set[str] = set()
    faults = []
    with path.open("rb") as file:
        for text in file:
            row = json.loads(text)
            name = row["custom_id"]
            found[name] = found.get(name, 0) + 1
            ids.add(row["id"])
            content = row["response"]["body"]["choices"][0]["message"]["content"]
            if digest(line(int(name[1:]))["body"]["messages"]) not in content:
                faults.append(f"{name} has the answer to something else")
    faults += [f"{name} is there {times} times" for name, times in found.items() if times > 1]
    missing = count - len(found)
    if missing or len(ids) != count:
        faults.append(f"{missing} lines are missing, and {count - len(ids)} of their ids")
    return faults[:10]


def through(stack: Api, folder: Path, count: int) -> dict[str, Any]:
    """Upload, make, watch, read and compare."""
    path, output = folder / "in.jsonl", folder / "out.jsonl"
    write(path, count)
    reading = timed(lambda: parsed(path))
    idle = stack.rss_mib()
    with openai.OpenAI(api_key="none", base_url=f"{stack.url}/v1", max_retries=0, timeout=600) as sdk:
        begun = time.perf_counter()
        file = sdk.files.create(file=path, purpose="batch")
        uploaded = time.perf_counter()
        batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        seen = Seen(time.perf_counter(), count)
        while batch.status == "validating":
            time.sleep(0.02)
            batch = sdk.batches.retrieve(batch.id)
            seen.look(batch)
        accepted = time.perf_counter()
        assert batch.status != "failed", batch.errors
        with beside(
            threading.Thread(target=watch, args=(sdk, batch.id, seen)),
            threading.Thread(target=read_early, args=(sdk, batch.id, seen)),
            threading.Thread(target=chat, args=(sdk, seen)),
        ):
            seen.over.wait()
        batch = sdk.batches.retrieve(batch.id)
        assert batch.output_file_id is not None
        downloading = timed(lambda: _download(sdk, str(batch.output_file_id), output))
    assert seen.ended is not None
    counts = batch.request_counts
    if batch.status != "completed" or counts is None or counts.completed != count:
        seen.faults.append(f"ended {batch.status} with {counts}")
    return {
        "lines": count, "size_mib": round(path.stat().st_size / 2**20, 1), "load": load_average(),
        "reading_s": reading, "upload_s": uploaded - begun, "accepted_s": accepted - begun,
        "first_done_s": seen.first_done, "first_readable_s": seen.first_readable, "at_first_read": seen.at_first_read,
        "makespan_s": seen.ended, "lines_per_s": count / seen.ended, "download_s": downloading,
        "rss_before_mib": idle, "rss_peak_mib": stack.rss_mib("VmHWM"), "looks": seen.looks,
        "chats": len(seen.chats), "chat_p95_ms": p95(seen.chats),
        "upstream_calls": stack.ask("/_sim/stats")["accepted"], "faults": seen.faults + compare(output, count),
    }  # fmt: skip


def _download(sdk: openai.OpenAI, file_id: str, path: Path) -> None:
    with sdk.files.with_streaming_response.content(file_id) as content:
        content.stream_to_file(path)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start everything and take one batch through it."""
    with tempfile.TemporaryDirectory() as folder:
        registry, begins = Path(folder) / "registry.toml", Path(folder) / "scenario.json"
        registry.write_text(REGISTRY, "utf-8")
        begins.write_text(json.dumps({"latency_ms": options.latency_ms}), "utf-8")
        simulator = ["--scenario", str(begins)]
        with Api(Path(folder) / "stack", simulator=simulator, VESSEL_REGISTRY=str(registry)) as stack:
            stack.ask("/_sim/limits", NO_LIMITS)
            for _ in range(options.workers):
                stack.start_worker(TIERS, slots=100)
            stack.start_api()
            return through(stack, Path(folder), options.lines)


def show(found: dict[str, Any]) -> str:
    """Set the figures in a table."""
    first, chats = found["first_readable_s"] or found["makespan_s"], found["chat_p95_ms"]
    accepted, peak, faults = found["accepted_s"], found["rss_peak_mib"], found["faults"]

    def goal(value: float, most: float, unit: str) -> str:
        return f"; goal {most:g} {unit}: {verdict(value, most)}"

    times = f"{accepted / found['reading_s']:.1f} times the reading"
    rows: list[tuple[str, Any, str]] = [
        ("file", f"{found['lines']:,} lines", f"{found['size_mib']:g} MiB"),
        ("reading and parsing it", f"{found['reading_s']:.2f} s", ""),
        ("uploaded", f"{found['upload_s']:.2f} s", ""),
        ("uploaded, checked and accepted", f"{accepted:.2f} s", times + goal(accepted, GOAL_ACCEPTED_S, "s")),
        (
            "first results readable",
            f"{first:.1f} s",
            f"{found['at_first_read']} lines" + goal(first, GOAL_FIRST_S, "s"),
        ),
        ("all done", f"{found['makespan_s']:.0f} s", f"{found['lines_per_s']:.0f} lines/s"),
        ("output read", f"{found['download_s']:.2f} s", ""),
        (
            "API process at most",
            f"{peak:.0f} MiB",
            f"{found['rss_before_mib']:.0f} before" + goal(peak, GOAL_MIB, "MiB"),
        ),
        ("chat beside it, p95", f"{chats:.0f} ms", f"{found['chats']} chats" + goal(chats, GOAL_CHAT_MS, "ms")),
        ("calls upstream", f"{found['upstream_calls']:,}", f"{found['lines'] + found['chats']:,} asked for"),
        ("looks at the counts", f"{found['looks']:,}", ""),
        ("faults", len(faults), "; ".join(faults)),
        ("load average", found["load"], ""),
    ]
    return table(rows)


def main() -> int:
    """Print the figures; 1 where a line or a count was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--lines", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--latency-ms", type=int, default=50)
    options = parser.parse_args()
    found = measure(options)
    print(json.dumps(found) if options.json else show(found))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
