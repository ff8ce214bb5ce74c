"""Read the registry: the shipped file, with a user's TOML laid over it, checked as a whole before anything starts."""

from __future__ import annotations

import tomllib
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from vessel.errors import RegistryError
from vessel.registry.model import OPENAI_PREFIX, Feature, PricedPer, Status
from vessel.registry.schema import read
from vessel.registry.suggest import suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from vessel.registry.model import Model, Registry


def load_registry(path: Path | None = None) -> Registry:
    """Return the shipped registry, or the one that `path` overrides and extends by model id and tier name.

    Tables are merged key by key, lists and values replaced. Raises RegistryError with every fault found.
    """
    return _shipped() if path is None else _checked(_merged(_shipped_tables(), _parse(path)))


@cache
def _shipped() -> Registry:
    return _checked(_shipped_tables())


def _shipped_tables() -> dict[str, Any]:
    text = resources.files("vessel.registry").joinpath("models.toml").read_text("utf-8")
    return tomllib.loads(text, parse_float=Decimal)


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        raise RegistryError([f"{path}: cannot be read ({error.strerror}). Check VESSEL_REGISTRY."]) from None
    except UnicodeDecodeError:
        raise RegistryError([f"{path}: is not UTF-8 text."]) from None
    except tomllib.TOMLDecodeError as error:
        raise RegistryError([f"{path}: is not valid TOML: {error}."]) from None


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _checked(raw: dict[str, Any]) -> Registry:
    registry = read(raw)
    faults = [fault for model in registry.models.values() for fault in _model_faults(registry, model)]
    faults += [fault for name, model in registry.failover.items() for fault in _failover_faults(name, model)]
    faults += _tier_faults(registry)
    if faults:
        raise RegistryError(faults)
    return registry


def _model_faults(registry: Registry, model: Model) -> Iterator[str]:
    where = f'models."{model.id}"'
    if model.id.startswith(OPENAI_PREFIX):
        yield f"{where}: an id of Groq's does not start with {OPENAI_PREFIX}; write the id alone, and `vessel`."
    if model.routable and model.tier not in registry.tiers:
        yield f"{where}.tier: {_unknown('tier', model.tier, registry.tiers)}"
    if not model.routable and (model.tier or model.fallbacks):
        yield f"{where}: a model of kind {model.kind} does not chat, so it has neither tier nor fallbacks."
    if model.successor is not None:
        yield from _successor_faults(registry, model, f"{where}.successor")
    yield from _fallback_faults(registry, model, f"{where}.fallbacks")
    if model.reasoning_efforts and not model.can(Feature.REASONING):
        yield f"{where}.reasoning_efforts: given, but `reasoning` is not among its features."
    if model.can(Feature.STRICT_SCHEMA) and not model.can(Feature.JSON_SCHEMA):
        yield f"{where}.features: strict_schema without json_schema."


def _failover_faults(name: str, model: Model) -> Iterator[str]:
    where = f'models."{name}"'
    if model.tier or model.fallbacks or model.successor or model.retires:
        yield f"{where}: a model of the failover endpoint has no tier, fallbacks, successor or last day."
    if not model.routable or model.priced_per is not PricedPer.MILLION_TOKENS:
        yield f"{where}: a model of the failover endpoint chats, and is priced by tokens."


def _fallback_faults(registry: Registry, model: Model, where: str) -> Iterator[str]:
    for name in model.fallbacks:
        if name == model.id:
            yield f"{where}: holds the model itself."
        elif name not in registry.models:
            yield f"{where}: {_unknown('model', name, registry.models)}"
        elif not registry.models[name].routable:
            yield f"{where}: {name} does not chat."
    if len(set(model.fallbacks)) < len(model.fallbacks):
        yield f"{where}: holds a model twice."


def _successor_faults(registry: Registry, model: Model, where: str) -> Iterator[str]:
    seen, name = [model.id], model.successor
    while name is not None:
        if name not in registry.models:
            if len(seen) == 1:  # further on it is that model's own fault
                yield f"{where}: {_unknown('model', name, registry.models)}"
            return
        if name in seen:
            if name == model.id:
                yield f"{where}: goes in a circle: {' -> '.join([*seen, name])}."
            return
        seen.append(name)
        name = registry.models[name].successor
    if registry.models[seen[1]].routable != model.routable:
        yield f"{where}: one of {model.id} and {seen[1]} chats, the other does not."


def _tier_faults(registry: Registry) -> Iterator[str]:
    for tier in registry.tiers.values():
        where, model = f"tiers.{tier.name}.model", registry.models.get(tier.model)
        if model is None:
            yield f"{where}: {_unknown('model', tier.model, registry.models)}"
        elif not model.routable:
            yield f"{where}: {tier.model} does not chat."
        elif not any(_stays(registry, name) for name in (tier.model, *model.fallbacks)):
            yield (
                f"{where}: {tier.model}, its successors and its fallbacks are all retired one day, which leaves the "
                "tier without a model. Name a successor."
            )


def _stays(registry: Registry, name: str) -> bool:
    """Tell whether a model or one of its successors has no last day and is sold to everybody."""
    seen: set[str] = set()
    model = registry.models.get(name)
    while model is not None and model.id not in seen:
        if model.retires is None and model.status is not Status.ENTERPRISE:
            return True
        seen.add(model.id)
        model = registry.models.get(model.successor or "")
    return False


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {what} {name!r}.{suggest(name, known)}" if name else f"a {what} is missing."
