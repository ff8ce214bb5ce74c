"""Groq's limits per plan and model; the developer plan's requests per day are an assumption (published nowhere)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Plan = Literal["developer", "free"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests per minute and day, tokens per minute and day, output tokens per minute; None is unlimited."""

    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    tpd: int | None = None
    otpm: int | None = None

    def changed(self, changes: Mapping[str, Any]) -> Limits:
        """Return these limits with some replaced. Raises ValueError for names and figures that are none."""
        names = {field.name for field in fields(self)}
        if unknown := set(changes) - names:
            raise ValueError(f"unknown limits: {', '.join(sorted(unknown))}; known: {', '.join(sorted(names))}")
        for name, value in changes.items():
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} is a whole number of at least 1, or null for unlimited; got {value!r}")
        return replace(self, **changes)

    def times(self, factor: int) -> Limits:
        """Return every limit multiplied: the flex tier has ten times the on_demand limits."""
        figures = (self.rpm, self.rpd, self.tpm, self.tpd, self.otpm)
        return Limits(*(None if figure is None else figure * factor for figure in figures))


_PLENTY = 500_000
"""Requests per day on the developer plan, assumed: Groq's pages stopped showing the figure."""

_DEVELOPER = {
    "openai/gpt-oss-safeguard-20b": Limits(1000, _PLENTY, 150_000),
    "llama-3.3-70b-versatile": Limits(1000, _PLENTY, 300_000),
    "meta-llama/llama-4-maverick-17b-128e-instruct": Limits(1000, _PLENTY, 300_000),
    "meta-llama/llama-4-scout-17b-16e-instruct": Limits(1000, _PLENTY, 300_000),
    "meta-llama/llama-prompt-guard-2-22m": Limits(100, 50_000, 30_000),
    "meta-llama/llama-prompt-guard-2-86m": Limits(100, 50_000, 30_000),
    "groq/compound": Limits(200, 20_000, 200_000),
    "groq/compound-mini": Limits(200, 20_000, 200_000),
}
_FREE = {
    "meta-llama/llama-prompt-guard-2-22m": Limits(30, 14_400, 15_000, 500_000),
    "meta-llama/llama-prompt-guard-2-86m": Limits(30, 14_400, 15_000, 500_000),
    "llama-3.1-8b-instant": Limits(30, 14_400, 6_000, 500_000),
    "llama-3.3-70b-versatile": Limits(30, 1_000, 12_000, 100_000),
    "groq/compound": Limits(30, 250, 70_000),
    "groq/compound-mini": Limits(30, 250, 70_000),
    "meta-llama/llama-4-maverick-17b-128e-instruct": Limits(30, 1_000, 6_000, 500_000),
    "meta-llama/llama-4-scout-17b-16e-instruct": Limits(30, 1_000, 30_000, 500_000),
    "meta-llama/llama-guard-4-12b": Limits(30, 14_400, 15_000, 500_000),
    "moonshotai/kimi-k2-instruct-0905": Limits(60, 1_000, 10_000, 300_000),
    "qwen/qwen3-32b": Limits(60, 1_000, 6_000, 500_000),
}
_DEFAULT = {"developer": Limits(1000, _PLENTY, 250_000), "free": Limits(30, 1_000, 8_000, 200_000)}


def limits_of(plan: Plan, model: str) -> Limits:
    """Return the limits that an organisation on this plan has for a model."""
    table = _DEVELOPER if plan == "developer" else _FREE
    return table.get(model, _DEFAULT[plan])
