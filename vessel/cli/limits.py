"""What `vessel limits` prints: once, or every second until it is interrupted."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from vessel.cli.faults import error_type
from vessel.cli.gauges import Screen, draw
from vessel.cli.output import console, emit
from vessel.client import GroqClient, documents
from vessel.errors import Unreachable
from vessel.observe.moments import moment

if TYPE_CHECKING:
    from collections.abc import Iterator


LOOK_S = 1.0


def show_limits(*, watch: bool, as_json: bool) -> None:
    """Print the gates. Raises Unreachable when the first look fails; a later one is tried again."""
    with GroqClient() as client:
        first = look(client)
        if not watch:
            _write(first, as_json=as_json)
        elif as_json or not sys.stdout.isatty():
            for screen in _again(client, first):
                _write(screen, as_json=as_json, gap=True)
        else:
            _watch(client, first)


def look(client: GroqClient) -> Screen:
    """Read everything that is shown."""
    settings = client.door.settings
    return Screen(
        settings.org, settings.groq_plan, tuple(client.limits()), client.maintenance(), tuple(client.budgets()),
        tuple(client.refusals()),
    )  # fmt: skip


def _again(client: GroqClient, first: Screen) -> Iterator[Screen | Unreachable]:
    yield first
    while True:
        time.sleep(LOOK_S)
        try:
            found: Screen | Unreachable = look(client)
        except Unreachable as error:
            found = error
        yield found


def _write(found: Screen | Unreachable, *, as_json: bool, gap: bool = False) -> None:
    if isinstance(found, Unreachable):
        if as_json:
            emit({"error": {"message": found.message, "type": error_type(found), "code": found.code, "param": None}})
        return
    if as_json:
        emit(document(found))
    else:
        _print(found, gap=gap)


def _watch(client: GroqClient, first: Screen) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    to, shown = console(), first
    with Live(console=to, screen=True, auto_refresh=False) as live:
        for found in _again(client, first):
            notice: list[Text] = []
            if isinstance(found, Unreachable):
                notice = [Text("Redis does not answer; this is what was seen last. Trying again ...", "bold red")]
            else:
                shown = found
            live.update(Group(*notice, *draw(shown, to.width, unicode=_unicode())), refresh=True)


def _print(screen: Screen, *, gap: bool) -> None:
    to = console()
    for line in draw(screen, to.width, unicode=_unicode()):
        to.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    if gap:
        to.print()


def _unicode() -> bool:
    with contextlib.suppress(UnicodeError, LookupError):
        return bool("█".encode(sys.stdout.encoding or "ascii"))
    return False


def document(screen: Screen) -> dict[str, Any]:
    """Describe it in JSON: times in ISO 8601, spans in seconds."""
    first = next(iter(screen.gates), None)
    return {
        "at": moment(screen.info.now),
        "org": screen.org,
        "plan": screen.plan,
        "breaker": documents.breaker(first.view.provider) if first else None,
        "maintenance": documents.maintenance(screen.info)["maintenance"],
        "held": documents.maintenance(screen.info)["held"],
        "models": [documents.gate(gate) for gate in screen.gates],
        "refusals": [documents.refused(one) for one in screen.refusals],
    }
