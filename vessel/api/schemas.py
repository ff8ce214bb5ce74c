"""The schemas of the OpenAPI document that no handler's type gives: bodies that are passed on, and what comes back."""

from __future__ import annotations

from typing import Any

from vessel.api.steering import MaintenanceRequest
from vessel.wire import ChatRequest, JobState, Policy, Priority

_REF = "#/components/schemas/{model}"
_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "number"}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
_FLAG: dict[str, Any] = {"type": "boolean"}


def _maybe(what: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [what, {"type": "null"}]}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _list(item: str, **more: Any) -> dict[str, Any]:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{item}"}}
    return _object(["object", "data", *more], object={"const": "list"}, data=items, **more)


def _of(model: type[Any], schemas: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = model.model_json_schema(ref_template=_REF, mode="validation")
    schemas.update(schema.pop("$defs", {}))
    return schema


_FOUND: dict[str, Any] = {}
_CHAT = _of(ChatRequest, _FOUND)
_CHAT["properties"]["vessel"] = {"$ref": "#/components/schemas/Policy"}
_COMPLETION = _CHAT | {
    "required": ["model", "messages"],
    "properties": _CHAT["properties"] | {"model": {"type": "string", "minLength": 1, "maxLength": 200}},
}
_JOB = _object(
    ["id", "object", "state", "tier", "model"],
    id=_TEXT,
    object={"const": "job"},
    state={"enum": [str(s) for s in JobState]},
    tier=_TEXT,
    model=_TEXT,
    vessel=_maybe(_TEXT),
    priority={"enum": [str(p) for p in Priority]},
    created_at=_maybe(_TEXT),
    finished_at=_maybe(_TEXT),
    reason=_maybe(_TEXT),
    usage=_maybe({"type": "object"}),
    cost_usd=_maybe(_NUMBER),
    retry_of=_maybe(_TEXT),
    message=_maybe(_TEXT),
    routing={"type": "array", "items": _TEXT},
    chain={"type": "array", "items": {"type": "object"}},
    policy={"type": "object"},
    attempts={"type": "array", "items": {"type": "object"}},
    waiting=_maybe({"type": "object"}),
    webhook=_maybe({"type": "object"}),
    response=_maybe({"type": "object"}),
)
_ERROR = _object(
    ["message", "type", "code", "param"], message=_TEXT, type=_TEXT, code=_maybe(_TEXT), param=_maybe(_TEXT)
)
_SUM = _object(
    ["group", "calls", "cost_usd"],
    group=_maybe(_TEXT),
    calls=_COUNT,
    unknown=_COUNT,
    orphaned=_COUNT,
    failed=_COUNT,
    estimated=_COUNT,
    input_tokens=_COUNT,
    cached_tokens=_COUNT,
    output_tokens=_COUNT,
    cost_usd=_NUMBER,
    unknown_cost_usd=_NUMBER,
)
SCHEMAS: dict[str, Any] = _FOUND | {
    "ChatRequest": _CHAT,
    "ChatCompletionRequest": _COMPLETION,
    "Policy": _of(Policy, _FOUND),
    "MaintenanceRequest": _of(MaintenanceRequest, _FOUND),
    "Error": _object(["error"], error=_ERROR),
    "ChatCompletion": _object(
        ["id", "object", "choices"],
        id=_TEXT,
        object=_TEXT,
        created={"type": "integer"},
        model=_TEXT,
        choices={"type": "array", "items": {"type": "object"}},
        usage={"type": "object"},
        x_groq={"type": "object"},
    ),
    "Model": _object(
        ["id", "object", "created", "owned_by"],
        id=_TEXT,
        object={"const": "model"},
        created={"type": "integer"},
        owned_by=_TEXT,
        active=_FLAG,
    ),
    "ModelList": _list("Model"),
    "Job": _JOB,
    "JobList": _list("Job", first_id=_maybe(_TEXT), last_id=_maybe(_TEXT), has_more=_FLAG, next=_maybe(_TEXT)),
    "Accepted": _object(
        ["id", "object", "state", "existing"],
        id=_TEXT,
        object={"const": "job"},
        state=_TEXT,
        tier=_TEXT,
        model=_TEXT,
        existing=_FLAG,
    ),
    "Cancelled": _object(
        ["id", "object", "state", "cancelled"], id=_TEXT, object={"const": "job"}, state=_TEXT, cancelled=_FLAG
    ),
    "Sum": _SUM,
    "Usage": _object(
        ["object", "since", "until", "timezone", "by", "data", "total", "saving"],
        object={"const": "usage"},
        since=_maybe(_TEXT),
        until=_maybe(_TEXT),
        timezone={"const": "UTC"},
        saving=_maybe({"type": "object"}),
        by=_TEXT,
        data={"type": "array", "items": {"$ref": "#/components/schemas/Sum"}},
        total={"$ref": "#/components/schemas/Sum"},
    ),
    "Limits": _object(
        ["object", "org", "plan", "models", "budgets"],
        object={"const": "limits"},
        org=_TEXT,
        plan=_TEXT,
        breaker=_maybe({"type": "object"}),
        models={"type": "array", "items": {"type": "object"}},
        refusals={"type": "array", "items": {"type": "object"}},
        budgets={"type": "array", "items": {"type": "object"}},
    ),
    "Tier": _object(
        ["name", "object", "model"],
        name=_TEXT,
        object={"const": "tier"},
        model=_TEXT,
        served_by=_maybe(_TEXT),
        live_workers=_maybe(_COUNT),
        waiting=_maybe(_COUNT),
    ),
    "TierList": _list("Tier"),
    "Maintenance": _object(
        ["active", "maintenance", "held"],
        active=_FLAG,
        at=_maybe(_TEXT),
        maintenance={"type": "array", "items": {"type": "object"}},
        held={"type": "object"},
    ),
    "Health": _object(["status"], status={"enum": ["healthy", "degraded", "unhealthy"]}),
    "Ready": _object(["status"], status={"enum": ["ready", "not_ready"]}),
}
