"""A whole vessel with its REST face, as processes, and what tests ask of it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import groq
import httpx
import openai

from bench.served import Api
from vessel.keyspace.connect import SyncRunner, connect
from vessel.submit import Door

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator
    from pathlib import Path

_VESSEL = (sys.executable, "-m", "vessel.cli.main")
GREETING: Any = [{"role": "user", "content": "hello"}]
BODY: dict[str, Any] = {"model": "auto", "messages": GREETING}


class Served(Api):
    """A stack with one API process, and the SDKs on it."""

    def __init__(self, folder: Path, **env: Any) -> None:
        """Choose its settings; answers take no time."""
        super().__init__(folder, simulator=("--latency-scale", "0"), **env)
        self.keys: dict[str, Any] = {}

    def stop_api(self, how: signal.Signals | None = None) -> int:
        """End the API."""
        assert self.api is not None
        if how is None:
            self.api.terminate()
        else:
            self.api.send_signal(how)
        code = self.api.wait(40)
        assert self.api.stdout is not None
        self.api.stdout.close()
        return code

    def stop(self) -> None:
        """End everything, the API without waiting for its open calls."""
        if self.api is not None and self.api.poll() is None:
            self.api.kill()
            self.api.wait()
        super().stop()

    def cli(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        command = [*_VESSEL, *arguments]
        return subprocess.run(
            command, env=self.environment() | env, capture_output=True, text=True, timeout=60, check=False
        )

    def run_cli(self, *arguments: str) -> Any:
        """Run a command with --json and read its document."""
        done = self.cli(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout.splitlines()[0])

    def given_up(self) -> int:
        """Count the chat completions whose client left before the answer."""
        with self.http() as client:
            lines = [
                line for line in client.get("/metrics").text.splitlines() if 'chat/completions",status="499"' in line
            ]
        return int(sum(float(line.rpartition(" ")[2]) for line in lines))

    @contextlib.contextmanager
    def inside(self) -> Iterator[tuple[Door, SyncRunner]]:
        """Look at Redis as Vessel does."""
        with contextlib.closing(connect(self.redis.url)) as client:
            yield Door(self.settings()), SyncRunner(client)

    def http(self, **options: Any) -> httpx.Client:
        """Open a plain client."""
        return httpx.Client(base_url=self.url, timeout=60, **options)

    def openai(self, **options: Any) -> openai.OpenAI:
        """Open the openai SDK."""
        return openai.OpenAI(base_url=f"{self.url}/v1", **_sdk(options))

    def groq(self, **options: Any) -> groq.Groq:
        """Open the groq SDK."""
        return groq.Groq(base_url=self.url, **_sdk(options))

    def job(self, job_id: str) -> Any:
        """Read a job."""
        with self.http() as client:
            return client.get(f"/v1/jobs/{job_id}").json()


def _sdk(options: dict[str, Any]) -> dict[str, Any]:
    return {"api_key": "none", "max_retries": 0} | options
