"""Gates drawn as lines: a gauge for every limit, then what holds calls back and who waits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

from vessel.cli import times
from vessel.cli.maintenance import described, held_line
from vessel.cli.output import counted
from vessel.gate.refusals import GATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vessel.client import Budget, GateInfo, MaintenanceInfo
    from vessel.gate.refusals import Kind, Refused
    from vessel.gate.view import Breaker, Level

LANES = ("interactive", "normal", "batch")
FAILOVER = "the failover vessel"
ORDER = ("rpm", "tpm", "itpm", "otpm", "rpd", "tpd")
NARROW, BAR, SHORT_BAR = 90, 24, 12
LOW, MIDDLE = 0.15, 0.5
MOST_REFUSED = 8
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class Screen:
    """Everything that is shown at one moment."""

    org: str
    plan: str
    gates: tuple[GateInfo, ...]
    info: MaintenanceInfo
    budgets: tuple[Budget, ...] = ()
    refusals: tuple[Refused, ...] = ()


def draw(screen: Screen, width: int, *, unicode: bool = True) -> list[Text]:
    """Draw the gates in use first, each with its gauges; idle ones are a line each, and then what was refused."""
    busy = [gate for gate in screen.gates if _in_use(gate)]
    idle = [gate for gate in screen.gates if not _in_use(gate)]
    lines = [*_head(screen)]
    figures = [level for gate in busy for level in in_order(gate.view.limits)]
    widths = (
        _widest(f"{max(0.0, level.left):,.0f}" for level in figures),
        _widest(f"{level.capacity:,}" for level in figures),
    )
    for gate in busy:
        lines += [Text(), _title(gate)]
        lines += [_gauge(gate, level, widths, width, unicode=unicode) for level in in_order(gate.view.limits)]
        lines += [_fact(name, text, style) for name, text, style in _facts(gate)]
    if idle:
        lines.append(Text())
        name_width = _widest(gate.gate for gate in idle)
        lines += [_idle(gate, name_width) for gate in idle]
    return [*lines, *_refused(screen.refusals)]


def in_order(limits: Mapping[str, Level]) -> list[Level]:
    """Give limits by minute before those by day, requests before tokens."""
    return [limits[name] for name in ORDER if name in limits]


def _head(screen: Screen) -> Iterator[Text]:
    now = screen.info.now
    yield Text.assemble(
        ("Limits", "bold"), f" of organisation {screen.org}, plan {screen.plan}, at {times.second(now)}"
    )
    for one in screen.info.active:
        yield Text(described(one, now), "bold yellow")
    provider = next((gate.view.provider for gate in screen.gates), None)
    if provider is not None:
        for text, style in _breaker(provider, "Groq", now):
            yield Text(f"{text[0].upper()}{text[1:]}", style)
    for budget in screen.budgets:
        short = budget.short_of(1)
        if short is not None:
            whose = "of everybody" if budget.tenant is None else f"of tenant {budget.tenant}"
            until = times.until(short[1].ends, now)
            yield Text(f"The spend cap {whose} for this {short[0]} is used up, until {until}", "bold yellow")
    yield Text(held_line(screen.info))


def _in_use(gate: GateInfo) -> bool:
    view = gate.view
    quiet = not (view.running or view.fed or view.bookings or any(gate.waiting) or view.blocked_ms)
    full = all(level.full_in_s < 1 for level in view.limits.values())
    return not (quiet and full and view.model.state == "closed")


def _title(gate: GateInfo) -> Text:
    return Text.assemble((gate.gate, "bold"), f"  {gate.tier or FAILOVER}")


def _gauge(gate: GateInfo, level: Level, widths: tuple[int, int], width: int, *, unicode: bool) -> Text:
    part = min(1.0, max(0.0, level.left / level.capacity))
    style = "red" if part < LOW else "yellow" if part < MIDDLE else "green"
    again = gate.again_ms(level.name)
    bar = SHORT_BAR if width < NARROW else BAR
    line = Text(f"  {level.name.upper():<5}{max(0.0, level.left):>{widths[0]},.0f} of {level.capacity:<{widths[1]},}  ")
    line.append(_bar(part, bar, unicode=unicode), style)
    if again:
        line.append(f"  used up, again in {times.span(again / 1000)}", "bold red")
    elif level.full_in_s >= 1:
        line.append(f"  full in {times.span(level.full_in_s)}")
    else:
        line.append("  full")
    marks = ["learned"] if level.learned else []
    marks += [f"{level.margin:,.0f} kept clear"] if level.margin >= 1 else []
    if marks:
        line.append(f"  ({', '.join(marks)})", "dim")
    return line


def _bar(part: float, size: int, *, unicode: bool) -> str:
    if not unicode:
        full = round(part * size)
        return "#" * full + "." * (size - full)
    eighths = round(part * size * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(size, "·")


def _facts(gate: GateInfo) -> Iterator[tuple[str, str, str]]:
    view, now = gate.view, gate.view.now
    if not view.limits:
        yield "limits", "none are known yet; the first answers will tell" if not view.seen else "none are known", "dim"
    for text, style in _breaker(view.model, "calls to it", now):
        yield "breaker", text, style
    if view.blocked_ms:
        why = f" ({view.blocked_why.upper()})" if view.blocked_why and view.blocked_why != "retry-after" else ""
        who = "Groq" if gate.tier else "its endpoint"
        yield "blocked", f"{who} asked to wait{why}, {times.span(view.blocked_ms / 1000)} more", "bold yellow"
    calls = [f"{view.running:,} running"] if view.running else []
    calls += [f"{view.fed:,} about to ask"] if view.fed else []
    if view.bookings:
        soon = f", the next in {times.span((view.next_booking - now) / 1000)}" if view.next_booking > now else ""
        calls.append(f"{view.bookings:,} booked ({_lanes([booked[0] for booked in view.booked])}{soon})")
    if calls:
        yield "calls", ", ".join(calls), ""
    total = sum(gate.waiting)
    if total:
        longest = f", the longest for {times.span((now - gate.oldest) / 1000)}" if gate.oldest else ""
        yield "waiting", f"{counted(total, 'job')} ({_lanes(gate.waiting)}){_for(gate)}{longest}", ""


def _for(gate: GateInfo) -> str:
    """Say for what the next job of those that wait, if its limits are what holds it."""
    waits = [(gate.again_ms(name), name.upper()) for name in gate.view.limits]
    wait, name = max(waits, default=(0, ""))
    return f" for {name}" if wait else ""


def _breaker(breaker: Breaker, what: str, now: int) -> Iterator[tuple[str, str]]:
    since = f"since {times.clock(breaker.since, now)}" if breaker.since else ""
    if breaker.state == "open":
        look = f"in {times.span(breaker.wait_ms / 1000)}" if breaker.wait_ms else "with the next call"
        why = breaker.why.replace("_", " ") or "outage"
        yield f"{what} held back {since} ({why}); next look {look}", "bold red"
    elif breaker.state == "ramp":
        yield f"{what} used a little more each second after a recovery {since}", "yellow"


def _fact(name: str, text: str, style: str) -> Text:
    return Text.assemble(f"  {name:<9}", ("".join(c if c.isprintable() else " " for c in text), style))


def _idle(gate: GateInfo, width: int) -> Text:
    caps = ", ".join(f"{level.capacity:,} {level.name.upper()}" for level in in_order(gate.view.limits))
    only = "" if gate.tier else f" ({FAILOVER})"
    return Text(f"{gate.gate:<{width}}  full: {caps or 'no limits are known'}{only}", "dim")


def _refused(refusals: Sequence[Refused]) -> Iterator[Text]:
    if not refusals:
        return
    yield Text()
    yield Text("Refused in the last 24 hours", "bold")
    shown = refusals[:MOST_REFUSED]
    models, whys = (_widest(texts) for texts in ((one.kind.model for one in shown), (_why(one.kind) for one in shown)))
    for one in shown:
        part = "all" if one.this_hour == one.day else f"{one.this_hour:,} of them"
        now = f", {part} in this hour" if one.this_hour else ""
        yield Text(f"  {one.kind.model:<{models}}  {_why(one.kind):<{whys}}  {one.day:,}{now}")
    if len(refusals) > len(shown):
        yield Text(f"  and of {len(refusals) - len(shown)} more kinds; --json tells all", "dim")


def _why(kind: Kind) -> str:
    why = kind.why.upper() if kind.why in ORDER else kind.why.replace("_", " ")
    return f"{why}, before it was sent" if kind.by == GATE else f"{why}, by {kind.by.capitalize()}"


def _lanes(counts: Sequence[int]) -> str:
    return ", ".join(f"{count:,} {lane}" for lane, count in zip(LANES, counts, strict=True) if count)


def _widest(texts: Iterator[str]) -> int:
    return max(map(len, texts), default=1)
