"""The registry's nouns: a model with its prices, limits, features and lifecycle; a tier; and the whole of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from vessel.errors import UnknownModel
from vessel.registry.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import date
    from decimal import Decimal

    from vessel.registry.availability import Availability


class Kind(StrEnum):
    """What a model is for; only the first three answer chat completions."""

    CHAT = "chat"
    SYSTEM = "system"
    GUARD = "guard"
    AUDIO = "audio"
    TTS = "tts"


class Status(StrEnum):
    """The shelf a model stands on at Groq; `retired` follows from its date and is never written in a registry."""

    PRODUCTION = "production"
    SYSTEM = "system"
    PREVIEW = "preview"
    ENTERPRISE = "enterprise"
    RETIRED = "retired"


class Feature(StrEnum):
    """What a model can be asked for."""

    TOOLS = "tools"
    PARALLEL_TOOLS = "parallel_tools"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    STRICT_SCHEMA = "strict_schema"
    REASONING = "reasoning"
    VISION = "vision"
    BUILTIN_TOOLS = "builtin_tools"
    PROMPT_CACHE = "prompt_cache"


class Vessel(StrEnum):
    """Who answers a model's calls: Groq, or the OpenAI-compatible endpoint that stands in for it in an outage."""

    GROQ = "groq"
    OPENAI = "openai"


OPENAI_PREFIX = f"{Vessel.OPENAI}:"
"""Before the id of a model of the failover endpoint, which may well serve one that Groq serves under the same id."""


def vessel_of(model_id: str) -> Vessel:
    """Tell who answers the calls of a hop or gate of that name."""
    return Vessel.OPENAI if model_id.startswith(OPENAI_PREFIX) else Vessel.GROQ


class PricedPer(StrEnum):
    """The unit of a model's prices."""

    MILLION_TOKENS = "million_tokens"
    AUDIO_HOUR = "audio_hour"
    MILLION_CHARACTERS = "million_characters"


@dataclass(frozen=True, slots=True)
class Prices:
    """USD per `PricedPer`; `cached_input` is None where no discount is known."""

    input: Decimal
    cached_input: Decimal | None
    output: Decimal


@dataclass(frozen=True, slots=True)
class ToolPrice:
    """What a built-in tool costs in USD: for each run, and for each hour that it lasts; `per_call_most` on a system."""

    per_call: Decimal
    per_call_most: Decimal
    per_hour: Decimal


@dataclass(frozen=True, slots=True)
class Limits:
    """Requests and tokens per minute and day, input and output tokens per minute; None: no limit is known."""

    rpm: int | None = None
    rpd: int | None = None
    tpm: int | None = None
    tpd: int | None = None
    itpm: int | None = None
    otpm: int | None = None
    concurrency: int | None = None
    """Calls of the whole organisation under way at once; a bound of our own, Groq has none."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the registry knows it. `tier` carries its jobs; it is empty for models that do not chat."""

    id: str
    tier: str
    kind: Kind
    status: Status
    context_window: int
    max_output: int
    prices: Prices
    price_estimated: bool = False
    priced_per: PricedPer = PricedPer.MILLION_TOKENS
    speed_tps: int | None = None
    features: frozenset[Feature] = frozenset()
    limits: Mapping[str, Limits] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    retires: date | None = None
    successor: str | None = None
    use_cases: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    reasoning_efforts: tuple[str, ...] = ()
    tool_calls: int = 0
    """How many runs of built-in tools are set aside for in a call."""
    vessel: Vessel = Vessel.GROQ

    @property
    def served_id(self) -> str:
        """Return the id as the upstream knows it."""
        return self.id.removeprefix(OPENAI_PREFIX) if self.vessel is Vessel.OPENAI else self.id

    @property
    def routable(self) -> bool:
        """Tell whether chat completions can be sent to it."""
        return self.kind in {Kind.CHAT, Kind.SYSTEM, Kind.GUARD}

    def can(self, feature: Feature) -> bool:
        """Tell whether it has a feature."""
        return feature in self.features

    def status_on(self, day: date) -> Status:
        """Return its status on a day: `retired` from its last date on, else its shelf."""
        return Status.RETIRED if self.retires is not None and self.retires <= day else self.status


@dataclass(frozen=True, slots=True)
class Tier:
    """A queue with a name, and the model it was made for."""

    name: str
    model: str
    use_cases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many models there are on each shelf, for the readiness message."""

    production: int
    system: int
    preview: int
    enterprise: int

    @property
    def total(self) -> int:
        """Return the number of all of them."""
        return self.production + self.system + self.preview + self.enterprise


@dataclass(frozen=True, slots=True)
class Registry:
    """All models and tiers, in the order of the file. Its faults were found when it was loaded."""

    models: Mapping[str, Model] = field(hash=False)
    """What Groq serves: all that requests can name and chains can hold."""
    tiers: Mapping[str, Tier] = field(hash=False)
    failover: Mapping[str, Model] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """What the failover endpoint may serve, by the endpoint's own ids."""
    builtin_tools: Mapping[str, ToolPrice] = field(default_factory=lambda: MappingProxyType({}), hash=False)
    """Prices of built-in tools, by the seed's names."""

    def model(self, model_id: str) -> Model:
        """Return a model by id; raise UnknownModel with the names that look alike."""
        found = self.models.get(model_id)
        if found is None:
            hint = suggest(model_id, [*self.models, *self.tiers])
            raise UnknownModel(
                f"There is no model or tier {model_id!r}.{hint} `vessel models` lists them.", param="model"
            )
        return found

    def chain(self, model_id: str) -> tuple[str, ...]:
        """Return the ids to try after a model, in order, before retired ones are resolved."""
        return self.model(model_id).fallbacks

    def routable(self) -> tuple[Model, ...]:
        """Return the models that answer chat completions."""
        return tuple(model for model in self.models.values() if model.routable)

    def counts(self, availability: Availability | None = None) -> Counts:
        """Count the models by shelf: those that are served, or all of the registry when availability is not given."""
        served = [m.status for m in self.models.values() if availability is None or availability.serves(m)]
        return Counts(
            production=served.count(Status.PRODUCTION),
            system=served.count(Status.SYSTEM),
            preview=served.count(Status.PREVIEW),
            enterprise=served.count(Status.ENTERPRISE),
        )
