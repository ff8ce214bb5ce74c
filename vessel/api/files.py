"""`/v1/files`: upload as a stream, look, list, read, delete."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse

from vessel.api.auth import Tenant
from vessel.api.multipart import read_form
from vessel.api.performing import door_of, once_of, perform, stream
from vessel.api.shapes import ErrorAnswer, FileDeleted, FileList, FileObject, answers
from vessel.batches.file_store import DAY_MS, NewFile
from vessel.batches.files import Upload
from vessel.batches.model import FILE_DAYS, FileNotFound, StoredFile, new_file_id
from vessel.client import batching
from vessel.client.steps import Steps, run
from vessel.errors import InvalidRequest, VesselError
from vessel.keyspace.script import Call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vessel.api.multipart import Form
    from vessel.batches.file_store import Once
    from vessel.submit import Door

router = APIRouter(tags=["files"])
_FORM = r"^file-[0-9a-f]{32}$"
_ID = re.compile(_FORM)
LONGEST_NAME = 255
SHORTEST_S, LONGEST_S = 3600, 2_592_000
_UPLOAD = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "JSONL: one request a line."},
        "purpose": {"const": "batch"},
        "expires_after[anchor]": {"const": "created_at"},
        "expires_after[seconds]": {"type": "integer", "minimum": SHORTEST_S, "maximum": LONGEST_S},
    },
}


_BYTES = {"schema": {"type": "string"}, "example": '{"custom_id": "r1", "response": {"status_code": 200}}'}
_UPLOADED = {"schema": _UPLOAD, "example": {"purpose": "batch", "file": "(JSONL)"}}


async def _file_id(file_id: Annotated[str, Path(description="A file's id.", max_length=200)]) -> str:
    if not _ID.fullmatch(file_id):
        raise FileNotFound
    return file_id


@router.post(
    "/files",
    summary="Upload a file",
    responses=answers(FileObject, 408, 409, 415),
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": _UPLOADED}}},
)
async def create(request: Request, tenant: Tenant) -> JSONResponse:
    """Store a batch's input file. It is seen only once all of it is there; a repeat gives the first one's file."""
    once, door = once_of(request), door_of(request)
    file_id, upload, put = new_file_id(), Upload(), 0
    runner = request.app.state.runner
    try:
        form: Form | None = None
        async for form in read_form(request):
            _check_purpose(form, whole=False)
            for piece in form.pieces:
                for chunk in upload.feed(piece):
                    await runner.run(door.files.put(file_id, put, chunk))
                    put += 1
        if form is None or form.filename is None:
            raise InvalidRequest("file: there is no file in the form.", param="file")
        _check_purpose(form, whole=True)
        keep_ms = _keep_ms(form)
        rest = upload.finish()
        if rest:
            await runner.run(door.files.put(file_id, put, rest))
        name = "".join(c for c in form.filename if c.isprintable())[:LONGEST_NAME] or "file.jsonl"
        new = NewFile(file_id, tenant, name, "batch", upload.size, upload.lines, upload.digest, keep_ms)
        stored = await perform(request, _committed(door, new, once))
    except VesselError:
        await runner.run(door.files.discard(file_id, put + 1))
        raise
    return JSONResponse(stored.as_dict())


def _committed(door: Door, new: NewFile, once: Once) -> Steps[StoredFile]:
    kept: str = yield from run(door.files.commit_file(new, once))
    return (yield from batching.file_of(door, new.tenant, kept))


def _check_purpose(form: Form, *, whole: bool) -> None:
    purpose = form.fields.get("purpose")
    if (purpose is not None or whole) and purpose != "batch":
        raise InvalidRequest("purpose: it must be batch. Nothing was kept.", param="purpose")


def _keep_ms(form: Form) -> int:
    seconds = form.fields.get("expires_after[seconds]")
    anchor = form.fields.get("expires_after[anchor]", "created_at")
    if seconds is None and "expires_after[anchor]" not in form.fields:
        return FILE_DAYS * DAY_MS
    good = seconds is not None and seconds.isascii() and seconds.isdigit() and len(seconds) < LONGEST_NAME
    if anchor != "created_at" or not good or not SHORTEST_S <= int(seconds or 0) <= LONGEST_S:
        raise InvalidRequest(
            f"expires_after: anchor created_at and {SHORTEST_S} to {LONGEST_S} seconds are taken. Nothing was kept.",
            param="expires_after",
        )
    return int(seconds or 0) * 1000


@router.get("/files", summary="List files", responses=answers(FileList, 404))
async def list_files(
    request: Request,
    tenant: Tenant,
    *,
    purpose: Annotated[str | None, Query(max_length=64)] = None,
    after: Annotated[str | None, Query(pattern=_FORM)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> JSONResponse:
    """List files, newest first; documents of batches as soon as they hold a line."""
    door = door_of(request)

    def read(file_id: str) -> Call[StoredFile | None]:
        call = door.files.file(file_id)

        def wanted(raw: Any) -> StoredFile | None:
            found = call.parse(raw)
            return found if found is not None and purpose in {None, found.purpose} else None

        return Call(call.command, wanted)

    key = door.keys.files(tenant)
    reading = batching.page(
        door, key, read, after, limit, oldest_first=order == "asc", narrow=partial(batching.shown, door)
    )
    found, more = await perform(request, reading)
    rows = [file.as_dict(await perform(request, batching.size_of(door, file))) for file in found]
    first, last = (found[0].id, found[-1].id) if found else (None, None)
    return JSONResponse({"object": "list", "data": rows, "first_id": first, "last_id": last, "has_more": more})


@router.get("/files/{file_id}", summary="Retrieve a file", responses=answers(FileObject, 404))
async def retrieve(request: Request, tenant: Tenant, file_id: str) -> JSONResponse:
    """Describe a file. A batch's document grows while the batch runs."""
    door = door_of(request)
    file = await perform(request, batching.file_of(door, tenant, await _file_id(file_id)))
    return JSONResponse(file.as_dict(await perform(request, batching.size_of(door, file))))


@router.get(
    "/files/{file_id}/content",
    summary="Read a file",
    response_class=StreamingResponse,
    responses={
        200: {"description": "Its bytes.", "content": {"application/octet-stream": _BYTES}},
        **{status: told for status, told in answers(ErrorAnswer, 404).items() if status != 200},
    },
)
async def content(request: Request, tenant: Tenant, file_id: str) -> StreamingResponse:
    """Stream a file's bytes; a batch's output and error document as far as the batch has come."""
    door = door_of(request)
    file = await perform(request, batching.file_of(door, tenant, await _file_id(file_id)))
    headers = {"content-disposition": f'attachment; filename="{file.id}.jsonl"'}
    if not file.kind:
        headers["content-length"] = str(file.bytes)
    return StreamingResponse(
        _whole(stream(request, batching.content(door, file))), media_type="application/octet-stream", headers=headers
    )


async def _whole(pieces: AsyncIterator[bytes]) -> AsyncIterator[str | bytes | memoryview]:
    async for piece in pieces:
        yield piece


@router.delete("/files/{file_id}", summary="Delete a file", responses=answers(FileDeleted, 404, 409))
async def delete(request: Request, tenant: Tenant, file_id: str) -> JSONResponse:
    """Delete a file and its bytes, unless a batch that has not ended reads or writes it."""
    known = await _file_id(file_id)
    await perform(request, batching.delete_file(door_of(request), tenant, known))
    return JSONResponse({"id": known, "object": "file", "deleted": True})
