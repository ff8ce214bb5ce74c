"""Queue names: one queue per tier and lane, under kombu's global key prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vessel.wire import Priority

if TYPE_CHECKING:
    from collections.abc import Iterable

BATCH_SUFFIX = ".batch"


def key_prefix(namespace: str) -> str:
    """Give kombu's `global_keyprefix`: the Redis list of queue `power` is then `<namespace>:power`."""
    return f"{namespace}:"


def queue_for(tier: str, priority: Priority) -> str:
    """Name the queue a job of this tier and priority waits in."""
    return tier + BATCH_SUFFIX if priority is Priority.BATCH else tier


def queues_of(tiers: Iterable[str]) -> tuple[str, ...]:
    """Name both lanes of every tier."""
    return tuple(name for tier in tiers for name in (tier, tier + BATCH_SUFFIX))


def tiers_of(queues: Iterable[str]) -> tuple[str, ...]:
    """Name the tiers behind queues, each once, in order."""
    return tuple(dict.fromkeys(queue.removesuffix(BATCH_SUFFIX) for queue in queues))
