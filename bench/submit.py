"""Submitting 50,000 requests: the client's batch beside Celery's `apply_async` in a loop; and a file through REST.

The first part runs both ways in this process against the same Redis, in interleaved rounds. `apply_async` sends the
same bodies to a queue that nobody reads, with results ignored, which is its fastest use. Vessel also checks and routes
every line, and what it has submitted at the end is a whole batch that goes.

The second part starts the REST routers in a process of their own and uploads the file with the openai SDK: seconds
beside reading the file, and its largest resident memory. Only ratios are worth quoting: the machine is shared.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import redis
from celery import Celery
from groq_vessel import GroqClient

from bench.served import load_average, table, verdict
from vessel.dispatch.app import broker_url
from vessel.embedded import EmbeddedServer
from vessel.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL = 5.0
MOST_MIB = 250
MODELS = ("openai/gpt-oss-20b", "openai/gpt-oss-120b")
WORDS = "The queue keeps what was accepted and asks for it in its turn. " * 8
"""A prompt of about 520 bytes, as in perf-facts S5."""


def body(number: int) -> dict[str, Any]:
    """Write a request."""
    messages = [{"role": "user", "content": f"{number}: {WORDS}"}]
    return {"model": MODELS[number % 2], "messages": messages, "max_completion_tokens": 256}


def line(number: int) -> dict[str, Any]:
    """Write a batch line."""
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body(number)}


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that work took."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def by_celery(url: str, count: int) -> float:
    """Send every request with `apply_async`."""
    app = Celery("peer", broker=broker_url(url)[0])
    app.conf.task_ignore_result = True

    @app.task(name="peer.ask")
    def ask(request: dict[str, Any]) -> None:
        """Never run here."""

    def loop() -> None:
        for number in range(count):
            ask.apply_async((body(number),))

    return timed(loop)


def by_client(url: str, count: int, folder: Path) -> float:
    """Submit every request as one batch."""
    settings = load_settings({}, redis_url=url, data_dir=folder)
    with GroqClient(settings=settings) as client:
        client.runner.run(client.door.availability())
        return timed(lambda: client.submit_batch(line(number) for number in range(count)))


def side_by_side(url: str, count: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Measure both ways in turn; returns the median rates, and the median of each round's ratio."""
    found: dict[str, list[float]] = {"celery": [], "client": []}
    ways: dict[str, Callable[[], float]] = {
        "celery": lambda: by_celery(url, count),
        "client": lambda: by_client(url, count, folder),
    }
    with redis.Redis.from_url(url) as store:
        for _ in range(rounds):
            for name, run in ways.items():
                store.flushall()
                found[name].append(count / run())
                used = int(store.info("memory")["used_memory"])
                text = f"  {name:<7}{found[name][-1]:>9,.0f} jobs/s {used / count:>8,.0f} B of Redis a job"
                print(text, file=sys.stderr, flush=True)
    ratios = [ours / theirs for ours, theirs in zip(found["client"], found["celery"], strict=True)]
    rates = {f"{name}_per_s": statistics.median(rates) for name, rates in found.items()}
    return {"jobs": count, "rounds": rounds, **rates, "ratios": ratios, "ratio": statistics.median(ratios)}


def peak_mib(pid: int, what: str = "VmHWM") -> float:
    """Read a process' largest resident memory so far, or with `VmRSS` that of this moment."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return int(status.partition(f"{what}:")[2].split()[0]) / 1024


def through_rest(url: str, count: int, folder: Path) -> dict[str, float]:
    """Upload a file and make a batch of it, in a process of its own; returns times in s and memory in MiB."""
    path = folder / "in.jsonl"
    path.write_text("".join(json.dumps(line(number)) + "\n" for number in range(count)), "utf-8")
    reading = timed(lambda: sum(map(len, path.open("rb"))))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known = {"VESSEL_REDIS_URL": url, "VESSEL_DATA_DIR": str(folder), "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "uvicorn", "--factory", "tests.api.batch_app:from_environment"]
    command += ["--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, env=os.environ | known)
    try:
        base = f"http://127.0.0.1:{port}/v1"
        until(lambda: httpx.get(f"{base}/batches").is_success)
        idle = peak_mib(process.pid, "VmRSS")
        with openai.OpenAI(api_key="k", base_url=base, max_retries=0) as sdk:
            begun = time.perf_counter()
            file = sdk.files.create(file=path, purpose="batch")
            uploaded = time.perf_counter()
            batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
            until(lambda: sdk.batches.retrieve(batch.id).status != "validating")
            accepted = time.perf_counter()
            assert sdk.batches.retrieve(batch.id).request_counts.total == count  # type: ignore[union-attr]  # it is there
        return {"size_mib": path.stat().st_size / 2**20, "reading_s": reading, "upload_s": uploaded - begun,
                "checked_s": accepted - uploaded, "peak_mib": peak_mib(process.pid), "before_mib": idle}  # fmt: skip
    finally:
        process.terminate()
        process.wait(20)


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise TimeoutError


def show(found: dict[str, Any]) -> str:
    """Set the figures in a table."""
    rest, ratio, peak = found["rest"], found["ratio"], found["rest"]["peak_mib"]
    spread = f"{min(found['ratios']):.1f} to {max(found['ratios']):.1f} in {found['rounds']} rounds"
    before = f"{rest['before_mib']:.0f} before"
    rows: list[tuple[str, Any, str]] = [
        ("apply_async in a loop", f"{found['celery_per_s']:,.0f} jobs/s", f"{found['jobs']:,} requests a round"),
        ("the client's batch", f"{found['client_per_s']:,.0f} jobs/s", ""),
        ("ratio", f"{ratio:.1f}", spread + f"; goal {GOAL:g}: {verdict(ratio, GOAL, least=True)}"),
        ("the file: reading its lines", f"{rest['reading_s']:.2f} s", f"{rest['size_mib']:.0f} MiB"),
        ("through REST: uploaded", f"{rest['upload_s']:.2f} s", ""),
        ("checked and accepted", f"{rest['checked_s']:.2f} s", "later"),
        ("API process, validating too", f"{peak:.0f} MiB", before + f"; goal {MOST_MIB:g}: {verdict(peak, MOST_MIB)}"),
        ("load average", found["load"], ""),
    ]
    return table(rows)


def main() -> int:
    """Measure; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder) / "redis")
        server.start()
        try:
            found = side_by_side(server.url, asked.jobs, asked.rounds, Path(folder))
            found["rest"] = through_rest(server.url, asked.jobs, Path(folder))
        finally:
            server.stop()
    found["load"] = load_average()
    print(json.dumps(found) if asked.json else show(found))
    return 0 if found["ratio"] >= GOAL and found["rest"]["peak_mib"] < MOST_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
