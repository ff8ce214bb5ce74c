"""Errors as the SDKs expect them: every answer that is no success has OpenAI's body, whoever raised it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from vessel.errors import JobFailed, NoWorkers, Unreachable, VesselError
from vessel.observe.logs import get_logger
from vessel.upstream.outcome import Reason
from vessel.wire import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI
    from starlette.requests import Request

log = get_logger(__name__)
RETRY_AFTER_S = 5
"""When to come back after a 503; the SDKs keep to it."""

LONGEST_NAME = 64


class Unauthorized(VesselError):
    """No valid API key was given. Send it as `Authorization: Bearer vsl_...`; `vessel keys create` makes one."""

    code = "invalid_api_key"
    http_status = 401


class Forbidden(VesselError):
    """This key may not do that."""

    code = "permission_denied"
    http_status = 403


class TooSlow(VesselError):
    """The request did not arrive in time, so it was given up; nothing was accepted. Send it again."""

    code = "request_timeout"
    http_status = 408


class BodyTooLarge(VesselError):
    """The request's body is too large; nothing was accepted."""

    code = "request_too_large"
    http_status = 413


class UnsupportedMedia(VesselError):
    """The body is not of the kind that is taken here."""

    code = "unsupported_media_type"
    http_status = 415


class QuotaReached(VesselError):
    """This key's quota is used up."""

    code = "rate_limit_exceeded"
    http_status = 429

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        """Say when to come back."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class InvalidJson(VesselError):
    """The body is not valid JSON."""

    code = "invalid_json"
    http_status = 400


_TYPES: dict[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "service_unavailable",
}
_BY_REASON: dict[str, int] = {
    Reason.BAD_REQUEST: 400,
    Reason.CONTEXT_LENGTH: 400,
    Reason.LACKS_TOOLS: 400,
    Reason.TOOL_USE_FAILED: 400,
    Reason.JSON_VALIDATE_FAILED: 400,
    Reason.UNPROCESSABLE: 422,
    Reason.TOO_LARGE: 413,
    Reason.RATE_LIMITED: 429,
    Reason.MODEL_GONE: 404,
    Reason.OVER_BUDGET: 429,
}
"""What a job's last reason means for whoever asked; all others are 503, as they lie behind Vessel."""


class Documented:
    """Names of what may be answered, for OpenAPI."""

    TEXTS: ClassVar[dict[int, str]] = {
        400: "The request is not valid; `param` names where.",
        401: "No valid API key.",
        403: "This key, or a page of this origin, may not do that.",
        404: "There is no such thing, or it belongs to another tenant.",
        405: "This address does not take that method.",
        408: "The request did not arrive in time.",
        409: "It cannot be done in this state, or the idempotency key was used with another body.",
        413: "The body, or what was asked for, is too large.",
        415: "The body is not of the kind that is taken here.",
        422: "The model could not do what was asked.",
        429: "A quota is used up; `retry-after` says for how long.",
        503: "Redis, a worker or the upstream cannot be reached; `retry-after` says when to come back.",
    }


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of an operation; those that any request may meet come with every operation."""
    return {
        status: {
            "description": Documented.TEXTS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status in sorted({400, 401, 403, 413, 429, 503, *statuses})
    }


def body(message: str, kind: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """Build OpenAI's error body."""
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}


def kind_of(status: int) -> str:
    """Name the kind of an error as OpenAI's `type` does."""
    return _TYPES.get(status, "invalid_request_error")


def answer(error: VesselError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Render an error of ours. One whose text may tell of the inside (settings, bugs) tells nothing of it."""
    status, code, message = error.http_status, error.code, error.message
    more = dict(headers or {})
    if isinstance(error, JobFailed):
        status, code = _job_status(error), error.reason
        more |= {"x-vessel-job-id": error.job_id, "x-vessel-attempts": str(len(error.attempts))}
        more["x-should-retry"] = "false"  # the job has had its attempts; a repeat would only get the same answer
    elif status >= 500 and not isinstance(error, Unreachable):
        log.error("api.fault", error_class=type(error).__name__)
        message, code = "Vessel could not do this; it is a fault of its own.", "internal_error"
    if status == 401:
        more["www-authenticate"] = "Bearer"
    if status in {413, 408}:
        more["connection"] = "close"
    if status in {429, 503}:
        more["retry-after"] = str(RETRY_AFTER_S)
    if status == 409:
        more["x-should-retry"] = "false"  # the SDKs repeat a 409, which changes nothing here
    if isinstance(error, QuotaReached):
        more["retry-after"] = str(error.retry_after_s)
    return JSONResponse(body(message, kind_of(status), code, error.param), status, more)


def _job_status(error: JobFailed) -> int:
    if error.state == JobState.CANCELLED and error.reason != NoWorkers.code:
        return 409
    return _BY_REASON.get(error.reason, 503)


def _on_http(error: HTTPException) -> JSONResponse:
    status = error.status_code
    texts = {
        404: ("unknown_url", "There is nothing at this address. /openapi.json lists what there is."),
        405: ("method_not_allowed", "This address does not take that method; `allow` names those it takes."),
    }
    code, text = texts.get(status, ("invalid_request", str(error.detail)))
    return JSONResponse(body(text, kind_of(status), code), status, error.headers)


def _on_validation(errors: Sequence[Any]) -> JSONResponse:
    """Tell the first fault and where it is, never what was given."""
    first = errors[0] if errors else {"loc": (), "msg": "it is not valid"}
    place = [str(part)[:LONGEST_NAME] for part in first["loc"] if part not in {"body", "query", "path", "header"}]
    param = ".".join(place) or None
    text = f"{param or 'request'}: {str(first['msg']).removeprefix('Value error, ')}."
    return JSONResponse(body(text, kind_of(400), "invalid_request", param), 400)


def _allowed(app: FastAPI, request: Request) -> list[str]:
    """List what an address takes; the router itself names only the methods of the first route that it finds."""
    found = [
        method
        for method in ("DELETE", "GET", "PATCH", "POST", "PUT")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.routes)
    ]
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"]


def _on_method(app: FastAPI, request: Request, refused: JSONResponse) -> Response:
    """Tell what an address takes; OPTIONS asks for just that, unless a page of another origin asks to be let in."""
    allowed = {"allow": ", ".join(_allowed(app, request))}
    if request.method == "OPTIONS" and "access-control-request-method" not in request.headers:
        return Response(status_code=204, headers=allowed)
    refused.headers.update(allowed)
    return refused


def install(app: FastAPI) -> None:
    """Give an app these answers."""

    async def on_vessel(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, VesselError)  # noqa: S101  registered for it alone
        return answer(error)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  the same
        answered = _on_http(error)
        return _on_method(app, request, answered) if answered.status_code == 405 else answered

    async def on_validation(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101  the same
        return _on_validation(error.errors())

    async def on_bug(_request: Request, error: Exception) -> JSONResponse:
        log.error("api.bug", exc_info=error)
        return JSONResponse(body("Vessel met something it was not made for.", "api_error", "internal_error"), 500)

    app.add_exception_handler(VesselError, on_vessel)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Exception, on_bug)
