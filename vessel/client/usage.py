"""Reading the ledger: whole hours and days from the sums that are kept with it, the rest of a span entry by entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vessel.client.steps import Emit, Flow, Run, Steps, run
from vessel.keyspace.script import Call, command, pairs, word
from vessel.keyspace.server import clock
from vessel.usage.log import PAGE, at_ms, entries
from vessel.usage.report import Report, saving
from vessel.usage.sums import DAY_MS, HOUR_MS, HOURS, OVER, Figure, Sum, figures_of, read_sums, summed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vessel.submit import Door
    from vessel.usage.log import Entry

MOST_DAYS = 3653
"""Ten years: a longer span begins later, since no sums are kept for longer."""

AT_ONCE = 4 * PAGE
TAG = "tag"
FINE = frozenset({TAG, "hour"})
"""What days' sums do not tell: they are read hour by hour, as long as entries are kept."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `since` up to and without `until`, epoch milliseconds."""

    since: int
    until: int

    @property
    def hours(self) -> range:
        """Return the whole hours within it, counted from 1970; empty where there is none."""
        return range(-(-self.since // HOUR_MS), max(-(-self.since // HOUR_MS), self.until // HOUR_MS))

    @property
    def edges(self) -> tuple[Span, ...]:
        """Return what is before and behind its whole hours."""
        inner = self.hours
        if not inner:
            return (self,)
        found = (Span(self.since, inner.start * HOUR_MS), Span(inner.stop * HOUR_MS, self.until))
        return tuple(edge for edge in found if edge.since < edge.until)


EVERYTHING = Span(0, 1 << 62)


BACKWARDS = "it lies behind the end of the span. Name an earlier time, in UTC."


def backwards(since: int | None, until: int | None, now: int) -> bool:
    """Tell whether a span, in epoch ms, begins after its end, which is now unless given."""
    return since is not None and since > (now if until is None else until)


def report(
    door: Door, *, since: int | None = None, until: int | None = None, by: str = "model", tenant: str | None = None
) -> Steps[Report]:
    """Sum up the calls of a span, by default the last day, of one tenant or of all.

    Where entries have been trimmed a span is widened to whole days (by tag: begins later); the report says which span
    it is about. One that ends before it begins is empty.
    """
    marks = command("HMGET", door.keys.ledger_log, "trimmed", "first_day", parse=lambda raw: [int(n or 0) for n in raw])
    now, availability, (trimmed, first_day) = yield Run([clock(), door.availability(), marks])
    span = _kept(_span(now, since, until), now, trimmed, by)
    figures = _of(tenant, (yield from sums_of(door, span, by, first_day)))
    if any(figure.what == OVER for figure in figures):
        figures = _of(tenant, (yield from counted(door, [span], by)))
    whole = _of(tenant, (yield from sums_of(door, span, "", first_day))) if by == TAG else figures
    total = Sum()
    for figure in whole:  # by tag, a call with several is in several groups
        total.add(figure.what, figure.amount)
    end = span.until if span.until <= now else until or now
    return Report(span.since, end, by, summed(figures, by), total, saving(door.registry, availability, total))


def _of(tenant: str | None, figures: Iterable[Figure]) -> list[Figure]:
    return [figure for figure in figures if tenant is None or figure.tenant == tenant]


def _span(now: int, since: int | None, until: int | None) -> Span:
    """Read what was asked for; one that goes on past this moment takes the hour that is under way as a whole."""
    end = (now // HOUR_MS + 1) * HOUR_MS if until is None or until > now else until
    start = (now if until is None else min(now, until)) - DAY_MS if since is None else since
    end = max(start, end)
    return Span(max(0, start, end - MOST_DAYS * DAY_MS), end)


def _kept(span: Span, now: int, trimmed: int, by: str) -> Span:
    """Fit a span to what is kept: of trimmed entries the sums of whole days, and nothing by tag or hour."""
    if by in FINE:
        return Span(min(span.until, max(span.since, -(-trimmed // HOUR_MS) * HOUR_MS)), span.until)
    since = span.since // DAY_MS * DAY_MS if span.since < trimmed else span.since
    ends_early = span.until <= now and span.until < trimmed
    return Span(since, -(-span.until // DAY_MS) * DAY_MS if ends_early else span.until)


def sums_of(door: Door, span: Span, by: str, first_day: int) -> Steps[list[Figure]]:
    """Read the figures of a span. A sweep that moves sums meanwhile is noticed, and they are read again."""
    inner, tags = span.hours, by == TAG
    days = [] if by in FINE else list(range(-(-inner.start // HOURS), inner.stop // HOURS))
    parts = sorted(set(range(inner.start // HOURS, -(-inner.stop // HOURS))) - set(days)) if inner else []
    # No day before the first one, and none at all before sums were moved the first time, has a hash.
    days, parts = ([day for day in some if first_day and day >= first_day] for some in (days, parts))
    kind = "tags" if tags else "hours"
    hashes = [_sums(door, "tags" if tags else "sums"), *(_sums(door, kind, day) for day in parts)]
    hashes += [_sums(door, "day", day) for day in days]
    rolls: Call[Any] = command("HGET", door.keys.ledger_log, "rolls", parse=word)
    before, after = "unread", ""
    found: Any = []
    while before != after:
        before = yield from run(rolls)
        found = yield Run(hashes)
        after = yield from run(rolls)
    by_hour, by_day = found[: 1 + len(parts)], found[1 + len(parts) :]
    figures = [f for flat in by_hour for f in read_sums(flat, tags=tags) if f.hour in inner]
    for day, flat in zip(days, by_day, strict=True):
        figures += read_sums(flat, tags=False, day=day)
    return figures + (yield from counted(door, span.edges, by))


def _sums(door: Door, part: str, day: int | None = None) -> Call[dict[str, bytes]]:
    return command("HGETALL", door.keys.sums(part, day), parse=pairs)


def counted(door: Door, spans: Iterable[Span], by: str) -> Steps[list[Figure]]:
    """Read the figures of spans entry by entry."""
    found: list[Figure] = []
    for span in spans:
        after: str | None = _before(span)
        while after is not None:
            page, after = yield from _page(door, span, after)
            found += (figure for entry in page for figure in figures_of(entry, tags=by == TAG))
    return found


def ledger(door: Door, span: Span) -> Flow[Entry]:
    """Yield the entries of a span, oldest first, as far as Redis still holds them."""
    after: str | None = _before(span)
    while after is not None:
        page, after = yield from _page(door, span, after)
        for entry in page:
            yield Emit(entry)


def _before(span: Span) -> str:
    return f"{span.since - 1}-18446744073709551615" if span.since > 0 else ""


def _page(door: Door, span: Span, after: str) -> Steps[tuple[list[Entry], str | None]]:
    """Read the next entries of a span, and behind which one to go on; None where that was all."""
    found: list[Entry] = yield from run(entries(door.keys.ledger, after, AT_ONCE))
    inside = [entry for entry in found if at_ms(entry[0]) < span.until]
    done = len(found) < AT_ONCE or len(inside) < len(found)
    return inside, None if done else found[-1][0]
