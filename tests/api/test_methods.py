"""What an address takes: HEAD as GET without its body, OPTIONS, and `allow` with all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.serving import BODY

if TYPE_CHECKING:
    from tests.api.serving import Served

ALL = {
    "/v1/chat/completions": "POST, OPTIONS",
    "/v1/models/openai/gpt-oss-20b": "GET, HEAD, OPTIONS",
    "/v1/jobs": "GET, POST, HEAD, OPTIONS",
    f"/v1/jobs/job_{'0' * 32}": "DELETE, GET, HEAD, OPTIONS",
    "/openai/v1/maintenance": "DELETE, GET, PUT, HEAD, OPTIONS",
    "/v1/files": "GET, POST, HEAD, OPTIONS",
    f"/openai/v1/batches/batch_{'0' * 32}/cancel": "POST, OPTIONS",
    "/health": "GET, HEAD, OPTIONS",
}


@pytest.mark.parametrize("path", ALL)
def test_an_address_names_every_method_it_takes(served: Served, path: str) -> None:
    """In a 405, also where several routes share the address, and for OPTIONS."""
    with served.http() as http:
        refused = http.request("PATCH", path)
        assert (refused.status_code, refused.headers["allow"]) == (405, ALL[path])
        assert refused.json()["error"]["code"] == "method_not_allowed"
        asked = http.options(path)
        assert (asked.status_code, asked.headers["allow"], asked.content) == (204, ALL[path], b"")
        asks_to_be_let_in = {"origin": "https://elsewhere.example", "access-control-request-method": "GET"}
        cors = http.options(path, headers=asks_to_be_let_in)
        assert cors.status_code == 405
        assert not [name for name in cors.headers if name.startswith("access-control")]


def test_head_is_get_without_its_body(served: Served) -> None:
    """Status and headers are the same; what would stream ends with its headers, and the connection goes on."""
    with served.http() as http:
        job_id = http.post("/v1/jobs", json=BODY).json()["id"]
        for path in ("/health", "/v1/models", "/openapi.json", f"/v1/jobs/{job_id}/events", "/metrics"):
            head = http.head(path)
            assert (head.status_code, head.content) == (200, b""), path
        assert http.head("/v1/models").headers["content-length"] == str(len(http.get("/v1/models").content))
        assert http.head(f"/v1/jobs/job_{'0' * 32}").status_code == 404
        assert http.head("/v1/nothing").status_code == 404
        assert http.head("/v1/chat/completions").status_code == 405
        assert http.options("/v1/nothing").status_code == 404
