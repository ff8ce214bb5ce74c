"""The command lines of the processes that make up a vessel."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING

from vessel.dispatch.queues import queues_of
from vessel.settings.redis_urls import redis_url_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SIMULATOR_KEY = "sim-local"
"""What children send to the simulator instead of a key."""

# Imported before Celery looks for it, because Celery looks in the current directory first, and `workers` is a name
# that other projects have, too.
_CELERY = "import workers.app; from celery.__main__ import main; main()"
_ROOT = "ignore:You're running the worker with superuser"
"""Celery warns root because of pickled messages; here only JSON is read."""
_FOREIGN = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
"""Celery lets these go before the app's own broker."""
_FLOWERS = "FLOWER_"
"""Variables of Flower's own, which would open what Vessel's configuration closes."""
_KEYS = ("GROQ_API_KEY", "GROQ_API_KEY_FILE")


def worker_command(tiers: Sequence[str], *, concurrency: int, name: str) -> list[str]:
    """Run Celery on the queues of tiers; `name` is the node's, before the @."""
    return [
        sys.executable, "-P", "-W", _ROOT, "-c", _CELERY, "--quiet", "-A", "workers.app", "worker",
        "-Q", ",".join(queues_of(tiers)), "-c", str(concurrency), "-n", f"{name}@%h",
        "--without-mingle", "--without-gossip",
    ]  # fmt: skip


def scheduler_command() -> list[str]:
    """Run the sweeps alone."""
    return [sys.executable, "-P", "-m", "vessel.cli.main", "scheduler"]


def api_command() -> list[str]:
    """Serve the REST API."""
    return [sys.executable, "-P", "-m", "vessel.cli.main", "api"]


def mcp_command() -> list[str]:
    """Serve MCP over HTTP."""
    return [sys.executable, "-P", "-m", "vessel.cli.main", "mcp", "--http"]


def flower_command(*, control: bool = False) -> list[str]:
    """Run Flower with the configuration that is shipped; address and login come from VESSEL_FLOWER_*."""
    config = importlib.util.find_spec("workers.flowerconfig")
    if config is None or config.origin is None:
        raise RuntimeError("workers.flowerconfig is not installed")
    return [
        sys.executable, "-P", "-W", _ROOT, "-c", _CELERY, "--quiet", "-A", "workers.app", "flower",
        f"--conf={config.origin}", f"--read-only={not control}",
    ]  # fmt: skip


def simulator_command(url_file: Path, *, port: int = 0, world: str = "today", latency_scale: float = 1.0) -> list[str]:
    """Run the simulator; its address is written to a file once it listens."""
    return [
        sys.executable, "-P", "-m", "vessel.simulator", "--port", str(port), "--url-file", str(url_file),
        "--world", world, "--latency-scale", f"{latency_scale:g}",
    ]  # fmt: skip


def without_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave the upstream's keys out, for a process that calls no upstream."""
    return {name: value for name, value in environment.items() if name not in (*_KEYS, "OPENAI_API_KEY")}


def child_environment(
    redis_url: str, *, base: Mapping[str, str] | None = None, groq_url: str | None = None
) -> Mapping[str, str]:
    """Build a child's environment; with `groq_url` it talks to a simulator and never sees a real key."""
    given = os.environ if base is None else base
    found = {name: value for name, value in given.items() if name not in _FOREIGN and not name.startswith(_FLOWERS)}
    if groq_url is not None:
        found = {name: value for name, value in found.items() if name not in _KEYS}
        found |= {"GROQ_BASE_URL": groq_url, "GROQ_API_KEY": SIMULATOR_KEY}
    if (named := found.get("VESSEL_REDIS_URL", "")).startswith("file:") and redis_url_named(named) == redis_url:
        return found  # what the file holds stays out of environments
    return found | {"VESSEL_REDIS_URL": redis_url}
