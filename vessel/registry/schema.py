"""The registry file's form, checked with every fault reported at once."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from vessel.errors import RegistryError
from vessel.registry.model import (
    OPENAI_PREFIX,
    Feature,
    Kind,
    Limits,
    Model,
    PricedPer,
    Prices,
    Registry,
    Status,
    Tier,
    ToolPrice,
    Vessel,
)
from vessel.registry.suggest import suggest
from vessel.wire import BuiltinTool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def _number(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("is text; write the number without quotes")  # noqa: TRY004  pydantic knows ValueError only
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise ValueError("is not a number")  # noqa: TRY004  the same
    return Decimal(str(value))


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


Price = Annotated[Decimal, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[int, Field(strict=True, gt=0)]
Names = tuple[Annotated[str, Field(min_length=1)], ...]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PricesEntry(_Entry):
    """`prices` of a model."""

    input: Price
    cached_input: Price | None = None
    output: Price


class LimitsEntry(_Entry):
    """`limits.<plan>` of a model."""

    rpm: Positive | None = None
    rpd: Positive | None = None
    tpm: Positive | None = None
    tpd: Positive | None = None
    itpm: Positive | None = None
    otpm: Positive | None = None
    concurrency: Positive | None = None


class ModelEntry(_Entry):
    """A model's table. An empty `retires` or `successor` takes the shipped one away."""

    vessel: Vessel = Vessel.GROQ
    tier: str = ""
    kind: Kind
    status: Status
    context_window: Positive
    max_output: Positive
    prices: PricesEntry
    price_estimated: Annotated[bool, Field(strict=True)] = False
    priced_per: PricedPer = PricedPer.MILLION_TOKENS
    speed_tps: Positive | None = None
    features: frozenset[Feature] = frozenset()
    limits: dict[Literal["developer", "free"], LimitsEntry] = Field(default_factory=dict)
    retires: Annotated[date | None, BeforeValidator(_empty_is_none)] = None
    successor: Annotated[str | None, BeforeValidator(_empty_is_none)] = None
    use_cases: Names = ()
    fallbacks: Names = ()
    reasoning_efforts: tuple[Literal["none", "default", "low", "medium", "high"], ...] = ()
    tool_calls: Annotated[int, Field(strict=True, ge=0, le=1000)] = 0

    @field_validator("status")
    @classmethod
    def _shelf(cls, value: Status) -> Status:
        if value is Status.RETIRED:
            raise ValueError("is not a shelf; keep the status it had and give the date in `retires`")
        return value

    @field_validator("prices")
    @classmethod
    def _discount(cls, value: PricesEntry) -> PricesEntry:
        if value.cached_input is not None and value.cached_input > value.input:
            raise ValueError("cached_input is dearer than input")
        return value


class TierEntry(_Entry):
    """A tier's table."""

    model: str
    use_cases: Names = ()


class ToolPriceEntry(_Entry):
    """A built-in tool's table; a run costs at most what it costs unless said otherwise."""

    per_call: Price = Decimal(0)
    per_call_most: Price | None = None
    per_hour: Price = Decimal(0)


class RegistryFile(_Entry):
    """The whole file."""

    builtin_tools: dict[BuiltinTool, ToolPriceEntry] = Field(default_factory=dict)

    tiers: dict[str, TierEntry]
    models: dict[str, ModelEntry]


def read(raw: Mapping[str, Any]) -> Registry:
    """Build the registry from parsed TOML; raise RegistryError with every fault of form."""
    try:
        file = RegistryFile.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise RegistryError([_fault(item["loc"], item["type"], item["msg"]) for item in found]) from None
    models = {name: _model(name, entry) for name, entry in file.models.items()}
    return Registry(
        models=MappingProxyType({name: model for name, model in models.items() if model.vessel is Vessel.GROQ}),
        tiers=MappingProxyType({n: Tier(n, entry.model, entry.use_cases) for n, entry in file.tiers.items()}),
        failover=MappingProxyType({name: model for name, model in models.items() if model.vessel is Vessel.OPENAI}),
        builtin_tools=MappingProxyType({str(n): _tool_price(entry) for n, entry in file.builtin_tools.items()}),
    )


def _model(name: str, entry: ModelEntry) -> Model:
    plain = {key: getattr(entry, key) for key in ModelEntry.model_fields if key not in {"prices", "limits"}}
    limits = {str(plan): Limits(**limit.model_dump()) for plan, limit in entry.limits.items()}
    known_as = OPENAI_PREFIX + name if entry.vessel is Vessel.OPENAI else name
    return Model(id=known_as, prices=Prices(**entry.prices.model_dump()), limits=MappingProxyType(limits), **plain)


def _tool_price(entry: ToolPriceEntry) -> ToolPrice:
    most = entry.per_call if entry.per_call_most is None else max(entry.per_call, entry.per_call_most)
    return ToolPrice(entry.per_call, most, entry.per_hour)


def _fault(loc: Sequence[str | int], kind: str, message: str) -> str:
    where = ".".join(f'"{part}"' if "." in str(part) else str(part) for part in loc)
    if kind == "extra_forbidden":
        return f"{where}: unknown key.{suggest(str(loc[-1]), _fields(loc))}"
    if kind == "missing":
        return f"{where}: missing."
    return f"{where}: {message.removeprefix('Value error, ')}."


def _fields(loc: Sequence[str | int]) -> list[str]:
    """Name the keys that may stand where an unknown one was found."""
    match list(loc):
        case ["models", _, "prices", _]:
            entry: type[_Entry] = PricesEntry
        case ["models", _, "limits", *_]:
            entry = LimitsEntry
        case ["models", *_]:
            entry = ModelEntry
        case ["builtin_tools", _, _]:
            entry = ToolPriceEntry
        case ["tiers", *_]:
            entry = TierEntry
        case _:
            entry = RegistryFile
    return list(entry.model_fields)
