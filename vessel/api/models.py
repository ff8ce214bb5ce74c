"""`/v1/models`: what the key's Groq account serves, and Vessel's own names for its tiers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from vessel.api import examples
from vessel.api.auth import Tenant
from vessel.api.faults import documented
from vessel.api.session import Here
from vessel.client.survey import models, tiers
from vessel.errors import UnknownModel
from vessel.routing.choice import AUTO

if TYPE_CHECKING:
    from vessel.api.session import Session
    from vessel.client.survey import ModelInfo, TierInfo

router = APIRouter(tags=["models"])
CREATED = int(datetime(2025, 8, 5, tzinfo=UTC).timestamp())
"""The SDKs' types ask for a time; Groq's list has one of its own for each model, which the registry does not keep."""
EXAMPLE = {"id": "openai/gpt-oss-20b", "object": "model", "created": CREATED, "owned_by": "openai", "active": True}


@router.get(
    "/models",
    summary="List models",
    responses={
        200: examples.answers("ModelList", "The models.", {"object": "list", "data": [EXAMPLE]}),
        **documented(),
    },
)
async def list_models(tenant: Tenant, here: Here) -> dict[str, Any]:
    """List what can be named as `model`: the models that are served, the tiers, and `auto`."""
    return {"object": "list", "data": await _known(here, tenant)}


@router.get(
    "/models/{model:path}",
    summary="Retrieve a model",
    responses={200: examples.answers("Model", "The model.", EXAMPLE), **documented(404)},
)
async def retrieve(model: str, tenant: Tenant, here: Here) -> dict[str, Any]:
    """Retrieve one of them; the slash of an id may be written as it is or as %2F."""
    for known in await _known(here, tenant):
        if known["id"] == model:
            return known
    raise UnknownModel("This model does not exist, or is not served to this key. `GET /v1/models` lists them.",
                       param="model")  # fmt: skip


async def _known(here: Session, tenant: str) -> list[dict[str, Any]]:
    asking = here.asking(tenant)
    served = [_model(info) for info in await here.run(models(asking)) if info.served and info.model.routable]
    return [*served, *map(_tier, await here.run(tiers(asking))), _entry(AUTO, "vessel")]


def _model(info: ModelInfo) -> dict[str, Any]:
    model = info.model
    owner, slash, _ = model.id.partition("/")
    return _entry(model.id, owner if slash else "groq") | {
        "context_window": model.context_window,
        "max_completion_tokens": model.max_output,
        "supported_features": sorted(model.features),
        "tier": model.tier or None,
    }


def _tier(info: TierInfo) -> dict[str, Any]:
    return _entry(info.name, "vessel") | {"active": info.served_by is not None, "served_by": info.served_by}


def _entry(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": owner, "active": True}
