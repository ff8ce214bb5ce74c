"""The console page at `/` and its parts: static files that hold no data, with a policy that lets nothing else in."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response

if TYPE_CHECKING:
    from collections.abc import Mapping

router = APIRouter(include_in_schema=False)
KINDS = {
    "console.html": "text/html; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "uPlot.min.css": "text/css; charset=utf-8",
    "uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uPlot.LICENSE.txt": "text/plain; charset=utf-8",
    "icon.svg": "image/svg+xml",
} | {f"{name}.js": "text/javascript; charset=utf-8" for name in ("main", "build", "stream", "panels", "batches",
                                                                 "spending", "dialogs", "words")}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "cache-control": "no-cache",
}


@cache
def _file(name: str) -> tuple[bytes, str]:
    content = resources.files("vessel.api").joinpath("static", name).read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def _served(name: str, asked: Mapping[str, str]) -> Response:
    content, tag = _file(name)
    headers = HEADERS | {"etag": tag}
    if tag in asked.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=KINDS[name], headers=headers)


@router.get("/")
async def console(request: Request) -> Response:
    """Serve the page; what it shows it asks for with the key of whoever looks."""
    return _served("console.html", request.headers)


def _add(name: str) -> None:
    @router.get(f"/static/{name}")
    async def part(request: Request) -> Response:
        return _served(name, request.headers)


for _name in KINDS:
    _add(_name)
