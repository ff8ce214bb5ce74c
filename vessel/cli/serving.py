"""A worker, and a simulator, as this process."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from vessel.cli.faults import BadUse
from vessel.cli.launch import child_environment, worker_command
from vessel.cli.output import emit
from vessel.cli.preflight import check_redis, check_spool, key_source, split_tiers
from vessel.errors import Unreachable
from vessel.registry import load_registry
from vessel.settings import load_settings
from vessel.simulator import SimulatorConfig, read_scenario, serve
from vessel.submit import redis_url

LOOK_S = 0.02


def become_worker(tiers: str | None, concurrency: int | None, *, as_json: bool) -> NoReturn:
    """Turn this process into Celery.

    Raises BadUse, NoKey, NoRedis, RedisUnreachable and SpoolUnwritable before that.
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    names = tuple(registry.tiers) if tiers is None else split_tiers(tiers, registry, option="--tiers")
    key_source(settings)
    url = redis_url(settings)
    check_redis(url)
    check_spool(settings)
    slots = concurrency or settings.concurrency
    command = worker_command(names, concurrency=slots, name=f"{names[0]}-{os.getpid()}")
    if as_json:
        emit({"event": "starting", "tiers": list(names), "concurrency": slots, "pid": os.getpid()})
    base = {**os.environ, "VESSEL_LOG_FORMAT": "json"} if as_json else None
    os.execve(command[0], command, dict(child_environment(url, base=base)))  # noqa: S606  our own command


def simulate(
    host: str, port: int, scenario: Path | None, fields: dict[str, Any], log: Path | None, named: str | None, *,
    as_json: bool,
) -> None:  # fmt: skip
    """Serve the simulator until SIGTERM or Ctrl-C.

    Raises BadUse for a scenario or a value that cannot be used, and where it is `named` and jobs would go elsewhere.
    """
    if named is not None and (there := load_settings().groq_base_url) != named.rstrip("/"):
        raise BadUse(
            f"GROQ_BASE_URL is {there}, so jobs would be sent there with the key that is set, and none to this "
            f"simulator. It was not started. Set GROQ_BASE_URL={named} for everything that calls Groq "
            "(with Compose: --env-file ops/compose/sim.env).",
            param="--url",
        )
    with tempfile.TemporaryDirectory(prefix="vessel-") as folder:
        url_file = Path(folder, "url") if as_json else None
        if url_file is not None:
            threading.Thread(target=_announce, args=(url_file,), daemon=True).start()
        try:
            config = SimulatorConfig(**(read_scenario(scenario) if scenario else {}) | fields)
            serve(config, host, port, url_file, log)
        except ValueError as error:
            raise BadUse(f"{error}. Nothing was started.") from None
        except OSError as error:
            if error.filename is not None:
                raise BadUse(f"{error.filename} cannot be used: {error.strerror}. Nothing was started.") from None
            advice = "Choose another --port; 0 takes a free one."
            raise Unreachable(f"The simulator cannot listen on {host}:{port}: {error.strerror}. {advice}") from None


def _announce(url_file: Path) -> None:
    """Tell the address once it is known."""
    while url_file.parent.exists():
        if url_file.exists():
            emit({"event": "listening", "url": url_file.read_text("utf-8"), "pid": os.getpid()})
            return
        time.sleep(LOOK_S)
