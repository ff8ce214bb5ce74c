"""`vessel doctor`: everything that is not as it should be, why it matters, and the command that mends it."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

from vessel import __version__
from vessel.cli.check_cures import Cures, UnitCures
from vessel.cli.doctor_findings import Finding, Severity, error, installed, of_disk, of_faces, of_key, of_versions
from vessel.cli.doctor_jobs import of_jobs
from vessel.cli.doctor_redis import of_redis
from vessel.cli.faults import BAD_USE, DONE, FAILED
from vessel.cli.installed import of as installed_at
from vessel.cli.output import emit, say
from vessel.cli.simulated import running_simulator
from vessel.client import GroqClient
from vessel.errors import RedisRefused, SettingsError, Unreachable
from vessel.keyspace.connect import SyncRunner, connect
from vessel.keyspace.release import release
from vessel.keyspace.server import info
from vessel.registry import load_registry
from vessel.settings import load_settings
from vessel.submit import redis_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vessel.settings import Settings

ORDER = (Severity.ERROR, Severity.WARNING, Severity.NOTE)
MARKS = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}


def examine(*, as_json: bool) -> int:
    """Look at everything and print what was found, the worst first.

    Returns 1 where something is an error, 2 where the settings hold faults (then nothing else was looked at), else 0.
    """
    facts = {"vessel": __version__, "release": release(), **installed()}
    try:
        settings = load_settings()
        load_registry(settings.registry)
    except SettingsError as faults:
        found = [
            error(faults.code, fault, "nothing starts with it", "correct it; docs/settings.md lists every setting")
            for fault in faults.faults
        ]
        _tell(found, facts, as_json=as_json)
        return BAD_USE
    found = sorted(_findings(settings, facts), key=lambda finding: ORDER.index(finding.severity))
    _tell(found, facts, as_json=as_json)
    return FAILED if any(finding.severity is Severity.ERROR for finding in found) else DONE


def _findings(settings: Settings, facts: dict[str, str]) -> Iterator[Finding]:
    installation = installed_at(settings.data_dir)
    cures = UnitCures(installation) if installation else Cures()
    yield from of_versions(facts, cures)
    yield from of_key(settings, running_simulator(settings.data_dir), cures)
    yield from of_disk(settings, cures, user=installation.user if installation else "")
    yield from of_faces(settings, cures)
    try:
        url = redis_url(settings)
        with contextlib.closing(connect(url)) as client:
            runner = SyncRunner(client)
            with contextlib.suppress(Unreachable):
                facts["server"] = runner.run(info()).product
            yield from of_redis(runner, url, cures)
        with GroqClient(settings=settings) as looking:
            yield from of_jobs(looking, cures)
    except Unreachable as fault:
        mend = cures.redis_user() if isinstance(fault, RedisRefused) else cures.redis()
        yield error(fault.code, fault.message, "nothing is accepted and nothing served without it", mend)


def _tell(found: list[Finding], facts: dict[str, str], *, as_json: bool) -> None:
    counts = Counter(finding.severity for finding in found)
    if as_json:
        emit(
            {
                "ok": not counts[Severity.ERROR],
                "errors": counts[Severity.ERROR],
                "warnings": counts[Severity.WARNING],
                "notes": counts[Severity.NOTE],
                "facts": facts,
                "findings": [
                    {"severity": one.severity, "code": one.code, "what": one.what, "why": one.why, "cure": one.cure}
                    for one in found
                ],
            }
        )
        return
    say("  ".join(f"{name} {value}" if name != "server" else value for name, value in facts.items()))
    for one in found:
        say(f"{MARKS[one.severity]} {one.severity:<8} {one.what.rstrip('.')}.")
        say(f"  {'':<8} {one.why[0].upper()}{one.why[1:]}.")
        say(f"  {'':<8} → {one.cure}")
    told = [
        f"{counts[severity]} {severity}{'' if counts[severity] == 1 else 's'}" for severity in ORDER if counts[severity]
    ]
    say(", ".join(told) + "." if told else "Nothing was found that is not as it should be.")
