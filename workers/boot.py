"""What happens around the tasks: the executor opens before the first message, drains on SIGTERM, closes last."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from celery import bootsteps, signals
from celery.worker import state as worker_state
from kombu.utils.imports import symbol_by_name

from vessel.dispatch.queues import tiers_of
from vessel.errors import Unreachable, VesselError
from vessel.observe import systemd
from vessel.observe.exporter import export
from vessel.observe.logs import configure_logs, get_logger
from vessel.observe.tracing import begin
from workers.pool import AsyncioPool
from workers.runs import REQUEST

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

    from vessel.settings import Settings

log = get_logger(__name__)

EXECUTOR = "vessel.execute:Executor"
"""The class that serves tickets; tests of the pool put one here that needs no upstream."""
RETRY_S = 1.0
PULSE_S = 1.0
LOOK_S = 0.2


class Executing(Protocol):
    """What a worker process needs of its executor."""

    async def run(self, tickets: Sequence[tuple[str, int]], queue: str) -> list[dict[str, object]]:
        """Claim and run the jobs of one message."""

    def drain(self) -> None:
        """Start nothing more."""

    async def close(self) -> None:
        """End the background work."""


class Process:
    """The one executor of this worker process, and what it is opened with."""

    def __init__(self) -> None:
        """Start with nothing open."""
        self.settings: Settings | None = None
        self.redis_url = ""
        self.pool: AsyncioPool | None = None
        self.executor: Executing | None = None
        self.asked_to_stop = False
        self.serves = ""
        self.hub = systemd.Pulse()

    def drain(self) -> None:
        """Let running calls end and start nothing more; may be called twice and from a signal handler."""
        if self.pool is not None:
            self.pool.drain(self.executor.drain if self.executor else _nothing)


process = Process()


def _nothing() -> None:
    pass


async def run(tickets: Sequence[tuple[str, int]]) -> list[dict[str, object]]:
    """Run the jobs of the current message. The boot step has opened the executor before any message comes in."""
    if process.executor is None:
        raise RuntimeError("the executor is not open")
    return await process.executor.run(tickets, REQUEST.get()["delivery_info"]["routing_key"])


async def _open(tiers: Sequence[str], worker: str, slots: int) -> Executing:
    opener = symbol_by_name(EXECUTOR).open
    told = False
    while True:
        try:
            opened: Executing = await opener(
                process.settings, redis_url=process.redis_url, tiers=tiers, worker=worker, slots=slots
            )
        except Unreachable as error:
            if not told:
                log.warning(
                    "worker.waits", reason=str(error), then=f"tries again every {RETRY_S:g} s and takes no work"
                )
                systemd.status("waits for Redis and takes no work")
                told = True
            await asyncio.sleep(RETRY_S)
        else:
            return opened


class ExecutorStep(bootsteps.StartStopStep):
    """Open the executor on the pool's loop before Celery's consumer connects, so that both find Redis there."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Open, however long Redis is away; a shutdown asked for meanwhile is obeyed."""
        pool = parent.pool
        if not isinstance(pool, AsyncioPool):
            _refuse("Vessel's tasks need Vessel's pool; nothing was started. Leave out -P (--pool).", 2)
        tiers = tiers_of(parent.app.amqp.queues.consume_from)
        process.serves = f"{', '.join(tiers)}, {pool.limit} calls at a time"
        pool.submit(systemd.beat(process.hub))
        opening = pool.submit(_open(tiers, f"{parent.hostname}:{os.getpid()}", pool.limit))
        while process.executor is None:
            worker_state.maybe_shutdown()
            try:
                process.executor = opening.result(LOOK_S)
            except NotYet:
                continue
            except VesselError as error:
                _refuse(str(error), error.exit_code)
        process.pool = pool
        measured = getattr(process.executor, "measured", None)
        if process.settings is not None and measured is not None:
            export(process.settings, measured.instruments.registry)
        pool.at_stop(process.executor.close)

    def close(self, parent: Any) -> None:
        """Drain, also where no signal came: `celery control shutdown` sends none."""
        del parent
        process.drain()


class PulseStep(bootsteps.StartStopStep):
    """Watch Celery's hub for systemd while it is connected; a Redis that is away stops the hub with good reason."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Have the hub say every second that it turns; its timers end with the connection."""
        process.hub.touch()
        parent.timer.call_repeatedly(PULSE_S, process.hub.touch)

    def stop(self, parent: Any) -> None:
        """Look away until the next connect."""
        del parent
        process.hub.rest()
        if not process.asked_to_stop:
            systemd.status("has lost Redis; calls under way go on, and it connects again")

    terminate = stop


def _refuse(text: str, exit_code: int) -> NoReturn:
    log.critical("worker.refused", reason=text)
    raise SystemExit(exit_code)


def _lean(sender: Any, **_: object) -> None:
    # Both cost a second at every connect and bring nothing to workers that share their state in Redis.
    sender.options.update(without_mingle=True, without_gossip=True)


def _on_shutting_down(how: str, **_: object) -> None:
    if how == "Warm" and process.asked_to_stop:
        os.kill(os.getpid(), signal.SIGQUIT)
        return
    process.asked_to_stop = True
    systemd.stopping("drains: calls under way end, nothing new starts")
    process.drain()


def _on_ready(**_: object) -> None:
    systemd.ready(f"serves {process.serves}")


def _set_up_logs(loglevel: int | None = None, **_: object) -> None:
    """Log as VESSEL_LOG_* say. Celery's -l counts only where it asks for more: WARNING is its default."""
    settings = process.settings
    level = logging.getLevelNamesMapping()[settings.log_level if settings else "INFO"]
    if loglevel is not None and loglevel < logging.WARNING:
        level = min(level, loglevel)
    configure_logs(settings.log_format if settings else None, logging.getLevelName(level))
    if level > logging.DEBUG:  # a line for every message received costs more than it tells
        logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)


def install(app: Celery, settings: Settings, redis_url: str) -> None:
    """Hang the boot step and the signals onto an app, once, and keep what the executor is opened with."""
    process.settings, process.redis_url = settings, redis_url
    begin(settings, "vessel-worker")
    app.steps["worker"].add(ExecutorStep)
    app.steps["consumer"].add(PulseStep)
    signals.setup_logging.connect(_set_up_logs, weak=False, dispatch_uid="vessel.logs")
    signals.worker_init.connect(_lean, weak=False, dispatch_uid="vessel.lean")
    signals.worker_ready.connect(_on_ready, weak=False, dispatch_uid="vessel.ready")
    signals.worker_shutting_down.connect(_on_shutting_down, weak=False, dispatch_uid="vessel.drain")
