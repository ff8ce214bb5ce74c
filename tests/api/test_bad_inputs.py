"""Nothing that a caller sends is a 5xx, and every refusal has OpenAI's body and says nothing of the inside."""

from __future__ import annotations

import contextlib
import socket
from http.client import HTTPResponse
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.api.bad_addresses import ADDRESSED
from tests.api.bad_inputs import BODIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from tests.api.bad_inputs import Bad
    from tests.api.serving import Served


EVERY = [*BODIES, *ADDRESSED]


@pytest.fixture(scope="module")
def http(served: Served) -> Iterator[httpx.Client]:
    """Open a plain client."""
    with served.http() as client:
        yield client


@pytest.mark.parametrize("bad", EVERY, ids=lambda bad: bad.name[:60].encode("ascii", "backslashreplace").decode())
def test_a_bad_input_is_a_4xx_with_openais_body(http: httpx.Client, bad: Bad) -> None:
    """The status that is right for it, the four fields, and an id to ask about."""
    answer = http.request(bad.method, bad.path, content=bad.content, headers=bad.headers)
    assert answer.status_code in bad.statuses, answer.text
    if bad.method != "HEAD":
        assert answer.headers["content-type"] == "application/json"
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "code", "param"}
        assert error["message"]
        assert "Traceback" not in answer.text
        assert len(answer.content) < 2000
        if bad.param is not None:
            assert (error["param"] or "").startswith(bad.param)
    if answer.status_code not in {414, 431}:
        assert answer.headers["x-request-id"].startswith("req_")


def test_there_are_enough_of_them() -> None:
    """The catalogue is not cut by accident, and its names tell its rows apart."""
    assert len(EVERY) >= 300
    assert len({(bad.method, bad.path, bad.name) for bad in EVERY}) >= len(EVERY) - 5


def raw(served: Served, sent: bytes, wait_s: float = 40.0) -> bytes:
    """Send bytes and read to the end."""
    parts = urlsplit(served.url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), wait_s) as sock:
        sock.sendall(sent)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := sock.recv(65536):
                got += piece
        return got


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET\r\n\r\n", 400),
        (HEAD + b"Content-Length: abc\r\n\r\n", 400),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        (HEAD + b"Authorization: Bearer a\x00b\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /v1/models HTTP/1.1\r\nX: " + b"y" * 200_000, 431),
        (b"GET /" + b"y" * 200_000, 414),
        (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (HEAD + b"Content-Length: 9999999999\r\n\r\n{", 413),
        (HEAD + b"Content-Length: 100\r\n\r\n{", 408),
        (HEAD, 408),
    ],
)
@pytest.mark.system
def test_what_is_no_http_or_comes_too_slowly_is_refused_and_the_connection_closed(
    served: Served, sent: bytes, status: int
) -> None:
    """A parser's refusal has the same body; nothing after it is read as another request."""
    got = raw(served, sent)
    head, _, body = got.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), got[:200]
    assert b"connection: close" in head.lower()
    assert body.startswith(b'{"error"')


@pytest.mark.parametrize("rest", [b"{}", b""])
def test_a_connection_stays_or_its_end_is_announced(served: Served, rest: bytes) -> None:
    """An answer that did not wait for the body: what comes of it is dropped, else a client's next request is lost."""
    parts = urlsplit(served.url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), 40) as sock:
        sock.sendall(b"POST /v1/nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n")
        sock.sendall(rest)
        first = answered(sock)
        assert (first.status, first.getheader("connection") != "close") == (404, bool(rest))
        if rest:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answered(sock).status == 200


def answered(sock: socket.socket) -> HTTPResponse:
    """Read one answer."""
    answer = HTTPResponse(sock)
    answer.begin()
    answer.read()
    return answer
