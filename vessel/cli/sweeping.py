"""A process that only sweeps."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress

from vessel.cli.faults import INTERRUPTED
from vessel.cli.output import complain, emit, note
from vessel.cli.preflight import check_redis, check_spool, key_source
from vessel.errors import NoKey, Unreachable
from vessel.execute.persist import Spool
from vessel.keyspace.connect import AsyncRunner, connect_async
from vessel.keyspace.release import release
from vessel.keyspace.script import command, word
from vessel.maintain import Sweeper
from vessel.observe import systemd
from vessel.observe.exporter import export
from vessel.observe.logs import configure_logs
from vessel.observe.metrics import Instruments, Source
from vessel.settings import Settings, load_settings
from vessel.submit import Door, redis_url
from vessel.upstream.groq import GroqUpstream

ALIVE_EVERY_S, ALIVE_MS = 1.0, 10_000
"""A container's health check looks for this sign of life (ops/health.py)."""


def sweep(*, as_json: bool) -> int:
    """Sweep until a signal.

    Raises NoRedis, RedisUnreachable and SpoolUnwritable at the start; later outages are waited out.
    """
    settings = load_settings()
    url = redis_url(settings)
    check_redis(url)
    check_spool(settings)
    configure_logs(settings.log_format, settings.log_level)
    if as_json:
        emit({"event": "started", "pid": os.getpid()})
    else:
        note("Sweeping until SIGTERM or Ctrl-C.")
    asked = asyncio.run(_sweep(settings, url))
    if as_json:
        emit({"event": "stopped", "signal": asked.name})
    return INTERRUPTED if asked is signal.SIGINT else 0


async def _sweep(settings: Settings, url: str) -> signal.Signals:
    loop = asyncio.get_running_loop()
    asked: asyncio.Future[signal.Signals] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _settle, asked, number)
    upstream = _upstream(settings)
    runner = AsyncRunner(connect_async(url))
    sweeper = Sweeper(
        Door(settings), runner, worker=f"scheduler@{socket.gethostname()}:{os.getpid()}",
        spool=Spool(settings.data_dir / "spool", url), upstream=upstream,
    )  # fmt: skip
    _export(settings, sweeper)
    sweeping = asyncio.ensure_future(sweeper.run())
    beating = systemd.beat(lambda: not sweeping.done())
    work = [sweeping, *map(asyncio.ensure_future, (beating, _tell_alive(sweeper, sweeping)))]
    systemd.ready("sweeps")
    try:
        return await asked
    finally:
        systemd.stopping("ends")
        for one in work:
            one.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        with suppress(Unreachable):
            await sweeper.leave()
        if upstream is not None:
            await upstream.close()
        await runner.close()


async def _tell_alive(sweeper: Sweeper, sweeping: asyncio.Future[None]) -> None:
    """Tell Redis that this machine's scheduler lives, for as long as it sweeps; nobody else would miss it."""
    name = sweeper.keys.release(f"scheduler@{socket.gethostname()}")
    while not sweeping.done():
        with suppress(Unreachable):
            await sweeper.runner.run(command("SET", name, release(), "PX", ALIVE_MS, parse=word))
        await asyncio.sleep(ALIVE_EVERY_S)


def _export(settings: Settings, sweeper: Sweeper) -> None:
    told = Instruments(Source.WORKER, only={"vessel_spool_files", "vessel_usage_log_behind_seconds"})
    told.gauge("vessel_spool_files").set_function(lambda: sum(1 for _ in sweeper.spool.waiting()))
    told.gauge("vessel_usage_log_behind_seconds").set_function(sweeper.usage_log_behind_s)
    export(settings, told.registry)


def _settle(asked: asyncio.Future[signal.Signals], number: signal.Signals) -> None:
    if not asked.done():
        asked.set_result(number)


def _upstream(settings: Settings) -> GroqUpstream | None:
    """Return what lists the models; None without a key, as the other sweeps need none."""
    try:
        return GroqUpstream(key_source(settings), settings.groq_base_url)
    except NoKey:
        complain("vessel: No Groq key is set, so the list of models is not refreshed here; everything else is swept.")
        return None
