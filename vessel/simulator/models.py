"""The simulator's own table of models, in two worlds: October 2025 (`seed`) and today (November 2026).

Figures as Groq's model pages gave them; nothing is shared with Vessel's registry.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, Literal

World = Literal["seed", "today"]


class Feature(StrEnum):
    """What a model can do beyond plain text."""

    TOOLS = "tools"
    PARALLEL = "parallel_tools"
    JSON = "json_object"
    SCHEMA = "json_schema"
    STRICT = "strict"
    VISION = "vision"
    CACHE = "prompt_cache"
    BUILTIN = "builtin_tools"
    COMPOUND = "compound"


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
    features: frozenset[Feature] = frozenset()
    efforts: tuple[str, ...] = ()
    price_cached: str | None = None
    chat: bool = True
    created: int = 1754408224


_EFFORTS = ("low", "medium", "high")
_CHAT = frozenset({Feature.TOOLS, Feature.PARALLEL, Feature.JSON})
_LLAMA4 = _CHAT | {Feature.SCHEMA, Feature.VISION}
_OSS = frozenset({Feature.TOOLS, Feature.JSON, Feature.SCHEMA, Feature.STRICT, Feature.CACHE, Feature.BUILTIN})
_SAFEGUARD = frozenset({Feature.TOOLS, Feature.JSON, Feature.SCHEMA, Feature.CACHE, Feature.BUILTIN})
_COMPOUND = frozenset({Feature.COMPOUND, Feature.JSON})


def _audio(name: str, owner: str, speed: int, output: int, context: int) -> SimModel:
    return SimModel(name, owner, speed, "0", "0", output, context, chat=False)


_BOTH = (
    SimModel("openai/gpt-oss-120b", "OpenAI", 500, "0.15", "0.60", 65536,
             features=_OSS, efforts=_EFFORTS, price_cached="0.075"),
    SimModel("openai/gpt-oss-20b", "OpenAI", 1000, "0.075", "0.30", 65536,
             features=_OSS, efforts=_EFFORTS, price_cached="0.0375"),
    SimModel("openai/gpt-oss-safeguard-20b", "OpenAI", 1000, "0.075", "0.30", 65536,
             features=_SAFEGUARD, efforts=_EFFORTS, price_cached="0.0375", created=1761708789),
    _audio("whisper-large-v3", "OpenAI", 189, 448, 448),
    _audio("whisper-large-v3-turbo", "OpenAI", 216, 448, 448),
    SimModel("meta-llama/llama-prompt-guard-2-22m", "Meta", 1000, "0.03", "0.03", 512, 512, created=1748632101),
    SimModel("meta-llama/llama-prompt-guard-2-86m", "Meta", 1000, "0.04", "0.04", 512, 512, created=1748632165),
)  # fmt: skip
_TODAY = (
    SimModel("qwen/qwen3.8-27b", "Alibaba Cloud", 450, "0.80", "4.00", 16384,
             features=_CHAT | {Feature.VISION}, efforts=("none", "default", *_EFFORTS), created=1788000000),
    _audio("canopylabs/orpheus-v1-english", "Canopy Labs", 100, 50000, 4000),
    _audio("canopylabs/orpheus-arabic-saudi", "Canopy Labs", 100, 50000, 4000),
    SimModel("allam-2-7b", "SDAIA", 1000, "0", "0", 4096, 4096,
             features=frozenset({Feature.JSON}), created=1737672203),
)  # fmt: skip
_SEED = (
    SimModel("llama-3.1-8b-instant", "Meta", 560, "0.05", "0.08", 131072, features=_CHAT, created=1693721698),
    SimModel("llama-3.3-70b-versatile", "Meta", 280, "0.59", "0.79", 32768, features=_CHAT, created=1733447754),
    SimModel("groq/compound", "Groq", 450, "0.15", "0.60", 8192, features=_COMPOUND, created=1756949530),
    SimModel("groq/compound-mini", "Groq", 450, "0.15", "0.60", 8192, features=_COMPOUND, created=1756949707),
    SimModel("meta-llama/llama-4-maverick-17b-128e-instruct", "Meta", 600, "0.20", "0.60", 8192,
             features=_LLAMA4, created=1743877158),
    SimModel("meta-llama/llama-4-scout-17b-16e-instruct", "Meta", 750, "0.11", "0.34", 8192,
             features=_LLAMA4, created=1743874824),
    SimModel("meta-llama/llama-guard-4-12b", "Meta", 1200, "0.20", "0.20", 1024,
             features=frozenset({Feature.VISION}), created=1746743847),
    SimModel("moonshotai/kimi-k2-instruct-0905", "Moonshot AI", 200, "1.00", "3.00", 16384, 262144,
             features=_CHAT | {Feature.SCHEMA, Feature.CACHE}, price_cached="0.50", created=1757046093),
    SimModel("qwen/qwen3-32b", "Alibaba Cloud", 400, "0.29", "0.59", 40960,
             features=_CHAT, efforts=("none", "default"), created=1748396646),
    _audio("playai-tts", "PlayAI", 100, 8192, 8192),
    _audio("playai-tts-arabic", "PlayAI", 100, 8192, 8192),
)  # fmt: skip

RETIRED = frozenset(model.id for model in _SEED)
"""Ids that today answer 404 `model_not_found`."""


def models_of(world: World) -> dict[str, SimModel]:
    """Return what a world serves, by id."""
    return {model.id: model for model in (*_BOTH, *(_SEED if world == "seed" else _TODAY))}


def listing(model: SimModel) -> dict[str, Any]:
    """Return a model as `GET /models` shows it; prices are decimal strings per token."""
    shown = {Feature.TOOLS: "tools", Feature.JSON: "json_mode", Feature.SCHEMA: "structured_outputs"}
    features = [name for feature, name in shown.items() if feature in model.features]
    pricing = {"prompt": model.price_in, "completion": model.price_out, "image": "0", "request": "0"}
    if model.price_cached is not None:
        pricing["input_cache_read"] = model.price_cached
    return {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": model.owner,
        "active": True,
        "context_window": model.context,
        "public_apps": None,
        "max_completion_tokens": model.max_output,
        "name": model.id.rpartition("/")[2],
        "input_modalities": ["text", "image"] if Feature.VISION in model.features else ["text"],
        "output_modalities": ["text"],
        "supported_features": features + (["reasoning"] if model.efforts else []),
        "pricing": {name: _per_token(price) for name, price in pricing.items()},
        "context_length": model.context,
        "max_output_length": model.max_output,
    }


def _per_token(per_million: str) -> str:
    value = (Decimal(per_million) / 1_000_000).normalize()
    return f"{value:f}"
