"""`vessel check`: the seed's boot verification (its stage 6), each step shown, then the readiness message."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from vessel.cli import installed
from vessel.cli.check_seen import Plan
from vessel.cli.check_services import NAMES
from vessel.cli.check_steps import look
from vessel.cli.faults import DONE, BadUse
from vessel.cli.output import emit, note, say
from vessel.cli.preflight import split_tiers
from vessel.observe import systemd
from vessel.observe.logs import configure_logs, get_logger
from vessel.observe.moments import moment
from vessel.registry import load_registry, suggest
from vessel.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vessel.cli.check_seen import Seen, Step
    from vessel.registry import Model, Registry

AGAIN_S = 1.0
_EXPECTABLE = (*NAMES, "none", "units")
TEST_CALLS = 3
"""How often a boot tries the test call, which may cost something, before it says that it fails."""

log = get_logger(__name__)


def check(
    *, boot: bool, deadline_s: float, tiers: str | None, expect: str | None, inference: bool, timeout_s: float,
    codes: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Take the steps once, or with `boot` until they are well or the deadline is over; returns the exit code.

    Raises SettingsError and BadUse. The exit code is 0 when ready, else that of the first step that failed: 3 where
    something needed is unreachable or missing, 1 otherwise.
    """
    settings = load_settings()
    registry = load_registry(settings.registry)
    chosen = split_tiers(tiers, registry, option="--tiers") if tiers is not None else tuple(registry.tiers)
    expected, units = _expected(expect, boot=boot)
    plan = Plan(settings, chosen, expected, inference, timeout_s, units, not boot)
    if not as_json:
        say("🔥 Groq Hot Vessel Boot Verification")
    tell = _quiet if as_json else _print
    if boot:
        configure_logs(settings.log_format, settings.log_level)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # what was asked is what the steps tell
        seen = _until_ready(plan, deadline_s, tell)
    else:
        seen = look(plan, tell)
    if as_json:
        emit(_document(seen, registry))
    elif seen.failed:
        say(f"\n❌ GROQ HOT VESSEL NOT READY: {', '.join(step.code or step.name for step in seen.failed)}")
    else:
        say("\n" + "\n".join(message(seen, registry)))
    if codes is not None:
        codes.write_text("".join(f"{step.code or step.name}\n" for step in seen.failed), encoding="utf-8")
    if boot:
        _conclude_boot(seen, registry)
    return seen.failed[0].exit_code if seen.failed else DONE


def message(seen: Seen, registry: Registry) -> list[str]:
    """Write the seed's readiness message (its 6.2); every number in it was counted."""
    counts, fastest = registry.counts(seen.availability), _fastest(seen, registry)
    shelves = ((counts.production, "prod"), (counts.system, "systems"), (counts.preview, "preview"),
               (counts.enterprise, "enterprise"))  # fmt: skip
    kinds = ", ".join(f"{number} {name}" for number, name in shelves if number or name != "enterprise")
    lines = ["🔥 GROQ HOT VESSEL ONLINE", "   Status: Ready", f"   Models: {counts.total} available ({kinds})"]
    if fastest is not None:
        lines.append(f"   Max Speed: {fastest.speed_tps} tokens/sec ({fastest.id})")
    lines.append(f"   Integration: {_integration(seen)}")
    if "api" in seen.faces:
        lines.append(f"   Health: {seen.faces['api']}")
    lines.append(f"   Trinity Access: Enabled{'' if seen.result else ' (no test call was made)'}")
    if seen.simulator:
        lines.append(f"   Upstream: the simulator on {seen.simulator}; nothing was sent to Groq")
    return lines


def _until_ready(plan: Plan, deadline_s: float, tell: Callable[[Step], None]) -> Seen:
    """Look again until all is well, nothing that failed can come right by itself, or the time is over.

    The test call, which costs something, is made once all else is well, and by the last look in any case.
    """
    until, calls, before, hopeless = time.monotonic() + deadline_s, 0, "", False
    while True:
        last = hopeless or time.monotonic() >= until
        shown: list[Step] = []
        seen = look(plan, shown.append, last=last)
        calls += any(step.name == "inference" and step.ok is not None for step in shown)
        if not seen.failed or last or calls >= TEST_CALLS:
            for step in shown:
                tell(step)
            return seen
        hopeless = any(not step.waits for step in seen.failed)
        left = max(0.0, until - time.monotonic())
        first = seen.failed[0]
        text = f"Waiting for {first.title}: {first.text}"
        _status(f"{text} ({left:.0f} s left)")
        if text != before and not hopeless:
            note(text)
        before = text
        time.sleep(0.0 if hopeless else min(AGAIN_S, left))


def _conclude_boot(seen: Seen, registry: Registry) -> None:
    """Tell systemd and the log how it ended; to somebody at a terminal the steps have told it."""
    if seen.failed:
        first = seen.failed[0]
        event, facts = "vessel.not_ready", {
            "failed": [step.code or step.name for step in seen.failed], "first": first.text, "cure": first.cure,
        }  # fmt: skip
        line = f"Not ready: {first.title}: {first.text}"
    else:
        line = "; ".join(part.strip() for part in message(seen, registry)[1:])
        event, facts = "vessel.ready", {"readiness": line}
    if not sys.stderr.isatty():
        (log.error if seen.failed else log.info)(event, **facts)
    _status(line)


def _status(text: str) -> None:
    """Set the unit's status line, where systemd listens."""
    # As ASCII, because the notifier writes Latin-1 and systemd reads UTF-8.
    systemd.tell("STATUS=" + text.replace("\n", " ").encode("ascii", "replace").decode())


def _expected(expect: str | None, *, boot: bool) -> tuple[frozenset[str], bool]:
    """Read which faces have to answer, and whether systemd's units have to be active.

    Raises BadUse. `units` are all faces that have one; at a boot that is so without the option where there are units.
    """
    asked = None if expect is None else [name.strip() for name in expect.split(",") if name.strip()]
    for name in asked or ():
        if name not in _EXPECTABLE:
            hint = suggest(name, _EXPECTABLE) or f" There are: {', '.join(_EXPECTABLE)}."
            raise BadUse(f"--expect: there is no service {name!r}.{hint} Nothing was checked.", param="--expect")
    wanted = "units" in asked if asked is not None else boot
    installation = installed.find() if wanted else None
    if installation is None:
        if asked is not None and "units" in asked:
            raise BadUse(
                "--expect units: systemd has no units of Vessel here (ops/install.sh makes them). Nothing was checked.",
                param="--expect",
            )
        return frozenset(["api"] if asked is None else asked) - {"none"}, False
    # Where systemd does not tell, what does not answer is missing.
    faces = {name for name in NAMES if installation.fault or installation.get(f"vessel-{name}")}
    return frozenset(asked or ()).union(faces) - {"none", "units"}, True


def _fastest(seen: Seen, registry: Registry) -> Model | None:
    if seen.availability is None:
        return None
    served = (model for model in registry.routable() if model.speed_tps and seen.availability.serves(model))
    return max(served, key=lambda model: model.speed_tps or 0, default=None)


def _integration(seen: Seen) -> str:
    names = {"mcp": "MCP", "api": "REST API"}
    return " + ".join(shown for name, shown in names.items() if name in seen.faces) or "queue only"


def _print(step: Step) -> None:
    mark = {True: "✓", False: "✗", None: "·"}[step.ok]
    say(f"{mark} {step.title:<13} {step.text}")
    if step.ok is False and step.cure:
        say(f"  {'':<13} → {step.cure}")


def _quiet(_step: Step) -> None:
    pass


def _document(seen: Seen, registry: Registry) -> dict[str, Any]:
    counts, fastest = registry.counts(seen.availability), _fastest(seen, registry)
    known = seen.availability is not None
    return {
        "ready": not seen.failed,
        "status": "not_ready" if seen.failed else "ready",
        "failed": [step.code for step in seen.failed],
        "at": moment(time.time_ns() // 1_000_000),
        "steps": [
            {"name": step.name, "ok": step.ok, "code": step.code, "message": step.text, "cure": step.cure or None}
            for step in seen.steps
        ],
        "models": {"total": counts.total, "production": counts.production, "systems": counts.system,
                   "preview": counts.preview, "enterprise": counts.enterprise} if known else None,
        "max_speed_tps": fastest.speed_tps if fastest else None,
        "fastest_model": fastest.id if fastest else None,
        "integration": sorted(seen.faces),
        "health": seen.faces.get("api"),
        "simulator": seen.simulator,
        "test_call": None if seen.result is None else {
            "model": seen.result.model, "job_id": seen.result.job_id, "cost_usd": seen.result.cost_usd},
    }  # fmt: skip
