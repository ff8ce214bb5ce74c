"""The services of compose.yaml as processes of this machine: its commands, its environments, its secrets as files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import redis
import yaml  # type: ignore[import-untyped]  # it has no types

from bench.stack import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[2]
OPS = ROOT / "ops"
READY_S = 90.0
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*))?\}")


def compose() -> dict[str, Any]:
    """Read compose.yaml, its anchors followed."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    return found


def filled(text: str, given: Mapping[str, str]) -> str:
    """Put variables and their defaults in."""
    return _VARIABLE.sub(lambda match: given.get(match[1]) or match[2] or "", text)


def is_ours(service: Mapping[str, Any]) -> bool:
    """Tell whether a service runs Vessel's image."""
    return "groq-vessel" in service["image"]


class Composed:
    """Redis with its users, the simulator, and every service of Vessel's own."""

    def __init__(self, folder: Path) -> None:
        """Choose ports and make the secrets."""
        self.folder, self.services = folder, compose()["services"]
        self.ports = {name: free_port() for name in ("redis", "simulator", "api", "flower", "mcp", "metrics")}
        self.secrets = folder / "secrets"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.given = {"GROQ_BASE_URL": f"http://127.0.0.1:{self.ports['simulator']}"}
        make_secrets(self.secrets, f"redis://@127.0.0.1:{self.ports['redis']}/0")
        shutil.copy(OPS / "compose" / "sim_api_key", self.secrets / "groq_api_key")

    def __enter__(self) -> Self:
        """Start Redis and the simulator, then all others at once; `await_health` says when they are well."""
        self.spawn("redis", redis_command(self.services["redis"]["command"], self), dict(os.environ))
        wait_until(self._pings, READY_S)
        for name, service in self.services.items():
            if is_ours(service):
                self.spawn(name, self._local(service["command"]), self.environment(name))
        return self

    def __exit__(self, *_: object) -> None:
        """End all, Redis last."""
        others = [process for name, process in self.running.items() if name != "redis"]
        for process in [*others, self.running["redis"]]:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def environment(self, name: str, **more: str) -> dict[str, str]:
        """Give a service's environment, its paths and ports those of this machine."""
        given = self.services[name]["environment"] | self._of_file(name)
        found = {key: self._here(filled(str(value), self.given)) for key, value in given.items()}
        found |= {f"VESSEL_{key}_PORT": str(self.ports[key.lower()]) for key in ("API", "FLOWER", "MCP", "METRICS")}
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("VESSEL_", "GROQ_", "OPENAI_"))}
        return kept | found | {"VESSEL_DATA_DIR": str(self.folder / "data"), "PYTHONPATH": str(ROOT)} | more

    def _of_file(self, name: str) -> dict[str, str]:
        """Read the names of a service's `env_file`, whose values are those of the variables given."""
        files = [ROOT / file for file in self.services[name].get("env_file", ())]
        lines = [line for file in files for line in file.read_text("utf-8").splitlines() if line and line[0] != "#"]
        return {line.partition("=")[0]: self.given[line.partition("=")[0]] for line in lines}

    def is_well(self, name: str) -> bool:
        """Run a service's own health check once."""
        _, _, script, *arguments = self.services[name]["healthcheck"]["test"]
        assert script == "/opt/vessel/ops/health.py"
        port = self.ports.get(name, 0)
        command = [sys.executable, OPS / "health.py", *(str(port) if a.isdecimal() else a for a in arguments)]
        done = subprocess.run(command, env=self.environment(name), capture_output=True, check=False, timeout=60)
        return done.returncode == 0

    def await_health(self) -> None:
        """Wait until every service is there, then have each one's own health check say so."""
        others = [name for name in self.running if name != "redis"]
        with self.client("api") as client:
            for name in others:
                wait_until(partial(self._is_there, name, client), READY_S)
        for name in others:
            wait_until(partial(self.is_well, name), READY_S)

    def _is_there(self, name: str, client: redis.Redis) -> bool:
        """Look without a new process: health checks cost half a second each."""
        process = self.running[name]
        assert process.poll() is None, f"{name} ended with {process.returncode}: {self.log(name)[-2000:]}"
        if name in self.ports:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.ports[name]), 1):
                return True
            return False
        return name == "scheduler" or client.hlen("vessel:slots") == len([n for n in self.services if "worker-" in n])

    def log(self, name: str) -> str:
        """Read what a service has written."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def cli(self, *arguments: str, user: str = "operator") -> subprocess.CompletedProcess[str]:
        """Run a command of the command line as one of Redis' users."""
        env = self.environment("scheduler", VESSEL_REDIS_URL=f"file://{self.secrets}/redis_url_{user}")
        command = [sys.executable, "-m", "vessel.cli.main", *arguments]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)

    def client(self, user: str) -> redis.Redis:
        """Open Redis as one of its users."""
        if user == "metrics":
            password = (self.secrets / "redis_password_metrics").read_text().strip()
            return redis.Redis(port=self.ports["redis"], username=user, password=password)
        return redis.Redis.from_url((self.secrets / f"redis_url_{user}").read_text().strip())

    def _pings(self) -> bool:
        process = self.running["redis"]
        assert process.poll() is None, self.log("redis")
        with contextlib.suppress(redis.RedisError), self.client("api") as client:
            return bool(client.ping())
        return False

    def _here(self, text: str) -> str:
        return text.replace("/run/secrets", str(self.secrets))

    def _local(self, command: Sequence[str]) -> list[str]:
        assert command[0] == "vessel"
        here = {"8090": str(self.ports["simulator"]), "http://simulator:8090": self.given["GROQ_BASE_URL"]}
        return [sys.executable, "-m", "vessel.cli.main", *(here.get(a, a) for a in command[1:])]

    def spawn(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start a process, its output in a log; it ends with the others."""
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                command, env=env, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )


def make_secrets(folder: Path, address: str, *options: str) -> None:
    """Run the script that makes passwords and users."""
    subprocess.run([OPS / "make_secrets.sh", *options, folder, address], check=True, capture_output=True)


def redis_command(command: Sequence[str], stack: Composed) -> list[str]:
    """Give the command of the service `redis`, its paths and port those of this machine."""
    data = stack.folder / "redis"
    data.mkdir(exist_ok=True)
    places = {"/etc/vessel": str(OPS), "/run/secrets/users_acl": str(stack.secrets / "users.acl"), "/data": str(data)}
    found = [filled(part, {}) for part in command]
    for place, here in places.items():
        found = [part.replace(place, here) for part in found]
    return [*found, "--bind", "127.0.0.1", "--port", str(stack.ports["redis"])]
