"""Which models are served to our key today, and what takes the place of those that are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vessel.registry.model import Status

if TYPE_CHECKING:
    from datetime import date

    from vessel.registry.model import Model, Registry


@dataclass(frozen=True, slots=True)
class Availability:
    """What is known about the models served: `listed` as GET /models told it (None: never asked), and what is `gone`.

    `gone` holds ids that answered model_not_found since then; they are absent even if listed.
    """

    listed: frozenset[str] | None
    gone: frozenset[str]
    today: date

    def serves(self, model: Model) -> bool:
        """Tell whether a model is served: the list decides, and the registry's dates where there is no list."""
        if model.id in self.gone:
            return False
        if self.listed is not None:
            return model.id in self.listed
        # An enterprise model is served to few; only the list can say so.
        return model.status is not Status.ENTERPRISE and model.status_on(self.today) is not Status.RETIRED

    def absence(self, model: Model) -> str:
        """Say in a few words why a model is not served, to follow its id."""
        if model.status_on(self.today) is Status.RETIRED:
            return f"was retired on {model.retires}"
        return "is gone" if model.id in self.gone else "is not served to this key"


def resolve(registry: Registry, model_id: str, availability: Availability) -> str | None:
    """Return the model that serves in the name of `model_id`: itself, else its nearest served successor, else None.

    Raises UnknownModel for an id that is not in the registry.
    """
    model: Model | None = registry.model(model_id)
    while model is not None and not availability.serves(model):
        model = registry.model(model.successor) if model.successor else None
    return model.id if model else None
