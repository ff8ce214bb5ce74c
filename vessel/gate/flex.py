"""Groq's flex tier: ten times the limits of on_demand, in buckets of its own (Groq docs/flex-processing)."""

from __future__ import annotations

FLEX = "flex"
_FACTOR = 10


def flex_gate(gate: str, figures: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Name the gate that a model's flex calls pass, and its limits."""
    return f"{gate}#{FLEX}", tuple(_FACTOR * figure for figure in figures)
