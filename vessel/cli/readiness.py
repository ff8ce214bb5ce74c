"""The seed's readiness message (its stage 6.2), with numbers that are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.cli.output import emit, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vessel.cli.stack import Stack
    from vessel.registry import Availability, Model, Registry


def announce(
    stack: Stack, registry: Registry, availability: Availability, groups: Sequence[Sequence[str]], *, as_json: bool
) -> None:
    """Say that every tier is served, and how to go on."""
    served = [model for model in registry.models.values() if availability.serves(model)]
    fastest = max((m for m in served if m.routable and m.speed_tps), key=_speed, default=None)
    if as_json:
        emit(_document(stack, registry, availability, groups, fastest))
        return
    counts = registry.counts(availability)
    kinds = [
        f"{number} {name}"
        for number, name in (
            (counts.production, "production"),
            (counts.system, "systems"),
            (counts.preview, "preview"),
            (counts.enterprise, "enterprise"),
        )
        if number
    ]
    tiers = sum(map(len, groups))
    source = "" if availability.listed is not None else "; Groq has not listed its models yet"
    say("\n🔥 GROQ HOT VESSEL ONLINE")
    say("   Status: Ready")
    say(f"   Models: {counts.total} available ({', '.join(kinds)}{source})")
    if fastest is not None:
        say(f"   Max Speed: {fastest.speed_tps} tokens/sec ({fastest.id})")
    say(f"   Workers: {len(groups)} processes for {tiers} of {len(registry.tiers)} tiers")
    say(f"   Usage log: {stack.settings.usage_log_path}")
    say('   Try: vessel query "What is a lease in Redis?"   Stop: Ctrl-C\n')


def _speed(model: Model) -> int:
    return model.speed_tps or 0


def _document(
    stack: Stack,
    registry: Registry,
    availability: Availability,
    groups: Sequence[Sequence[str]],
    fastest: Model | None,
) -> dict[str, Any]:
    counts = registry.counts(availability)
    return {
        "event": "ready",
        "models": {
            "total": counts.total,
            "production": counts.production,
            "systems": counts.system,
            "preview": counts.preview,
            "enterprise": counts.enterprise,
            "listed": availability.listed is not None,
        },
        "max_speed_tps": fastest.speed_tps if fastest else None,
        "fastest_model": fastest.id if fastest else None,
        "groups": [list(group) for group in groups],
        "usage_log": str(stack.settings.usage_log_path),
        "upstream": stack.groq_url or stack.settings.groq_base_url,
    }
