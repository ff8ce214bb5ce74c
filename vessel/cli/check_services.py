"""Whether the faces of a vessel answer at their addresses: REST, MCP, Flower."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from vessel.settings import Settings

ASK_S = 5.0
NAMES = ("api", "mcp", "flower")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  where it listens, not where we do
_SERVER_FAULT, _NOT_FOUND, OK = 500, 404, 200
_LOGIN = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class Service:
    """A face: where it is asked, and how it is started. `down` is the code of one that does not answer."""

    name: str
    title: str
    urls: tuple[str, ...]
    command: str
    down: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `refused`: nothing of ours listens there; `foreign`: something else does."""

    url: str
    ok: bool
    text: str
    refused: bool = False
    status: int = 0
    foreign: bool = False


def of(settings: Settings) -> tuple[Service, ...]:
    """List the faces at the addresses that the settings name."""
    scheme = "https" if settings.api_tls_cert else "http"
    api = f"{scheme}://{_host(settings.api_host)}:{settings.api_port}"
    mcp = f"{scheme}://{_host(settings.api_host)}:{settings.mcp_port}/mcp"
    flower = f"http://{_host(settings.flower_host)}:{settings.flower_port}/"
    return (
        Service("api", "REST API", (f"{api}/health",), "vessel api", "api_down"),
        Service("mcp", "MCP", (mcp, f"{api}/mcp"), "vessel mcp --http", "mcp_down"),
        Service("flower", "Flower", (flower,), "vessel flower", "flower_down"),
    )


def ask(service: Service, settings: Settings, *, alone: bool = False) -> Answer:
    """Ask a face at each of its addresses until one answers; any answer but a fault says that it runs.

    `alone`: only where its own process is, not where another one has the face as well.
    """
    answers: list[Answer] = []
    with httpx.Client(trust_env=False, timeout=ASK_S, verify=_trust(settings)) as client:
        for url in service.urls[:1] if alone else service.urls:
            answer = _health(client, url) if service.name == "api" else _any(client, url)
            if answer.ok:
                return answer
            answers.append(answer)
    return next((answer for answer in answers if not answer.refused), answers[0])


def _health(client: httpx.Client, url: str) -> Answer:
    try:
        found = client.get(url)
        status = found.json()["status"]
    except httpx.HTTPError as error:
        return _silent(url, error)
    except (ValueError, LookupError, TypeError):
        return Answer(url, ok=False, text="what answers there is not Vessel's REST API", foreign=True)
    return Answer(url, found.status_code == OK, f"says {status}", status=found.status_code)


def _any(client: httpx.Client, url: str) -> Answer:
    try:
        with client.stream("GET", url, headers={"accept": "application/json, text/event-stream"}) as found:
            status = found.status_code
    except httpx.HTTPError as error:
        return _silent(url, error)
    if status == _NOT_FOUND:
        return Answer(url, ok=False, text="what answers there has no such path", refused=True, foreign=True)
    if status >= _SERVER_FAULT:
        return Answer(url, ok=False, text=f"answers with a fault (HTTP {status})", status=status)
    return Answer(url, ok=True, text=f"answers{', and asks for a login' if status in _LOGIN else ''}", status=status)


def _silent(url: str, error: httpx.HTTPError) -> Answer:
    if isinstance(error, httpx.ConnectError):
        return Answer(url, ok=False, text="nothing listens there", refused=True)
    return Answer(url, ok=False, text=f"no answer within {ASK_S:g} s ({type(error).__name__})")


def _trust(settings: Settings) -> ssl.SSLContext | bool:
    """Trust our own certificate under whatever name: we ask by address, which it need not hold."""
    if settings.api_tls_cert is None:
        return True
    context = ssl.create_default_context()
    context.check_hostname = False
    try:
        context.load_verify_locations(settings.api_tls_cert)
    except (OSError, ssl.SSLError):
        return True
    return context


def _host(host: str) -> str:
    found = _ANY.get(host, host)
    return f"[{found}]" if ":" in found else found
