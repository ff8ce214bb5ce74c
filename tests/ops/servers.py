"""Redis servers from the shipped files, and the processes of Vessel on them, wherever they are."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Self

from tests.ops.composed import OPS, ROOT, make_secrets
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VESSEL = [sys.executable, "-m", "vessel.cli.main"]
TIER = "power"


def certificates(folder: Path, names: str) -> None:
    """Make an authority and a certificate for names, as `DNS:localhost`: ca.crt, redis.crt, redis.key."""
    steps = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.crt -subj /CN=vessel-test-ca",
        "req -newkey rsa:2048 -nodes -keyout redis.key -out redis.csr -subj /CN=vessel-test",
        "x509 -req -in redis.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out redis.crt -extfile names",
    )
    (folder / "names").write_text(f"subjectAltName={names}")
    for step in steps:
        subprocess.run(["openssl", *step.split()], cwd=folder, check=True, capture_output=True)


class Servers:
    """Servers, and one worker and a scheduler on them; all end with the block."""

    def __init__(self, folder: Path, groq_url: str, address: str) -> None:
        """Make the secrets for an address."""
        self.folder, self.groq_url = folder, groq_url
        self.secrets = folder / "secrets"
        make_secrets(self.secrets, address)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.more: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all that still runs, the last started first."""
        for process in reversed(self.running.values()):
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(30)
                process.kill()
            process.wait()

    def start(self, name: str, command: Sequence[str | Path], **env: str) -> None:
        """Start a process, its output in a log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                command, env={**os.environ, **env}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def redis(self, name: str, *options: str) -> None:
        """Start a server from the shipped files."""
        data = self.folder / name
        data.mkdir()
        # A copy: a Sentinel has the server write its configuration anew.
        conf = data / "redis.conf"
        conf.write_text((OPS / "redis.conf").read_text("utf-8") + (OPS / "redis" / "standard.conf").read_text("utf-8"))
        here = () if "--bind" in options else ("--bind", "127.0.0.1")
        users = self.secrets / "users.acl"
        self.start(name, ["redis-server", conf, "--aclfile", users, "--dir", data, *here, *options])

    def environment(self, user: str) -> dict[str, str]:
        """Give what a process of Vessel is told."""
        return {
            "VESSEL_REDIS_URL": f"file://{self.secrets}/redis_url_{user}",
            "VESSEL_DATA_DIR": str(self.folder / "data"),
            "GROQ_BASE_URL": self.groq_url,
            "GROQ_API_KEY": "gsk_test",
            "PYTHONPATH": str(ROOT),
        } | self.more

    def work(self) -> None:
        """Start a worker and a scheduler, and wait until a question is answered."""
        self.start("worker", [*VESSEL, "worker", "--tiers", TIER, "--concurrency", "20"], **self.environment("worker"))
        self.start("scheduler", [*VESSEL, "scheduler"], **self.environment("worker"))
        wait_until(lambda: self.vessel("query", "hello", "--tier", TIER).returncode == 0, 90)

    def vessel(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command as a producer."""
        given = {**os.environ, **self.environment("api"), **env}
        return subprocess.run(
            [*VESSEL, *arguments], env=given, capture_output=True, text=True, timeout=120, check=False
        )

    def submit(self, number: int) -> list[str]:
        """Submit jobs and give their ids."""
        (file := self.folder / "jobs.jsonl").write_text("".join(f'{{"prompt": "say {n}"}}\n' for n in range(number)))
        done = self.vessel("submit", "--file", str(file), "--tier", TIER)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def password(self, user: str) -> str:
        """Read the password of a user that has no address."""
        return (self.secrets / f"redis_password_{user}").read_text().strip()

    def log(self, name: str) -> str:
        """Read what a process has written."""
        return (self.folder / f"{name}.log").read_text(errors="replace")
