"""The simulator's own table of models, in two worlds: October 2025 (`seed`) and today.

Figures as Groq's model pages gave them (groq-facts 2 and 4); nothing is shared with Vessel's registry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

World = Literal["seed", "today"]
Plan = Literal["developer", "free"]


@dataclass(frozen=True, slots=True)
class SimModel:
    """One model as the simulator serves it; prices in USD per million tokens, as text."""

    id: str
    owner: str
    speed_tps: int
    price_in: str
    price_out: str
    max_output: int
    context: int = 131072
    features: frozenset[str] = frozenset()
    developer: tuple[int | None, int | None, int | None, int | None] = (1000, 500_000, 250_000, None)
    free: tuple[int | None, int | None, int | None, int | None] = (30, 1000, 8000, 200_000)
    """Limits per plan: requests per minute and day, tokens per minute and day."""
    chat: bool = True
    reasoning_efforts: tuple[str, ...] = field(default=())


_TOOLS = frozenset({"tools", "json_object"})
_OSS = _TOOLS | {"json_schema", "strict", "reasoning", "builtin_tools"}
_EFFORTS = ("low", "medium", "high")


def _oss(name: str, tps: int, price: tuple[str, str]) -> SimModel:
    return SimModel(f"openai/{name}", "OpenAI", tps, *price, 65536, features=_OSS, reasoning_efforts=_EFFORTS)


_LIVE = (
    _oss("gpt-oss-120b", 500, ("0.15", "0.60")),
    _oss("gpt-oss-20b", 1000, ("0.075", "0.30")),
    SimModel("openai/gpt-oss-safeguard-20b", "OpenAI", 1000, "0.075", "0.30", 65536,
             features=frozenset({"json_object", "json_schema", "reasoning"}), developer=(1000, 500_000, 150_000, None),
             reasoning_efforts=_EFFORTS),
    SimModel("whisper-large-v3", "OpenAI", 189, "0", "0", 448, 448, chat=False),
    SimModel("whisper-large-v3-turbo", "OpenAI", 216, "0", "0", 448, 448, chat=False),
    SimModel("meta-llama/llama-prompt-guard-2-22m", "Meta", 1000, "0.03", "0.03", 512, 512,
             developer=(100, 500_000, 30_000, None)),
    SimModel("meta-llama/llama-prompt-guard-2-86m", "Meta", 1000, "0.04", "0.04", 512, 512,
             developer=(100, 500_000, 30_000, None)),
)  # fmt: skip
_TODAY = (
    SimModel("qwen/qwen3.8-27b", "Alibaba Cloud", 450, "0.80", "4.00", 16384,
             features=_TOOLS | {"reasoning", "vision"}, reasoning_efforts=("none", "default", *_EFFORTS)),
    SimModel("canopylabs/orpheus-v1-english", "Canopy Labs", 100, "0", "0", 50000, 4000, chat=False),
    SimModel("allam-2-7b", "SDAIA", 1000, "0", "0", 4096, 4096, features=frozenset({"json_object"})),
)  # fmt: skip
_COMPOUND = frozenset({"builtin_tools", "compound"})
_SEED = (
    SimModel("llama-3.1-8b-instant", "Meta", 560, "0.05", "0.08", 131072, features=_TOOLS),
    SimModel("llama-3.3-70b-versatile", "Meta", 280, "0.59", "0.79", 32768, features=_TOOLS,
             developer=(1000, 500_000, 300_000, None)),
    SimModel("groq/compound", "Groq", 450, "0.15", "0.60", 8192, features=_COMPOUND,
             developer=(200, 500_000, 200_000, None)),
    SimModel("groq/compound-mini", "Groq", 450, "0.15", "0.60", 8192, features=_COMPOUND,
             developer=(200, 500_000, 200_000, None)),
    SimModel("meta-llama/llama-4-maverick-17b-128e-instruct", "Meta", 600, "0.20", "0.60", 8192,
             features=_TOOLS | {"json_schema", "vision"}, developer=(1000, 500_000, 300_000, None)),
    SimModel("meta-llama/llama-4-scout-17b-16e-instruct", "Meta", 750, "0.11", "0.34", 8192,
             features=_TOOLS | {"json_schema", "vision"}, developer=(1000, 500_000, 300_000, None)),
    SimModel("meta-llama/llama-guard-4-12b", "Meta", 1200, "0.20", "0.20", 1024, features=frozenset({"vision"})),
    SimModel("moonshotai/kimi-k2-instruct-0905", "Moonshot AI", 200, "1.00", "3.00", 16384, 262144,
             features=_TOOLS | {"json_schema"}),
    SimModel("qwen/qwen3-32b", "Alibaba Cloud", 400, "0.29", "0.59", 40960, features=_TOOLS | {"reasoning"},
             reasoning_efforts=("none", "default")),
)  # fmt: skip

RETIRED = frozenset(m.id for m in _SEED)
"""Ids that today answer 404 `model_not_found`."""


def models_of(world: World) -> dict[str, SimModel]:
    """Return what a world serves, by id."""
    return {m.id: m for m in (*_LIVE, *(_SEED if world == "seed" else _TODAY))}


def listing(model: SimModel) -> dict[str, object]:
    """Return a model as `GET /models` shows it (groq-facts 1.5)."""
    names = {
        "tools": "tools",
        "json_object": "json_mode",
        "json_schema": "structured_outputs",
        "reasoning": "reasoning",
    }
    per_token = {"prompt": model.price_in, "completion": model.price_out}
    return {
        "id": model.id,
        "object": "model",
        "created": 1754408224,
        "owned_by": model.owner,
        "active": True,
        "context_window": model.context,
        "public_apps": None,
        "max_completion_tokens": model.max_output,
        "name": model.id.rpartition("/")[2],
        "input_modalities": ["text", "image"] if "vision" in model.features else ["text"],
        "output_modalities": ["text"],
        "supported_features": [shown for feature, shown in names.items() if feature in model.features],
        "pricing": {name: _per_token(price) for name, price in per_token.items()},
        "context_length": model.context,
        "max_output_length": model.max_output,
    }


def _per_token(per_million: str) -> str:
    whole, _, part = per_million.partition(".")
    digits = (whole + part).lstrip("0") or "0"
    return "0" if digits == "0" else f"0.{digits.zfill(6 + len(part))}".rstrip("0")
