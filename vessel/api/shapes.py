"""The shapes of files and batches for OpenAPI, as the openai and groq SDKs' types have them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from vessel.batches.model import BatchStatus

FILE_ID = "file-0123456789abcdef0123456789abcdef"
BATCH_ID = "batch_0123456789abcdef0123456789abcdef"


class Problem(BaseModel):
    """What went wrong."""

    message: str
    type: str
    code: str | None
    param: str | None


class ErrorAnswer(BaseModel):
    """OpenAI's error body."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"error": {
        "message": "There is no such file. Look for it with GET /v1/files.", "type": "not_found_error",
        "code": "file_not_found", "param": None,
    }}]})  # fmt: skip

    error: Problem


class FileObject(BaseModel):
    """A stored file."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "id": FILE_ID, "object": "file", "bytes": 1024, "created_at": 1795780800, "expires_at": 1798372800,
        "filename": "requests.jsonl", "purpose": "batch", "status": "processed", "status_details": None,
    }]})  # fmt: skip

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"]
    status_details: str | None


class FileList(BaseModel):
    """A page of files."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
    }]})  # fmt: skip

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """That a file was deleted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": FILE_ID, "object": "file", "deleted": True}]})

    id: str
    object: Literal["file"]
    deleted: bool


class BatchFault(BaseModel):
    """What is wrong with a line of the input file, counted from 1."""

    code: str | None
    line: int | None
    message: str | None
    param: str | None


class BatchFaults(BaseModel):
    """The report of a batch that was not accepted, a hundred faults at most."""

    object: Literal["list"]
    data: list[BatchFault]


class RequestCounts(BaseModel):
    """How many requests there are, have a result, and ended without one: exact at every moment."""

    total: int
    completed: int
    failed: int


class BatchObject(BaseModel):
    """A batch."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "id": BATCH_ID, "object": "batch", "endpoint": "/v1/chat/completions", "model": "openai/gpt-oss-20b",
        "errors": None, "input_file_id": FILE_ID, "completion_window": "24h", "status": "in_progress",
        "output_file_id": None, "error_file_id": None, "created_at": 1795780800, "in_progress_at": 1795780803,
        "expires_at": 1795867200, "request_counts": {"total": 50000, "completed": 0, "failed": 0},
        "metadata": {"team": "docs"},
    }]})  # fmt: skip

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchFaults | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: dict[str, Any]
    metadata: dict[str, str] | None
    vessel: dict[str, Any]


class Paging(BaseModel):
    """Groq's cursor."""

    next_cursor: str | None


class BatchList(BaseModel):
    """A page of batches."""

    model_config = ConfigDict(json_schema_extra={"examples": [{
        "object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False,
        "paging": {"next_cursor": None},
    }]})  # fmt: skip

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
    paging: Paging


_BATCH_POLICY = {
    "description": "What Vessel does beside what OpenAI's API knows.",
    "anyOf": [
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "webhook": {
                    "type": ["string", "null"],
                    "maxLength": 2048,
                    "description": "Told when the batch has ended; docs/webhooks.md.",
                },
                "max_cost_usd": {
                    "type": ["number", "null"],
                    "minimum": 1e-9,
                    "maximum": 1e6,
                    "description": "All lines together cost at most so much; a line that does not fit fails.",
                },
            },
        },
        {"type": "null"},
    ],
}


class BatchRequest(BaseModel):
    """What makes a batch."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{
        "input_file_id": FILE_ID, "endpoint": "/v1/chat/completions", "completion_window": "24h",
        "metadata": {"team": "docs"},
    }]})  # fmt: skip

    input_file_id: str
    endpoint: Literal["/v1/chat/completions", "/openai/v1/chat/completions"]
    completion_window: str = Field(pattern=r"^[0-9]+[hd]$", description="From 24h to 7d.")
    metadata: dict[str, str] | None = Field(None, description="At most 16 pairs.")
    vessel: Annotated[dict[str, Any] | None, WithJsonSchema(_BATCH_POLICY)] = None


_TEXTS = {
    400: "The request is not valid; `param` names where.",
    401: "No valid API key.",
    403: "This key may not do that.",
    404: "There is no such thing, or it belongs to another tenant.",
    408: "The request did not arrive in time.",
    409: "It cannot be done in this state, or the idempotency key was used with another body.",
    413: "The body is too large.",
    415: "The body is not of the kind that is taken here.",
    429: "A quota is used up; `retry-after` says for how long.",
    503: "Redis cannot be reached.",
}


def example(model: type[BaseModel]) -> dict[str, Any]:
    """Return the example of a shape."""
    shown: Any = model.model_config.get("json_schema_extra")
    (found,) = shown["examples"]
    return dict(found)


def answers(model: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe an operation's answers: its own, the errors that any may have, and some more."""
    told = sorted({400, 401, 403, 413, 429, 503, *statuses})
    shown = {"application/json": {"example": example(model)}}
    found: dict[int | str, dict[str, Any]] = {200: {"model": model, "description": "Done.", "content": shown}}
    for status in told:
        found[status] = {"model": ErrorAnswer, "description": _TEXTS[status]}
    return found


def request_body(model: type[BaseModel], media: str = "application/json") -> dict[str, Any]:
    """Describe a body that the handler reads by itself."""
    schema = model.model_json_schema()
    return {"requestBody": {"required": True, "content": {media: {"schema": schema, "example": example(model)}}}}
