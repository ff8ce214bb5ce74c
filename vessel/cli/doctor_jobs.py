"""What `vessel doctor` looks at in the queues: leases, tiers, backlog, breakers, maintenance, releases, usage log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vessel.cli import times
from vessel.cli.backup_restore import RESTORER
from vessel.cli.check_steps import patiently
from vessel.cli.doctor_findings import error, note, warning
from vessel.dispatch.queues import queues_of, tiers_of
from vessel.keyspace.release import release
from vessel.keyspace.script import command, timed, word, words
from vessel.keyspace.server import clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from vessel.cli.check_cures import Cures
    from vessel.cli.doctor_findings import Finding
    from vessel.client import GateInfo, GroqClient, MaintenanceInfo
    from vessel.keyspace.script import Call
    from vessel.settings import Settings
    from vessel.submit import Door

STUCK_LEASES = 3
"""A lease that has been over for so many lease lengths should have been rescued long ago."""
UNFED_MS = 120_000
FORGOTTEN_MS = 24 * 3600 * 1000
LOG_BEHIND_MS = 60_000
TAIL_BYTES = 1 << 16
SHOWN = 3
KEY_REASONS = frozenset({"unauthorized", "forbidden", "spend_limit"})


def of_jobs(client: GroqClient, cures: Cures) -> Iterator[Finding]:
    """Look at everything. Raises RedisUnreachable."""
    door, info, gates = client.door, client.maintenance(), client.limits()
    alive = patiently(lambda: client.runner.run(door.alive()), lambda one: all(one.values()))
    yield from _of_leases(client, info.now, cures)
    yield from _of_sweeps(client, cures)
    yield from _of_tiers(alive, info, cures)
    yield from _of_tickets(client, alive, info, cures)
    yield from _of_breakers(gates, client.door.settings, cures)
    yield from _of_backlog(gates, alive, info, cures)
    yield from _of_maintenance(info, cures)
    yield from _of_releases(client, cures)
    yield from _of_usage_log(client, cures)


def _of_leases(client: GroqClient, now: int, cures: Cures) -> Iterator[Finding]:
    late = now - int(client.door.settings.lease * 1000) * STUCK_LEASES
    ids = client.runner.run(_below(client.door.keys.leases, late))
    if ids:
        yield error(
            "leases_stuck",
            f"The leases of {len(ids)} running jobs are over, and nobody has taken them back ({_some(ids)})",
            "their workers are gone and the jobs stand still",
            cures.scheduler(),
        )


def _of_sweeps(client: GroqClient, cures: Cures) -> Iterator[Finding]:
    last = client.runner.run(command("HGET", client.door.keys.sweep, "last", parse=word))
    owner = client.runner.run(command("GET", client.door.keys.role("sweeper"), parse=word))
    if owner == RESTORER:
        yield error(
            "sweeper_missing",
            "Nobody sweeps while a restore is under way",
            "until it has ended no job runs, and one that was stopped half-way does not end by itself",
            f"let it end, or run it again: `{cures.program} restore FILE`",
        )
    elif not owner and not last:
        yield error(
            "sweeper_missing",
            "Nobody has ever swept in this namespace",
            "batches are not fed, parked jobs not promoted and lost ones not rescued",
            f"{cures.scheduler()}; check VESSEL_NAMESPACE",
        )
    elif not owner and client.runner.run(clock()) - int(last) > 10 * 1000:
        yield error(
            "sweeper_missing",
            "Nobody sweeps",
            "batches are not fed, parked jobs not promoted and lost ones not rescued",
            cures.scheduler(),
        )


def _of_tiers(alive: Mapping[str, int], info: MaintenanceInfo, cures: Cures) -> Iterator[Finding]:
    for tier, count in alive.items():
        waiting = info.by_tier.get(tier, 0)
        if count:
            continue
        tell = error if waiting else warning
        jobs = f"; {waiting} job{'s wait' if waiting > 1 else ' waits'} for one" if waiting else ""
        yield tell(
            "tier_dead",
            f"No worker is alive for tier {tier}{jobs}",
            "jobs of the tier wait, or fail where they ask for that",
            cures.workers([tier]),
        )


def _of_tickets(client: GroqClient, alive: Mapping[str, int], info: MaintenanceInfo, cures: Cures) -> Iterator[Finding]:
    """Look at tickets that nobody takes although somebody is there."""
    door = client.door
    queues = queues_of(door.registry.tiers)
    first = client.runner.run_all([_first(door.keys.tickets(queue)) for queue in queues])
    for queue, (job_id, at) in zip(queues, first, strict=True):
        (tier,) = tiers_of([queue])
        if job_id and alive.get(tier) and info.now - at > UNFED_MS and not _held(info, tier):
            yield warning(
                "tickets_wait",
                f"Queue {queue} has a ticket that nobody has taken for {times.span((info.now - at) / 1000)} ({job_id})",
                "workers are busy, hang, or serve other queues",
                f"`{cures.program} tiers --plan` says whether slots are too few; {cures.workers([tier])}",
            )


def _of_breakers(gates: Sequence[GateInfo], settings: Settings, cures: Cures) -> Iterator[Finding]:
    provider = gates[0].view.provider if gates else None
    if provider is not None and provider.state == "open":
        mend = (
            cures.new_key(settings.groq_api_key_file)
            if provider.why in KEY_REASONS
            else f"`{cures.program} limits` shows when calls go again, `{cures.program} check` what Groq answers"
        )
        tell = error if provider.why in KEY_REASONS else warning
        yield tell(
            "breaker_open",
            f"All calls to Groq are held back ({provider.why.replace('_', ' ') or 'outage'})",
            "jobs wait without using an attempt until a look every 5 s succeeds",
            mend,
        )
    for gate in gates:
        if gate.view.model.state == "open":
            yield warning(
                "breaker_open",
                f"Calls to {gate.gate} are held back ({gate.view.model.why or 'outage'})",
                "its jobs step down their chain or wait",
                f"`{cures.program} limits` shows when calls go again",
            )


def _of_backlog(
    gates: Sequence[GateInfo], alive: Mapping[str, int], info: MaintenanceInfo, cures: Cures
) -> Iterator[Finding]:
    """Look at jobs that wait without a ticket although their gate has room."""
    for gate in gates:
        view = gate.view
        free = not (view.running or view.fed or view.bookings or view.closed_ms()[0] or _held(info, gate.tier))
        room = all(gate.again_ms(name) == 0 for name in view.limits)
        if not (sum(gate.waiting) and free and room and alive.get(gate.tier) and gate.oldest):
            continue
        if info.now - gate.oldest > UNFED_MS:
            yield error(
                "backlog_unfed",
                f"{sum(gate.waiting)} jobs wait for {gate.gate} although it has room, the "
                f"longest for {times.span((info.now - gate.oldest) / 1000)}",
                "the feeder does not reach them, or a spend cap holds them",
                f"`{cures.program} budget show`; `{cures.program} job ID` says why one waits; {cures.scheduler()}",
            )


def _of_maintenance(info: MaintenanceInfo, cures: Cures) -> Iterator[Finding]:
    for one in info.active:
        which, off = (f"Tier {one.tier}", f" --tier {one.tier}") if one.tier else ("Everything", "")
        age = times.span((info.now - one.since) / 1000)
        if one.until == 0 and info.now - one.since > FORGOTTEN_MS:
            yield warning(
                "maintenance_forgotten",
                f"{which} is in maintenance since {age}, without an end",
                f"{info.held.total} jobs are held",
                f"`{cures.program} maintenance off{off}`",
            )
        else:
            yield note(
                "maintenance_on",
                f"{which} is in maintenance since {age}",
                f"{info.held.total} jobs are held",
                f"`{cures.program} maintenance status`; `{cures.program} maintenance off{off}` ends it",
            )


def _of_releases(client: GroqClient, cures: Cures) -> Iterator[Finding]:
    door = client.door
    workers = client.runner.run(command("HKEYS", door.keys.slots, parse=lambda raw: sorted(word(name) for name in raw)))
    told = client.runner.run_all([command("GET", door.keys.release(name), parse=word) for name in workers])
    by_release: dict[str, list[str]] = {}
    for worker, found in zip(workers, told, strict=True):
        by_release.setdefault(found or "a release that does not tell", []).append(worker)
    if len(by_release) > 1:
        names = "; ".join(f"{found}: {_some(those)}" for found, those in sorted(by_release.items()))
        yield warning(
            "release_skew",
            f"Workers of {len(by_release)} releases run side by side ({names})",
            "that is made for a deployment, not for days: a mended fault is mended in some of them",
            cures.deploy(),
        )
    elif by_release and release() not in by_release:
        yield note(
            "release_differs",
            f"All workers are of {next(iter(by_release))}, this command is of {release()}",
            "a command may show or do what they do not know yet",
            f"{cures.deploy()}; or use the command of their installation",
        )


def _of_usage_log(client: GroqClient, cures: Cures) -> Iterator[Finding]:
    """Tell of entries that no log holds yet, and of this machine's file where another machine writes its own."""
    door, path = client.door, client.door.settings.usage_log_path
    writer = client.runner.run(command("GET", door.keys.role("usage_log"), parse=word))
    written = client.runner.run(command("HGET", door.keys.ledger_log, "written", parse=word))
    waiting = client.runner.run(_first_after(door, written))
    behind = client.runner.run(clock()) - int(waiting.partition("-")[0]) if waiting else 0
    if behind > LOG_BEHIND_MS and not writer:
        yield warning(
            "usage_log_unwritten",
            "Nobody writes the usage log",
            "the ledger in Redis is whole, the file falls behind it",
            cures.scheduler(),
        )
    elif behind > LOG_BEHIND_MS:
        yield warning(
            "usage_log_behind",
            f"The usage log is {times.span(behind / 1000)} behind the ledger",
            f"{writer} is to write it and cannot; the ledger in Redis is whole",
            "look for usage_log.not_written in its log; make room on its disk, or end what else holds the file",
        )
    elif (mine := _logged(path)) and _entry(mine) < _entry(written):
        yield note(
            "usage_log_old",
            f"{path} ends before the ledger does",
            f"another machine writes it now ({writer or 'it is gone'})",
            f"read it there, or rebuild it here: `{cures.program} usage --rebuild-log rebuilt_{path.name}`",
        )


def _logged(path: Path) -> str:
    """Return the entry that the file's last whole line names; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = [line for line in file.read().splitlines() if b'"entry"' in line]
        return str(json.loads(lines[-1])["entry"]) if lines else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _entry(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("-") if part.isdecimal())


def _held(info: MaintenanceInfo, tier: str) -> bool:
    return any(one.tier in {None, tier} for one in info.active)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _below(name: str, score: int) -> Call[list[str]]:
    return command("ZRANGE", name, "-inf", score, "BYSCORE", parse=words)


def _first(name: str) -> Call[tuple[str, int]]:
    return command("ZRANGE", name, 0, 0, "WITHSCORES", parse=lambda raw: next(iter(timed(raw)), ("", 0)))


def _first_after(door: Door, written: str) -> Call[str]:
    start = f"({written}" if written else "-"
    return command("XRANGE", door.keys.ledger, start, "+", "COUNT", 1, parse=lambda raw: word(raw[0][0]) if raw else "")
