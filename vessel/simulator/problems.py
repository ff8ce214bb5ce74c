"""The error answers of Groq, with its own texts wherever one was ever seen; docs/simulator.md says which were not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vessel.simulator.encoding import encode

if TYPE_CHECKING:
    from vessel.simulator.buckets import Refusal

INVALID = "invalid_request_error"
SERVER = "internal_server_error"
HTML = "text/html; charset=UTF-8"
_DOCS = "https://console.groq.com/docs"


class Problem(Exception):
    """An answer that is an error: status, body, and why for the log of calls."""

    def __init__(
        self, status: int, body: dict[str, Any] | str, reason: str, *, retry_after: float | str | None = None
    ) -> None:
        """Keep the answer; a text body is HTML and comes from the edge, without Groq's own headers."""
        super().__init__(reason)
        self.status, self.body, self.reason, self.retry_after = status, body, reason, retry_after

    @property
    def from_edge(self) -> bool:
        """Tell whether a proxy in front of Groq answers."""
        return isinstance(self.body, str)

    def content(self) -> bytes:
        """Return the body's bytes."""
        return self.body.encode() if isinstance(self.body, str) else encode(self.body)


def error(message: str, kind: str = INVALID, **more: Any) -> dict[str, Any]:
    """Write an error body; absent members are left out, as Groq does."""
    return {"error": {"message": message, "type": kind} | {k: v for k, v in more.items() if v is not None}}


def invalid(message: str, param: str | None = None, code: str | None = None) -> Problem:
    """Answer a request that breaks a rule."""
    return Problem(400, error(message, code=code, param=param), code or "invalid_request")


def invalid_key() -> Problem:
    """Answer a key that is missing, unknown or revoked."""
    return Problem(401, error("Invalid API Key", code="invalid_api_key"), "invalid_api_key")


def unknown_url(method: str, path: str) -> Problem:
    """Answer a path that Groq does not have."""
    text = f"Unknown request URL: {method} {path}. Please check the URL for typos, or see the docs at {_DOCS}/"
    return Problem(404, error(text, code="unknown_url"), "unknown_url")


def model_not_found(model: str) -> Problem:
    """Answer an id that is unknown, retired, or not for this organisation."""
    text = f"The model `{model}` does not exist or you do not have access to it."
    return Problem(404, error(text, code="model_not_found"), "model_not_found")


def decommissioned(model: str) -> Problem:
    """Answer a retired id the other way that was seen."""
    text = (
        f"The model `{model}` has been decommissioned and is no longer supported. Please refer to {_DOCS}/deprecations"
    )
    text += " for a recommendation on which model to use instead."
    return Problem(400, error(text, code="model_decommissioned"), "model_decommissioned")


def no_chat(model: str) -> Problem:
    """Answer a chat to a model for sound."""
    return invalid(f"The model `{model}` does not support chat completions")


def over_capacity(model: str) -> Problem:
    """Answer for a model that has no room."""
    text = f"{model} is currently over capacity. Please try again and back off exponentially. "
    text += "Visit https://groqstatus.com to see if there is an active incident."
    return Problem(503, error(text, SERVER), "over_capacity")


def flex_capacity() -> Problem:
    """Answer for the flex tier when it has no room: fast, and not processed."""
    text = "`flex` tier capacity exceeded, please try again later or use the `on_demand` tier."
    return Problem(498, error(text, "capacity_exceeded", code="capacity_exceeded"), "capacity_exceeded")


def blocked_api_access() -> Problem:
    """Answer for an organisation over its spend limit."""
    text = "API access is blocked because your organization has reached its spend limit. "
    text += "Raise it at https://console.groq.com/settings/billing/limits"
    return Problem(400, error(text, code="blocked_api_access"), "blocked_api_access")


def network_block() -> Problem:
    """Answer for a network that is not let in; nothing is wrong with the key."""
    return Problem(403, {"error": {"message": "Access denied. Please check your network settings."}}, "network_block")


def tool_use_failed(failed_generation: str | None) -> Problem:
    """Answer for a tool call that the model wrote badly."""
    text = "Failed to call a function. Please adjust your prompt. See 'failed_generation' for more details."
    body = error(text, code="tool_use_failed", failed_generation=failed_generation)
    return Problem(400, body, "tool_use_failed")


def json_validate_failed(failed_generation: str | None) -> Problem:
    """Answer for JSON that the model wrote badly, or not at all when thinking ate its budget."""
    text = "Failed to generate JSON. Please adjust your prompt. See 'failed_generation' for more details."
    if not failed_generation:
        text = "Failed to validate JSON. Please adjust your prompt. See 'failed_generation' for more details."
    body = error(text, code="json_validate_failed", failed_generation=failed_generation)
    return Problem(400, body, "json_validate_failed")


def too_large() -> Problem:
    """Answer a body of more bytes than Groq takes."""
    return Problem(413, error("Request Entity Too Large", code="request_too_large"), "request_too_large")


def refused(refusal: Refusal, model: str, org: str, tier: str) -> Problem:
    """Answer a request that a limit does not admit."""
    body = error(refusal.text(model, org, tier), refusal.type, code="rate_limit_exceeded")
    wait = refusal.retry_after_s if refusal.wait_ns is not None else None
    return Problem(refusal.status, body, refusal.limit_name, retry_after=wait)


_PLAIN = {
    400: ("Bad Request", INVALID),
    401: ("Invalid API Key", INVALID),
    403: ("Access denied. Please check your network settings.", "permissions_error"),
    404: ("Not Found", INVALID),
    413: ("Request Entity Too Large", INVALID),
    422: ("The request was well-formed but could not be followed due to semantic errors.", INVALID),
    424: ("A dependent request failed: error retrieving tools from the remote MCP server.", INVALID),
    429: ("Rate limit reached on requests per minute (RPM). Please try again in 2s.", "requests"),
    499: ("Request Cancelled", INVALID),
    500: ("Internal Server Error", SERVER),
    502: ("Bad Gateway", SERVER),
    503: ("Service Unavailable", SERVER),
    504: ("Gateway Timeout", SERVER),
}


def plain(status: int, retry_after: float | str | None = None) -> Problem:
    """Answer with a bare status, as a fault asked for."""
    message, kind = _PLAIN.get(status, ("Simulated error", SERVER if status >= 500 else INVALID))  # noqa: PLR2004  a status
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded", 413: "request_too_large"}.get(status)
    if status == 429 and retry_after is None:  # noqa: PLR2004  a status
        retry_after = 2
    return Problem(status, error(message, kind, code=code), f"status_{status}", retry_after=retry_after)


def html_page(status: int) -> str:
    """Write the page that a proxy in front of Groq shows."""
    title = _PLAIN.get(status, ("Error", ""))[0]
    return (
        f"<!DOCTYPE html>\n<html><head><title>api.groq.com | {status}: {title}</title></head>\n"
        f"<body><center><h1>{status} {title}</h1></center><hr><center>cloudflare</center></body></html>\n"
    )
