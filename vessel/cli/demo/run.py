"""Run the demonstration."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

from vessel.cli.demo.panel import DEAD_MODEL, STORM_MODEL, STORM_WAIT_S, Panel
from vessel.cli.demo.report import Report, document, reroutes_of, saving_of, shares_of
from vessel.cli.demo.screen import Screen
from vessel.cli.demo.verify import Booked, read_usage, verify, verify_live
from vessel.cli.demo.work import INTERACTIVE, LIVE_INTERACTIVE, Batch, ask_meanwhile, look_back, read_batch
from vessel.cli.faults import FAILED, Interrupted
from vessel.cli.output import complain, emit
from vessel.cli.pack import Pack
from vessel.cli.preflight import key_source
from vessel.cli.stack import Stack, default_groups
from vessel.client import GroqClient
from vessel.embedded import EmbeddedServer
from vessel.errors import NoKey, Unreachable, VesselError
from vessel.keyspace.script import command
from vessel.registry import load_registry
from vessel.settings import load_settings

if TYPE_CHECKING:
    from vessel.registry import Availability, Registry
    from vessel.settings import Settings

SLOTS = 32
LOG_S = 15.0
LOOK_S = 0.05
_UPSTREAM = ("GROQ_", "OPENAI_")


@dataclass(slots=True)
class Stage:
    """What has been set up: the running stack and its settings."""

    settings: Settings
    registry: Registry
    stack: Stack
    availability: Availability


def demonstrate(*, live: bool, as_json: bool) -> int:
    """Set everything up in a temporary folder, run, check, and take everything down. Raises NoKey with `live`."""
    began = time.monotonic()
    if live:
        _require_key()
    signal.signal(signal.SIGTERM, _interrupt)
    screen = Screen(as_json=as_json)
    _open(screen, live=live)
    folder = Path(tempfile.mkdtemp(prefix="vessel-demo-"))
    keep = folder / "workers.log"
    try:
        with contextlib.ExitStack() as held:
            log = held.enter_context(keep.open("wb"))
            stage = _set_up(held, screen, folder, log, live=live)
            report = _perform(held, stage, screen, began, live=live)
    except Interrupted:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except VesselError:
        complain(f"The processes' own words: {keep}")
        raise
    _clean(folder, all_well=report.ok)
    if as_json:
        emit(document(report))
    else:
        screen.report(report)
    if not report.ok:
        complain(f"vessel: Something is wrong above. The workers' log: {keep}")
    return 0 if report.ok else FAILED


def _open(screen: Screen, *, live: bool) -> None:
    if live:
        screen.line("Vessel demo. Upstream is Groq itself: a few jobs, at most 0.05 USD.", "bold")
    else:
        screen.line("Vessel demo. Upstream is a simulator of Groq on this machine: no key, no cost.", "bold")
    screen.line()


def _require_key() -> None:
    try:
        key_source(load_settings())
    except NoKey:
        raise NoKey(
            "`vessel demo --live` calls Groq and needs a key, so nothing was started. Put it into GROQ_API_KEY or a "
            "file named by GROQ_API_KEY_FILE, or leave --live out to use the simulator."
        ) from None


def _environment(folder: Path, *, live: bool) -> dict[str, str]:
    """Give the demonstration its own settings, and the user's own only where Groq is called."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VESSEL_") and (live or not name.startswith(_UPSTREAM))
    }
    return kept | {"VESSEL_DATA_DIR": str(folder), "VESSEL_NAMESPACE": "demo", "VESSEL_LOG_FORMAT": "json"}


def _set_up(held: contextlib.ExitStack, screen: Screen, folder: Path, log: IO[bytes], *, live: bool) -> Stage:
    began = time.monotonic()
    server = held.enter_context(EmbeddedServer(folder))
    environment = _environment(folder, live=live)
    settings = load_settings(environment, redis_url=server.url)
    registry = load_registry(settings.registry)
    pack = held.enter_context(Pack())
    stack = Stack(pack, settings, server.url, folder, log, base=environment)
    held.callback(stack.stop)
    screen.fact("Redis", f"{server.kind}, embedded")
    if not live:
        stack.start_simulator()
        screen.fact("Upstream", f"simulator on {stack.groq_url}, the models of today")
    groups, token = default_groups(tuple(registry.tiers)), secrets.token_hex(4)
    stack.start_workers(groups, slots=SLOTS, token=token)
    stack.await_workers(groups, token, _nothing)
    availability = stack.await_models(_nothing)
    ready = time.monotonic() - began
    screen.fact("Workers", f"{len(groups)} processes for {len(registry.tiers)} tiers, ready in {ready:.1f} s")
    return Stage(settings, registry, stack, availability)


def _perform(held: contextlib.ExitStack, stage: Stage, screen: Screen, began: float, *, live: bool) -> Report:
    panel = None if live else held.enter_context(Panel(stage.stack.groq_url or ""))
    if panel is not None:
        panel.break_things()
        screen.fact("Broken", f"{DEAD_MODEL} is taken out of service: 404")
        screen.fact("", f"{STORM_MODEL} refuses calls for a while: 429, retry after {STORM_WAIT_S} s")
    client = held.enter_context(GroqClient(settings=stage.settings))
    batch = Batch(client, read_batch("live.jsonl" if live else "batch.jsonl"))
    screen.fact("Submitted", f"{len(batch.done)} jobs from a JSONL file over {len(batch.totals)} tiers")
    with screen.progress(batch.totals) as ended:
        batch.start(ended)
        if panel is not None:
            panel.await_storm()
        asked = ask_meanwhile(client, LIVE_INTERACTIVE if live else INTERACTIVE, live=live)
        if panel is not None:
            panel.calm()
        batch.finish()
    everything = [*batch.done, *asked]
    look_back(client, everything)
    booked = _booked(client, stage)
    if panel is None:
        checks = verify_live(batch.done, asked, booked)
    else:
        checks = verify(batch.done, asked, booked, panel.seen())
    return Report(
        live=live,
        seconds=time.monotonic() - began,
        batch=batch.done,
        asked=asked,
        shares=shares_of(everything),
        reroutes=reroutes_of(everything),
        waited=sum(any(name == "parked" for name, _ in one.steps) for one in everything),
        booked=booked,
        saving=saving_of(booked, stage.registry, stage.availability),
        checks=checks,
        usage_log=stage.settings.usage_log_path,
    )


def _booked(client: GroqClient, stage: Stage) -> Booked:
    """Read the usage log once it has caught up with the ledger. Raises Unreachable."""
    length = client.runner.run(command("XLEN", client.door.keys.ledger, parse=int))
    until = time.monotonic() + LOG_S
    path = stage.settings.usage_log_path
    while True:
        booked = read_usage(path) if path.exists() else None
        if booked is not None and booked.lines >= length:
            return booked
        if time.monotonic() > until:
            raise Unreachable(f"The usage log did not catch up with {length} ledger entries within {LOG_S:g} s.")
        time.sleep(LOOK_S)


def _clean(folder: Path, *, all_well: bool) -> None:
    """Leave the usage log, and the workers' own words where something is wrong."""
    for path in folder.iterdir():
        if path.name == "usage_log.jsonl" or (path.name == "workers.log" and not all_well):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise Interrupted


def _nothing() -> None:
    pass
