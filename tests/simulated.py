"""The simulator for its own tests: in this process on a clock of the test's, or as the process it is elsewhere."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.request import Request, urlopen

import groq

from tests.waiting import wait_until
from vessel.simulator import Simulation, SimulatorConfig, create_app

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

ROOT = Path(__file__).parent.parent
MODEL = "openai/gpt-oss-20b"
START = 1_795_478_400.0
KEY = "gsk_test"
GREETING: Any = [{"role": "user", "content": "hello"}]


@dataclass
class ManualClock:
    """Time that moves when a test says so, and at once when the simulator sleeps."""

    at: float = START
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        """Return the time."""
        return self.at

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        self.slept.append(seconds)
        self.at += seconds


@dataclass(frozen=True)
class Answer:
    """What an exchange gave."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, Any]:
        """Read the error."""
        found: dict[str, Any] = self.json["error"]
        return found

    @property
    def text(self) -> Any:
        """Read the content of the answer."""
        return self.json["choices"][0]["message"]["content"]

    @property
    def events(self) -> list[Any]:
        """Read the events of a stream, [DONE] as it stands."""
        blocks = self.content.decode().split("\n\n")
        found = [line.removeprefix("data: ") for b in blocks for line in b.splitlines() if line.startswith("data: ")]
        return [data if data == "[DONE]" else json.loads(data) for data in found]


class Local:
    """A simulator in this process, asked without a socket."""

    def __init__(self, **fields: Any) -> None:
        """Start one; latency 0 unless the test says otherwise."""
        self.clock = ManualClock()
        self.sim = Simulation(SimulatorConfig(**({"latency_scale": 0} | fields)), self.clock)
        self._app = create_app(simulation=self.sim)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Ask for a path; `body` is sent as JSON, bytes as they are."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        path, _, query = path.partition("?")
        given = {"authorization": f"Bearer {KEY}"} | (headers or {})
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
        }
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": content, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self._run(scope, receive, send))
        shown = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], shown, b"".join(message["body"] for message in sent[1:]))

    async def _run(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)

    def chat(self, prompt: str = "hello", *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        """Send a chat completion."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}]} | more
        return self.ask("POST", "/openai/v1/chat/completions", body, headers)

    def stats(self) -> Any:
        """Read the counters."""
        return self.ask("GET", "/_sim/stats").json

    def calls(self) -> list[dict[str, Any]]:
        """Read the log of calls."""
        found: list[dict[str, Any]] = self.ask("GET", "/_sim/calls").json["calls"]
        return found


class Process:
    """A simulator process; ends with its `with` block."""

    def __init__(self, folder: Path, *arguments: str, latency: Sequence[str] = ("--latency-scale", "0")) -> None:
        """Choose its arguments."""
        self.address = folder / "simulator.url"
        self.command = [sys.executable, "-m", "vessel.simulator", "--url-file", str(self.address), *latency, *arguments]
        self.errors = folder / "simulator.err"
        self.url = ""

    def __enter__(self) -> Self:
        """Start it and wait for its address."""
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            wait_until(lambda: self.address.exists() or self.process.poll() is not None)
            self.url = self.address.read_text("utf-8")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def fresh(self) -> Self:
        """Put it back to its start, once the calls of another test are over."""
        self.ask("faults", method="DELETE")
        wait_until(lambda: self.ask("stats")["in_flight"] == 0)
        self.ask("reset", {})
        return self

    def client(self, *, timeout: float = 20.0, retries: int = 0, key: str = KEY) -> groq.Groq:
        """Open the SDK on it."""
        return groq.Groq(api_key=key, base_url=self.url, max_retries=retries, timeout=timeout)

    def chat(self, *, timeout: float = 20.0, retries: int = 0, **body: Any) -> Any:
        """Ask once through the SDK."""
        with self.client(timeout=timeout, retries=retries) as sdk:
            return sdk.chat.completions.create(**{"model": MODEL, "messages": GREETING} | body)

    def stream(self, *, timeout: float = 20.0) -> list[Any]:
        """Read a stream to its end through the SDK."""
        with self.client(timeout=timeout) as sdk:
            return list(sdk.chat.completions.create(model=MODEL, messages=GREETING, stream=True))

    def fault(self, **rule: Any) -> None:
        """Give a rule."""
        self.ask("faults", rule)

    def last_call(self) -> dict[str, Any]:
        """Wait for the last call to be over and read its line."""
        wait_until(lambda: self.ask("stats")["in_flight"] == 0 and self.calls())
        return self.calls()[-1]

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Ask its own side."""
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(f"{self.url}/_sim/{path}", data, method=method), timeout=20) as answer:  # noqa: S310  loopback
            return json.load(answer)

    def calls(self) -> list[dict[str, Any]]:
        """Read the log of calls."""
        found: list[dict[str, Any]] = self.ask("calls")["calls"]
        return found
