"""Who may speak MCP over HTTP: keys, tenants, quotas, origins and hosts; and what is refused before it is served."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from mcp.shared.exceptions import MCPError

from tests.mcp.standing import HEADERS, INITIALIZE, VESSEL, headers, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mcp.standing import Standing

pytestmark = pytest.mark.anyio
NAMESPACE = "keyed"


@pytest.fixture(scope="module")
def keyed(standing: Standing) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve, as part of the REST API, a vessel with keys of two tenants in a namespace of its own."""
    keys = {name: standing.key(name, NAMESPACE) for name in ("ann", "bob")}
    keys["few"] = standing.key("few", NAMESPACE, quota="3/minute")
    standing.start_api(VESSEL_NAMESPACE=NAMESPACE)
    yield f"{standing.url}/mcp", keys
    standing.stop_api()


async def test_without_a_key_nothing_is_said(keyed: tuple[str, dict[str, str]]) -> None:
    """401 in both protocols, with the scheme."""
    url, _ = keyed
    async with httpx.AsyncClient() as http:
        for body, sent in ((INITIALIZE, HEADERS), (request("tools/list"), headers("tools/list"))):
            for more in ({}, {"authorization": "Bearer vsl_0123456789abcdef_wrong"}):
                answer = await http.post(url, json=body, headers=sent | more)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
                assert "vessel keys create" in answer.json()["error"]["message"]


async def test_tenants_do_not_see_each_other(standing: Standing, keyed: tuple[str, dict[str, str]]) -> None:
    """Another's job or batch is one that is not there: by tool, resource, completion and session."""
    url, keys = keyed
    async with standing.client(url, key=keys["ann"]) as ann, standing.client(url, key=keys["bob"]) as bob:
        job: Any = (await ann.call_tool("submit_job", {"prompt": "mine"})).structured_content
        batch: Any = (await ann.call_tool("submit_batch", {"requests": [{"prompt": "mine"}]})).structured_content
        for name, arguments in {
            "get_job": {"job_id": job["job_id"]},
            "cancel_job": {"job_id": job["job_id"]},
            "get_batch": {"batch_id": batch["batch_id"]},
        }.items():
            assert (await bob.call_tool(name, arguments)).is_error, name
            assert not (await ann.call_tool(name, arguments)).is_error, name
        with pytest.raises(MCPError, match="Resource not found"):
            await bob.read_resource(f"vessel://jobs/{job['job_id']}")
    async with httpx.AsyncClient() as http:
        opened = await http.post(url, json=INITIALIZE, headers=HEADERS | {"authorization": f"Bearer {keys['ann']}"})
        foreign = {"mcp-session-id": opened.headers["mcp-session-id"], "authorization": f"Bearer {keys['bob']}"}
        body = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        assert (await http.post(url, json=body, headers=HEADERS | foreign)).status_code == 404


async def test_a_quota_is_told_as_an_error_of_the_tool(standing: Standing, keyed: tuple[str, dict[str, str]]) -> None:
    """Calls count, looking around does not; the error says when to come back."""
    url, keys = keyed
    async with standing.client(url, key=keys["few"]) as client:
        for _ in range(3):
            await client.list_tools()
            assert not (await client.call_tool("health", {})).is_error
        refused = await client.call_tool("health", {})
        assert refused.is_error
        assert "Come back in" in refused.content[0].text  # type: ignore[union-attr]  # a text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1.evil.example"}, 403),
        ({"host": "evil.example"}, 400),
        ({"host": "127.0.0.1.evil.example"}, 400),
        ({"origin": "http://localhost", "host": "localhost"}, 200),
        ({}, 200),
    ],
)
async def test_pages_and_names_of_elsewhere_are_refused(standing: Standing, sent: dict[str, str], status: int) -> None:
    """No page in this user's browser may call, nor one whose name was made to lead here."""
    async with httpx.AsyncClient() as http:
        answer = await http.post(standing.mcp_url, json=request("tools/list"), headers=headers("tools/list") | sent)
        assert answer.status_code == status


async def test_a_page_is_refused_with_a_key_too(keyed: tuple[str, dict[str, str]]) -> None:
    """The specification asks for it."""
    url, keys = keyed
    sent = {"authorization": f"Bearer {keys['ann']}", "origin": "http://evil.example"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(url, json=request("tools/list"), headers=headers("tools/list") | sent)
        assert answer.status_code == 403


BROKEN: list[tuple[bytes, dict[str, str], int]] = [
    (b"junk", HEADERS, 400),
    (b"[]", HEADERS, 400),
    (json.dumps([INITIALIZE]).encode(), HEADERS, 400),
    (b"junk", headers("tools/list"), 400),
    (json.dumps(request("no/such")).encode(), headers("no/such"), 404),
    (json.dumps(request("tools/list")).encode(), headers("tools/call"), 400),
    (json.dumps(request("tools/list")).encode(), headers("tools/list") | {"mcp-protocol-version": "1999-01-01"}, 400),
    (json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode(), headers("tools/list"), 400),
    (b'{"a":"' + b"x" * (21 << 20) + b'"}', HEADERS, 413),
]


async def test_what_is_no_message_is_refused(standing: Standing) -> None:
    """Always with an error that says so, and the server goes on."""
    async with httpx.AsyncClient() as http:
        for body, sent, status in BROKEN:
            answer = await http.post(
                standing.mcp_url, content=body, headers=sent | {"content-type": "application/json"}
            )
            assert (answer.status_code, "error" in answer.json()) == (status, True), body[:40]
        answer = await http.post(standing.mcp_url, json=request("tools/list"), headers=headers("tools/list"))
        assert answer.status_code == 200


FAULTS: list[tuple[dict[str, str], int, str]] = [
    ({"VESSEL_REDIS_URL": ""}, 3, "No Redis is known"),
    ({"VESSEL_MCP_PROT": "1"}, 2, "VESSEL_MCP_PORT"),
]


@pytest.mark.parametrize(("env", "code", "words"), FAULTS)
def test_what_is_missing_is_said_on_standard_error(
    standing: Standing, tmp_path: Any, env: dict[str, str], code: int, words: str
) -> None:
    """Standard output is the protocol's alone."""
    given = standing.environment() | {"VESSEL_DATA_DIR": str(tmp_path)} | env
    given = {name: value for name, value in given.items() if value}
    done = subprocess.run([*VESSEL, "mcp"], env=given, input=b"", capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr
