"""What `vessel maintenance` does and prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.cli import times
from vessel.cli.output import counted, emit, say
from vessel.client import GroqClient, documents
from vessel.control import clear_maintenance, set_maintenance
from vessel.keyspace.server import clock

if TYPE_CHECKING:
    from vessel.client import MaintenanceInfo
    from vessel.gate.view import Maintenance


def begin(tier: str | None, until: str | None, reason: str, *, as_json: bool) -> None:
    """Begin or change a maintenance. Raises BadUse, InvalidRequest, Unreachable; then nothing was changed."""
    with GroqClient() as client:
        set_maintenance(client.door, tier, None, reason)  # a bad tier or reason is told before Redis is asked
        at = None if until is None else times.parse_until(until, client.runner.run(clock()))
        client.runner.run(set_maintenance(client.door, tier, at, reason))
        info = client.maintenance()
    if as_json:
        emit(documents.maintenance(info))
        return
    found = next((one for one in info.active if one.tier == tier), None)
    if found is not None:  # else it is over already
        say(described(found, info.now))
        which = "" if tier is None else f" --tier {tier}"
        say(f"New jobs are accepted and held; no attempt is used. `vessel maintenance off{which}` ends it.")
    _say_held(info)


def end(tier: str | None, *, as_json: bool) -> None:
    """End a maintenance, or all."""
    with GroqClient() as client:
        clear = clear_maintenance(client.door, tier)
        before = client.maintenance()
        client.runner.run(clear)
        info = client.maintenance()
    left = {one.tier for one in info.active}
    ended = [one for one in before.active if one.tier not in left]
    if as_json:
        emit({"ended": [documents.one_maintenance(one, info) for one in ended]} | documents.maintenance(info))
        return
    for one in ended:
        say(f"{_what(one)} is out of maintenance; jobs go on, no faster than the limits allow.")
    if not ended:
        say("Nothing was in maintenance." if tier is None else f"Tier {tier} was not in maintenance of its own.")
    for one in info.active:
        say(described(one, info.now))
    _say_held(info)


def show(*, as_json: bool) -> None:
    """Print what is in maintenance and what is held."""
    with GroqClient() as client:
        info = client.maintenance()
    if as_json:
        emit(documents.maintenance(info))
        return
    for one in info.active:
        say(described(one, info.now))
        if one.tier is not None:
            say(f"  {counted(info.by_tier.get(one.tier, 0), 'job')} of this tier held")
    if not info.active:
        say("Nothing is in maintenance.")
    _say_held(info)


def described(one: Maintenance, now_ms: int) -> str:
    """Say in a line what is in maintenance, since when, until when and why."""
    ends = f"until {times.until(one.until, now_ms)}" if one.until else "until it is ended by `vessel maintenance off`"
    why = f": {one.reason}" if one.reason else ""
    return f"{_what(one)} is in maintenance since {times.clock(one.since, now_ms)}, {ends}{why}"


def held_line(info: MaintenanceInfo) -> str:
    """Say how many jobs wait, and where."""
    held = info.held
    if not held.total:
        return "No jobs wait."
    places = [(held.backlog, "in the backlog"), (held.tickets, "with a ticket"), (held.parked, "parked for a time")]
    told = ", ".join(f"{count:,} {where}" for count, where in places if count)
    return f"{counted(held.total, 'job')} wait{'s' if held.total == 1 else ''}: {told}."


def _what(one: Maintenance) -> str:
    return "The whole vessel" if one.tier is None else f"Tier {one.tier}"


def _say_held(info: MaintenanceInfo) -> None:
    say(held_line(info))
    ends = [one.until for one in info.active if one.tier is None]
    if info.held.total and ends and ends[0]:
        say(f"They start from {times.until(ends[0], info.now)} on, no faster than the limits allow.")
