"""Many who wait: long polls and readers of streams on one API, in a process of their own, which says what they saw.

Started by `api_load`. It prints a line once all wait and read, one when all polls were answered, and its counts as JSON
when its input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import aiohttp
import uvloop

WAIT_S = 290
PATIENCE_S = 60.0


class Crowd:
    """What they do and have seen."""

    def __init__(self, url: str, session: aiohttp.ClientSession, streams: int) -> None:
        """Begin with nobody."""
        self.url, self.session, self.streams = url, session, streams
        self.all_read = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.reading: set[int] = set()
        self.errors: list[str] = []

    async def poll(self, job_id: str) -> None:
        """Wait for a job's end; it has to be told."""
        try:
            async with self.session.get(f"{self.url}/v1/jobs/{job_id}", params={"wait": str(WAIT_S)}) as answer:
                state = (await answer.json()).get("state")
                self.counts["polls"] += 1
                if state != "cancelled":
                    self.failed(f"poll: {answer.status} {state}")
        except (aiohttp.ClientError, OSError) as error:
            self.failed(f"poll: {type(error).__name__}")

    async def read(self, number: int, model: str, pieces: int) -> None:
        """Read one stream after the other; each has to be whole."""
        turn = 0
        while True:
            prompt = f"drip {number}.{turn} <<tokens:{pieces}>>"
            body = {"model": model, "messages": [{"role": "user", "content": prompt}], "stream": True}
            try:
                async with self.session.post(f"{self.url}/v1/chat/completions", json=body) as answer:
                    last = b""
                    async for line in answer.content:
                        if line.startswith(b"data: "):
                            self.counts["events"] += 1
                            self.reading.add(number)
                            if len(self.reading) == self.streams:
                                self.all_read.set()
                            last = line
                    self.counts["streams"] += 1
                    if not answer.ok or last.strip() != b"data: [DONE]":
                        self.failed(f"stream: {answer.status} ended with {last[:200]!r}")
            except (aiohttp.ClientError, OSError) as error:
                self.failed(f"stream: {type(error).__name__}")
            turn += 1

    def failed(self, why: str) -> None:
        """Count an error and keep the first few."""
        self.counts["errors"] += 1
        self.errors = [*self.errors, why][:5]


async def run(options: argparse.Namespace, jobs: list[str]) -> None:
    """Wait and read until the input ends."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**14) as session:
        crowd = Crowd(options.url, session, options.streams)
        polls = [asyncio.ensure_future(crowd.poll(job_id)) for job_id in jobs]
        reads = []
        for number in range(options.streams):
            # One after the other, so that they do not all end and begin at once.
            reads.append(asyncio.ensure_future(crowd.read(number, options.model, options.pieces)))
            await asyncio.sleep(options.ramp_s / options.streams)
        with suppress(TimeoutError):
            await asyncio.wait_for(crowd.all_read.wait(), PATIENCE_S)
        print(json.dumps({"reading": len(crowd.reading), "early": crowd.counts["polls"]}), flush=True)
        begun, events = time.monotonic(), crowd.counts["events"]
        if polls:
            await asyncio.wait(polls)
        rate = (crowd.counts["events"] - events) / (time.monotonic() - begun)
        print(json.dumps({"answered": time.monotonic()}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        print(json.dumps({**crowd.counts, "errors": crowd.counts["errors"], "events_per_s": round(rate),
                          "first_errors": crowd.errors}), flush=True)  # fmt: skip


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("jobs")
    parser.add_argument("--streams", type=int, required=True)
    parser.add_argument("--pieces", type=int, required=True)
    parser.add_argument("--ramp-s", type=float, required=True)
    parser.add_argument("--model", required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        options = parser.parse_args()
        runner.run(run(options, json.loads(Path(options.jobs).read_text("utf-8"))))
