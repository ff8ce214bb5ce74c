"""`/v1/batches`: make one of a file, look, list, cancel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import StringConstraints

from vessel.api.auth import Tenant
from vessel.api.bodies import JsonBody
from vessel.api.performing import door_of, once_of, perform
from vessel.api.shapes import BatchList, BatchObject, BatchRequest, answers, request_body
from vessel.batches.model import BatchNotFound
from vessel.client import batching
from vessel.client.steps import Run
from vessel.errors import InvalidRequest

if TYPE_CHECKING:
    from vessel.batches.model import Batch
    from vessel.client.steps import Steps
    from vessel.submit import Door

router = APIRouter(tags=["batches"])
_FORM = r"^batch_[0-9a-f]{32}$"
_ID = re.compile(_FORM)
MOST_IDS = 4
_Ids = Annotated[str, StringConstraints(pattern=r"^batch_[0-9a-f]{32}(,batch_[0-9a-f]{32})*$", max_length=1500)]
"""One id, or several as the groq SDK joins them."""

MOST_BODY = 64 << 10


@router.post(
    "/batches",
    summary="Create a batch",
    responses=answers(BatchObject, 408, 409, 415),
    openapi_extra=request_body(BatchRequest),
)
async def create(request: Request, tenant: Tenant, body: JsonBody) -> JSONResponse:
    """Make a batch of an uploaded file. Its lines are checked before any of them runs; a report names faulty ones."""
    once = once_of(request)
    if len(body.raw) > MOST_BODY:
        raise InvalidRequest("The body is larger than a batch's request can be.")
    batch = await perform(request, batching.create_batch(door_of(request), tenant, body.value, once))
    return JSONResponse(batch.as_dict())


@router.get("/batches", summary="List batches", responses=answers(BatchList, 404))
async def list_batches(
    request: Request,
    tenant: Tenant,
    *,
    after: Annotated[str | None, Query(pattern=_FORM)] = None,
    cursor: Annotated[str | None, Query(pattern=_FORM, description="Groq's name for `after`.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    ids: Annotated[list[_Ids] | None, Query(alias="id", max_length=MOST_IDS, description="Only these.")] = None,
) -> JSONResponse:
    """List batches, newest first, or those with the given ids."""
    door = door_of(request)
    if ids:
        wanted = [name for text in ids for name in text.split(",")]
        found, more = await perform(request, _named(door, tenant, wanted)), False
    else:
        key = door.keys.batches(tenant)
        found, more = await perform(request, batching.page(door, key, door.batches.batch, after or cursor, limit))
    found = await perform(request, batching.with_deliveries(door, found))
    rows = [batch.as_dict() for batch in found]
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return JSONResponse({
        "object": "list", "data": rows, "first_id": first, "last_id": last, "has_more": more,
        "paging": {"next_cursor": last if more else None},
    })  # fmt: skip


def _named(door: Door, tenant: str, ids: list[str]) -> Steps[list[Batch]]:
    known = [batch_id for batch_id in dict.fromkeys(ids) if _ID.fullmatch(batch_id)]
    found: list[Batch | None] = (yield Run([door.batches.batch(i) for i in known])) if known else []
    return [batch for batch in found if batch is not None and batch.tenant == tenant]


@router.get("/batches/{batch_id}", summary="Retrieve a batch", responses=answers(BatchObject, 404))
async def retrieve(request: Request, tenant: Tenant, batch_id: str) -> JSONResponse:
    """Describe a batch; its counts are those of this moment."""
    batch = await perform(request, batching.batch_of(door_of(request), tenant, _known(batch_id)))
    return JSONResponse(batch.as_dict())


@router.post("/batches/{batch_id}/cancel", summary="Cancel a batch", responses=answers(BatchObject, 404, 409))
async def cancel(request: Request, tenant: Tenant, batch_id: str) -> JSONResponse:
    """Cancel a batch: results stay, waiting lines end at once, and calls that run are cut."""
    batch = await perform(request, batching.cancel_batch(door_of(request), tenant, _known(batch_id)))
    return JSONResponse(batch.as_dict())


def _known(batch_id: str) -> str:
    if not _ID.fullmatch(batch_id):
        raise BatchNotFound
    return batch_id
