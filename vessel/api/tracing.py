"""One request as others see it: its ids in every log line, its span, and a line of its own at the end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from structlog.contextvars import bound_contextvars

from vessel.api.metrics import METHODS, route_of
from vessel.observe import tracing
from vessel.observe.logs import get_logger
from vessel.observe.tracing import HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS, REQUEST, SpanKind

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PROBES = frozenset({"/health", "/ready", "/metrics"})
SERVER_ERROR = 500

log = get_logger(__name__)


class Tracing:
    """An ASGI middleware that runs a request under its ids; it stands behind what gives requests theirs."""

    def __init__(self, app: ASGIApp) -> None:
        """Take what to run."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"] if scope["method"] in METHODS else "other"
        request_id = scope.get("state", {}).get("request_id", "")
        given = Headers(scope=scope).getlist("traceparent")
        parent = tracing.read_header(given[0]) if len(given) == 1 else ""
        told = {HTTP_METHOD: method, REQUEST: request_id}
        with (
            tracing.span(method, SpanKind.SERVER, told, parent=parent) as span,
            tracing.serving(request_id),
            bound_contextvars(**ids(request_id)),
        ):
            try:
                await self.app(scope, receive, noting)
            finally:
                route = route_of(scope)
                span.rename(f"{method} {route}")
                span.set({HTTP_ROUTE: route, HTTP_STATUS: status or None})
                if status >= SERVER_ERROR:
                    span.fail(str(status))
                tell = log.debug if scope["path"] in PROBES else log.info
                tell("request.served", method=method, route=route, status=status, tenant=tenant_of(scope),
                     ms=round((time.perf_counter() - began) * 1000, 1))  # fmt: skip


def ids(request_id: str) -> dict[str, str]:
    """Return what every log line of a request names."""
    found = {"request_id": request_id}
    traceparent = tracing.current()
    return found | {"trace_id": tracing.trace_id(traceparent)} if traceparent else found


def tenant_of(scope: Scope) -> str | None:
    """Return whose request it was, once that is known."""
    found: str | None = scope.get("state", {}).get("tenant")
    return found
