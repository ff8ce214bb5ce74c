"""Measure how many chat completions a second the simulator serves on one core; the goal is 2,000.

Keep-alive connections over raw sockets, latency 0, limits out of the way. `per core` counts against the simulator's own
CPU time, so that a busy machine or the load generator beside it does not blur it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import uvloop

GOAL = 2000
DEADLINE_S = 300
MODEL = "openai/gpt-oss-20b"
UNLIMITED = {"rpm": None, "rpd": 1_000_000_000, "tpm": 1_000_000_000, "tpd": None}


class Client(asyncio.Protocol):
    """One connection that sends its request again as soon as the answer is whole."""

    def __init__(self, load: Load) -> None:
        """Take part in a load."""
        self.load, self.missing, self.seen = load, 0, b""
        self.transport: asyncio.Transport | None = None
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self.send()

    def send(self) -> None:
        """Send the next request, or close when there is none."""
        assert self.transport is not None
        request = self.load.take()
        if request is None:
            self.transport.close()
            return
        self.sent_at = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Count the answer down to its last byte."""
        if not self.missing:
            self.seen += data
            head, end, body = self.seen.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.startswith(b"HTTP/1.1 200"), head
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self.missing, data, self.seen = int(length), body, b""
        self.missing -= len(data)
        if not self.missing:
            self.load.times.append(time.perf_counter() - self.sent_at)
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of this connection."""
        self.load.end()
        if exc is not None:
            raise exc


class Load:
    """So many requests over so many connections."""

    def __init__(self, url: str, requests: int, connections: int) -> None:
        """Prepare one request per connection and turn."""
        split = urlsplit(url)
        self.host, self.port = str(split.hostname), int(split.port or 80)
        self.left, self.open = requests, connections
        self.number = 0
        self.times: list[float] = []
        self.done = asyncio.Event()

    def take(self) -> bytes | None:
        """Give the next request, each with a prompt of its own."""
        if not self.left:
            return None
        self.left -= 1
        self.number += 1
        text = f"Summarise ticket {self.number}: the lamp in the hall does not work since the storm of last week."
        body = json.dumps(
            {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_completion_tokens": 256}
        )
        head = f"POST /openai/v1/chat/completions HTTP/1.1\r\nhost: {self.host}\r\nauthorization: Bearer gsk_bench\r\n"
        head += f"content-type: application/json\r\nx-stainless-retry-count: 0\r\ncontent-length: {len(body)}\r\n\r\n"
        return (head + body).encode()

    def end(self) -> None:
        """Note that a connection is over."""
        self.open -= 1
        if not self.open:
            self.done.set()

    async def run(self) -> float:
        """Send everything; returns the seconds it took."""
        loop = asyncio.get_running_loop()
        started = time.perf_counter()
        for _ in range(self.open):
            await loop.create_connection(lambda: Client(self), self.host, self.port)
        await asyncio.wait_for(self.done.wait(), DEADLINE_S)
        return time.perf_counter() - started


def cpu_s(pid: int) -> float | None:
    """Return the CPU seconds a process has used, None where /proc is not there."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(url: str, pid: int, requests: int, connections: int) -> dict[str, Any]:
    """Warm up, then measure."""
    await Load(url, requests // 10, connections).run()
    before, load = cpu_s(pid), Load(url, requests, connections)
    took, after = await load.run(), cpu_s(pid)
    assert len(load.times) == requests
    used = None if before is None or after is None else after - before
    return {
        "requests": requests,
        "connections": connections,
        "requests_per_s": round(requests / took),
        "requests_per_s_per_core": None if not used else round(requests / used),
        "cpu_ms_per_request": None if not used else round(used / requests * 1000, 3),
        "median_ms": round(statistics.median(load.times) * 1000, 2),
        "p99_ms": round(statistics.quantiles(load.times, n=100)[98] * 1000, 2),
        "goal": GOAL,
    }


def run(requests: int, connections: int) -> dict[str, Any]:
    """Start a simulator, measure it, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        scenario, address = Path(folder, "scenario.json"), Path(folder, "url")
        scenario.write_text(json.dumps({"limits": {"*": UNLIMITED}, "latency_scale": 0}), "utf-8")
        command = [sys.executable, "-m", "vessel.simulator", "--scenario", str(scenario), "--url-file", str(address)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parent.parent)
        try:
            while not address.exists():
                assert process.poll() is None, "the simulator did not start"
                time.sleep(0.02)
            url = address.read_text("utf-8")
            found = uvloop.run(measure(url, process.pid, requests, connections))
            with urlopen(Request(f"{url}/_sim/stats"), timeout=30) as answer:  # noqa: S310  loopback
                stats = json.load(answer)
            assert stats["delivered"] == requests + requests // 10, stats
            return found
        finally:
            process.terminate()
            process.wait(10)


def main() -> None:
    """Print what was measured."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--requests", type=int, default=20_000)
    options.add_argument("--connections", type=int, default=64)
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    found = run(given.requests, given.connections)
    if given.json:
        print(json.dumps(found))
        return
    per_core = found["requests_per_s_per_core"] or "?"
    print(f"simulator, {found['connections']} connections: {found['requests_per_s']} requests/s (goal {GOAL}),")
    print(f"  {per_core} per core of its own, median {found['median_ms']} ms, 99 % within {found['p99_ms']} ms")


if __name__ == "__main__":
    main()
