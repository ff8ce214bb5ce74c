"""Groq's prompt cache: automatic, by exact prefix, forgotten after two hours without use."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from vessel.simulator.answers import digest
from vessel.simulator.tokens import count_message

if TYPE_CHECKING:
    from collections.abc import Sequence

MIN_TOKENS = 1024
BLOCK_TOKENS = 128
IDLE_S = 7200.0
MOST_PREFIXES = 20_000


class PromptCache:
    """Which prefixes a model of an organisation has seen; kept per whole messages, counted in blocks of 128 tokens."""

    def __init__(self) -> None:
        """Start cold."""
        self._seen: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def look(self, org: str, model: str, messages: Sequence[dict[str, Any]], mark: str, now: float) -> int:
        """Return how many tokens of a prompt are cached, and remember the prompt."""
        sizes = [count_message(message) for message in messages]
        if sum(sizes) < MIN_TOKENS:
            return 0
        prefixes = [(sum(sizes), mark)]
        if len(messages) > 1 and sum(sizes[:-1]) >= MIN_TOKENS:
            prefixes.append((sum(sizes[:-1]), digest(messages[:-1])))
        cached = 0
        for tokens, prefix in prefixes:
            at = self._seen.get((org, model, prefix))
            if at is not None and now - at <= IDLE_S:
                cached = max(cached, (tokens - 1) // BLOCK_TOKENS * BLOCK_TOKENS)
        for _, prefix in prefixes:
            self._seen[org, model, prefix] = now
            self._seen.move_to_end((org, model, prefix))
        while len(self._seen) > MOST_PREFIXES:
            self._seen.popitem(last=False)
        return cached
