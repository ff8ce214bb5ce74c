"""What is served at this moment: the world's table, changed by deprecation drills."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from vessel.simulator import problems
from vessel.simulator.encoding import encode
from vessel.simulator.models import Feature, SimModel, World, listing, models_of

if TYPE_CHECKING:
    from collections.abc import Iterable

Farewell = Literal["not_found", "decommissioned"]


class Catalog:
    """The models in service, in the order of the table."""

    def __init__(self, world: World) -> None:
        """Serve all of a world."""
        self.world = world
        self.served = models_of(world)
        self.decommissioned: set[str] = set()
        self._listed = b""

    def chat_model(self, name: str) -> SimModel:
        """Return a model that answers chats. Raises Problem: 404, or 400 where it was decommissioned."""
        model = self.served.get(name)
        if model is None:
            raise problems.decommissioned(name) if name in self.decommissioned else problems.model_not_found(name)
        if not model.chat:
            raise problems.no_chat(name)
        return model

    def listed(self) -> bytes:
        """Return the body of `GET /models`."""
        if not self._listed:
            data = [listing(model) for model in self.served.values()]
            self._listed = encode({"object": "list", "data": data})
        return self._listed

    def remove(self, names: Iterable[str], farewell: Farewell = "not_found") -> None:
        """Take models out of service; they answer 404, or 400 `model_decommissioned`."""
        for name in names:
            self.served.pop(name, None)
            if farewell == "decommissioned":
                self.decommissioned.add(name)
        self._listed = b""

    def add(self, wanted: Iterable[str | dict[str, Any]]) -> None:
        """Put models into service: ids of either world, or tables of SimModel's fields. Raises ValueError."""
        known = models_of("seed") | models_of("today")
        for entry in wanted:
            model = known.get(entry) if isinstance(entry, str) else _read(entry)
            if model is None:
                raise ValueError(f"model {entry!r} is in neither world; give its fields as a table")
            self.served[model.id] = model
            self.decommissioned.discard(model.id)
        self._listed = b""


def _read(fields: dict[str, Any]) -> SimModel:
    known = {field.name for field in dataclasses.fields(SimModel)}
    if unknown := set(fields) - known:
        raise ValueError(f"a model has no {', '.join(sorted(unknown))}; it may have {', '.join(sorted(known))}")
    if "id" not in fields:
        raise ValueError("a model needs an id")
    basis: dict[str, Any] = {"owner": "Simulator", "speed_tps": 500, "price_in": "0.10", "price_out": "0.40",
                             "max_output": 32768, "features": [Feature.TOOLS, Feature.JSON]}  # fmt: skip
    merged = basis | fields
    merged["features"] = frozenset(Feature(name) for name in merged["features"])
    merged["efforts"] = tuple(merged.get("efforts", ()))
    return SimModel(**merged | {"id": str(fields["id"])})
