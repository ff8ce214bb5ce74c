"""The shipped registry holds the seed's figures, today's models, and what takes the place of the retired ones."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from vessel.errors import UnknownModel
from vessel.registry import Availability, Feature, Kind, Limits, PricedPer, Status, load_registry, resolve, suggest

SEED_DAY, TODAY = date(2025, 10, 31), date(2026, 11, 23)
SEED_MODELS = {
    "llama-3.1-8b-instant": ("0.05", "0.08", 560),
    "llama-3.3-70b-versatile": ("0.59", "0.79", 280),
    "openai/gpt-oss-120b": ("0.15", "0.60", 500),
    "openai/gpt-oss-20b": ("0.075", "0.30", 1000),
}
SEED_LIMITS = {
    "llama-3.1-8b-instant": (250_000, 1000),
    "llama-3.3-70b-versatile": (300_000, 1000),
    "openai/gpt-oss-120b": (250_000, 1000),
    "openai/gpt-oss-20b": (250_000, 1000),
    "groq/compound": (200_000, 200),
}
SEED_TIERS = {
    "ultra_fast": "llama-3.1-8b-instant",
    "balanced": "llama-3.3-70b-versatile",
    "power": "openai/gpt-oss-120b",
    "speed_demon": "openai/gpt-oss-20b",
    "compound": "groq/compound",
    "compound_mini": "groq/compound-mini",
}
SEED_CHAINS = {
    "openai/gpt-oss-120b": ("llama-3.3-70b-versatile", "llama-3.1-8b-instant"),
    "llama-3.3-70b-versatile": ("llama-3.1-8b-instant", "openai/gpt-oss-20b"),
    "llama-3.1-8b-instant": ("openai/gpt-oss-20b",),
    "groq/compound": ("groq/compound-mini", "llama-3.3-70b-versatile"),
}
COMPLETING_THE_SEED = {
    "meta-llama/llama-guard-4-12b",
    "whisper-large-v3",
    "whisper-large-v3-turbo",
    "moonshotai/kimi-k2-instruct-0905",
    "qwen/qwen3-32b",
}
SEED_WORLD = frozenset(
    {*SEED_TIERS.values(), "meta-llama/llama-4-maverick-17b-128e-instruct"}
    | {"meta-llama/llama-4-scout-17b-16e-instruct", *COMPLETING_THE_SEED}
)
SUCCESSORS = {
    "llama-3.1-8b-instant": "openai/gpt-oss-20b",
    "llama-3.3-70b-versatile": "openai/gpt-oss-120b",
    "groq/compound": "openai/gpt-oss-120b",
    "groq/compound-mini": "openai/gpt-oss-20b",
    "meta-llama/llama-4-maverick-17b-128e-instruct": "openai/gpt-oss-120b",
    "meta-llama/llama-4-scout-17b-16e-instruct": "openai/gpt-oss-120b",
}
REGISTRY = load_registry()


def served(
    *, listed: frozenset[str] | None = None, gone: frozenset[str] = frozenset(), today: date = TODAY
) -> Availability:
    """Build an availability."""
    return Availability(listed, gone, today)


@pytest.mark.parametrize(("model_id", "figures"), SEED_MODELS.items())
def test_the_seeds_figures_stand(model_id: str, figures: tuple[str, str, int]) -> None:
    """Price, speed and window of the seed's four models are the seed's."""
    model = REGISTRY.model(model_id)

    assert (str(model.prices.input), f"{model.prices.output:.2f}", model.speed_tps) == figures
    assert model.context_window == 131072


@pytest.mark.parametrize(("model_id", "figures"), SEED_LIMITS.items())
def test_the_seeds_limits_stand(model_id: str, figures: tuple[int, int]) -> None:
    """The developer limits are those of the seed's RATE_LIMITS."""
    limits = REGISTRY.model(model_id).limits["developer"]

    assert (limits.tpm, limits.rpm) == figures


def test_the_seeds_tiers_and_chains_stand() -> None:
    """Six tiers with the seed's models, and the seed's four fallback chains."""
    assert {tier.name: tier.model for tier in REGISTRY.tiers.values()} == SEED_TIERS
    assert {model: REGISTRY.chain(model) for model in SEED_CHAINS} == SEED_CHAINS


def test_every_routable_model_has_a_carrier_and_a_chain() -> None:
    """Each model that chats names the tier whose queue carries it, and what is tried after it."""
    for model in REGISTRY.routable():
        assert model.tier in REGISTRY.tiers
        assert model.fallbacks


def test_the_seeds_thirteen_are_counted() -> None:
    """In the seed's world the shelves hold 7 production models, 2 systems and 4 previews: 13."""
    counts = REGISTRY.counts(served(listed=SEED_WORLD, today=SEED_DAY))

    assert (counts.production, counts.system, counts.preview, counts.total) == (7, 2, 4, 13)


def test_todays_counts_follow_the_dates() -> None:
    """Without a list the dates decide: today 4 production models are left and no system."""
    counts = REGISTRY.counts(served())

    assert (counts.production, counts.system, counts.enterprise) == (4, 0, 0)


@pytest.mark.parametrize(("model_id", "successor"), SUCCESSORS.items())
def test_a_retired_model_yields_to_its_successor(model_id: str, successor: str) -> None:
    """By date, by list and by a 404 alike, a retired model is served by its successor."""
    live = frozenset({"openai/gpt-oss-120b", "openai/gpt-oss-20b"})

    assert resolve(REGISTRY, model_id, served()) == successor
    assert resolve(REGISTRY, model_id, served(listed=live)) == successor
    assert resolve(REGISTRY, model_id, served(listed=live | {model_id}, gone=frozenset({model_id}))) == successor


@pytest.mark.parametrize("model_id", SUCCESSORS)
def test_a_listed_model_serves_itself(model_id: str) -> None:
    """A key that may call a retired model gets it: the list beats the registry's dates."""
    assert resolve(REGISTRY, model_id, served(listed=SEED_WORLD)) == model_id


def test_a_model_serves_until_its_last_day() -> None:
    """The day of retirement itself counts as retired; the day before does not."""
    model = REGISTRY.model("groq/compound")

    assert model.status_on(date(2026, 9, 20)) is Status.SYSTEM
    assert model.status_on(date(2026, 9, 21)) is Status.RETIRED


def test_nothing_serves_when_model_and_successor_are_gone() -> None:
    """A model without a served successor resolves to None."""
    gone = frozenset({"openai/gpt-oss-20b"})

    assert resolve(REGISTRY, "openai/gpt-oss-20b", served(gone=gone)) is None
    assert resolve(REGISTRY, "llama-3.1-8b-instant", served(gone=gone)) is None


def test_an_enterprise_model_is_only_served_when_listed() -> None:
    """Without a list nobody may presume a model that is sold on request."""
    assert resolve(REGISTRY, "minimaxai/minimax-m2.7", served()) is None
    assert resolve(REGISTRY, "minimaxai/minimax-m2.7", served(listed=frozenset({"minimaxai/minimax-m2.7"})))


def test_an_unknown_model_is_named_with_a_suggestion() -> None:
    """A misspelt id or one without its owner is met with the id that was probably meant."""
    with pytest.raises(UnknownModel, match=r"Did you mean openai/gpt-oss-20b"):
        REGISTRY.model("gpt-oss-20b")
    assert suggest("llama-3.3-70b", REGISTRY.models) == " Did you mean llama-3.3-70b-versatile?"
    assert suggest("zzz", REGISTRY.models) == ""


def test_features_are_those_of_the_live_models() -> None:
    """Vision is qwen's, strict schemas and built-in tools are gpt-oss', and gpt-oss cannot stop reasoning."""
    vision = {m.id for m in REGISTRY.routable() if m.can(Feature.VISION) and served().serves(m)}
    strict = {m.id for m in REGISTRY.routable() if m.can(Feature.STRICT_SCHEMA)}

    assert vision == {"qwen/qwen3.8-27b"}
    assert strict == {"openai/gpt-oss-120b", "openai/gpt-oss-20b"}
    assert REGISTRY.model("openai/gpt-oss-20b").reasoning_efforts == ("low", "medium", "high")


def test_what_does_not_chat_is_not_routable() -> None:
    """Whisper and Orpheus have no tier and are priced by other units."""
    model = REGISTRY.model("whisper-large-v3")

    assert (model.kind, model.tier, model.priced_per) == (Kind.AUDIO, "", PricedPer.AUDIO_HOUR)
    assert model not in REGISTRY.routable()
    assert model.limits["free"] == Limits(rpm=20, rpd=2_000)


def test_the_shipped_registry_is_read_once() -> None:
    """Loading without a path gives the same object; its prices are exact decimals."""
    assert load_registry() is REGISTRY
    assert REGISTRY.model("openai/gpt-oss-20b").prices.cached_input == Decimal("0.0375")
