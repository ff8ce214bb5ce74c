"""Keys, tenants and quotas; what is open without a key; and where Vessel refuses to serve at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.api.serving import BODY, Served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve with keys of two tenants; no worker is needed."""
    with Served(tmp_path_factory.mktemp("keyed")) as stack:
        stack.keys = {name: stack.run_cli("keys", "create", "--tenant", name) for name in ("ann", "bob")}
        stack.keys["chief"] = stack.run_cli("keys", "create", "--admin", "--note", "steers")
        yield stack.start_api()


def client(served: Served, name: str) -> httpx.Client:
    """Open a client with a key."""
    return served.http(headers={"authorization": f"Bearer {served.keys[name]['key']}"})


def operations(served: Served) -> list[tuple[str, str]]:
    """List every method and path of the document, ids filled in."""
    with client(served, "ann") as http:
        paths = http.get("/openapi.json").json()["paths"]
    ids = {"{job_id}": f"job_{'0' * 32}", "{model}": "auto"}
    found = []
    for path, methods in paths.items():
        filled = path
        for name, value in ids.items():
            filled = filled.replace(name, value)
        found += [(method.upper(), filled) for method in methods]
    return [*found, ("GET", "/openapi.json")]


def test_everything_but_health_asks_for_a_key(keyed: Served) -> None:
    """Every operation of the document is 401 without one; `/health` and `/ready` tell the status only."""
    with keyed.http() as http:
        for method, path in operations(keyed):
            answer = http.request(method, path, json=BODY if method in {"POST", "PUT"} else None)
            if path in {"/health", "/ready"}:
                assert set(answer.json()) == {"status"}
            else:
                assert answer.status_code == 401, (method, path)
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
    with client(keyed, "ann") as http:
        assert "workers" in http.get("/health").json()


def wrong_headers(key: str) -> list[Any]:
    """Build headers that must open nothing."""
    last = "A" if key[-1] != "A" else "B"
    return [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Basic dXNlcjpwYXNz")],
        [("authorization", f"Bearer {key[:-1]}{last}")],
        [("authorization", f"Bearer {key}x")],
        [("authorization", f"Bearer {key[:-1]}")],
        [("authorization", key)],
        [("authorization", f"Bearer {key}"), ("authorization", f"Bearer {key}")],
        [("authorization", f"Bearer {key} {key}")],
        [("authorization", "Bearer vsl_" + "0" * 16 + "_" + "A" * 43)],
        [("authorization", "Bearer " + "k" * 10_000)],
        [("authorization", "Bearer kéy".encode())],
        [("x-api-key", key)],
    ]


def test_a_wrong_key_opens_nothing(keyed: Served) -> None:
    """Off by one character, cut, doubled, of another scheme, given twice: 401, and the text tells nothing of it."""
    key = keyed.keys["ann"]["key"]
    for headers in wrong_headers(key):
        with keyed.http() as http:
            answer = http.get("/v1/models", headers=headers)
        assert answer.status_code == 401, headers
        assert key[-20:] not in answer.text
    assert key[10:] not in keyed.log("api")


def test_another_tenants_job_is_absent(keyed: Served) -> None:
    """Byte for byte as one that never was, on every path that takes an id, and in lists and usage."""
    with client(keyed, "ann") as ann, client(keyed, "bob") as bob:
        job_id = ann.post("/v1/jobs", json=BODY).json()["id"]
        assert ann.get(f"/v1/jobs/{job_id}").status_code == 200
        absent = f"job_{'f' * 32}"
        for method, path in [("GET", ""), ("GET", "?wait=5"), ("DELETE", ""), ("POST", "/retry"), ("GET", "/events")]:
            foreign = bob.request(method, f"/v1/jobs/{job_id}{path}")
            missing = bob.request(method, f"/v1/jobs/{absent}{path}")
            assert (foreign.status_code, foreign.content) == (404, missing.content)
        assert bob.get(f"/v1/jobs?after={job_id}").content == bob.get(f"/v1/jobs?after={absent}").content
        assert job_id not in bob.get("/v1/jobs").text
        assert bob.get("/v1/usage").json()["total"]["calls"] == 0
        repeat = {"x-stainless-retry-count": "1"}
        assert bob.post("/v1/jobs", json=BODY, headers=repeat).json()["id"] != job_id
        headers = {"Idempotency-Key": "shared"}
        assert len({http.post("/v1/jobs", json=BODY, headers=headers).json()["id"] for http in (ann, bob)}) == 2
        assert ann.delete(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_only_an_admin_steers(keyed: Served) -> None:
    """Others see maintenance and cannot change it."""
    with client(keyed, "ann") as ann, client(keyed, "chief") as chief:
        assert ann.put("/v1/maintenance", json={}).status_code == 403
        assert ann.delete("/v1/maintenance").json()["error"]["code"] == "permission_denied"
        assert chief.put("/v1/maintenance", json={"tier": "power"}).json()["active"]
        assert ann.get("/v1/maintenance").json()["active"]
        assert not chief.delete("/v1/maintenance").json()["active"]


def test_a_quota_bounds_a_key(keyed: Served) -> None:
    """The one too many is a 429 with `retry-after`, and costs nothing; other keys go on."""
    made = keyed.run_cli("keys", "create", "--tenant", "carl", "--quota", "3/minute; 100/day")
    keyed.keys["carl"] = made
    with client(keyed, "carl") as carl, client(keyed, "ann") as ann:
        statuses = [carl.get("/v1/models/auto").status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        refused = carl.get("/v1/models/auto")
        assert 0 < int(refused.headers["retry-after"]) <= 120
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert ann.get("/v1/models/auto").status_code == 200


def test_a_revoked_or_expired_key_opens_nothing(keyed: Served) -> None:
    """From the moment on; the list shows keys without their secrets."""
    made = keyed.run_cli("keys", "create", "--tenant", "dora")
    keyed.keys["dora"] = made
    keyed.keys["brief"] = keyed.run_cli("keys", "create", "--expires", "1ms")
    with client(keyed, "dora") as dora, client(keyed, "brief") as brief:
        assert dora.get("/v1/models/auto").status_code == 200
        assert brief.get("/v1/models/auto").status_code == 401
        assert keyed.run_cli("keys", "revoke", made["id"])["revoked"]
        assert dora.get("/v1/models/auto").status_code == 401
    with keyed.inside() as (door, runner):
        kept = str(runner.client.hgetall(door.keys.api_keys))
    assert all(key["key"][21:] not in kept for key in keyed.keys.values())


def test_without_keys_a_dead_key_and_a_proxy_s_callers_are_refused(tmp_path: Path) -> None:
    """This machine needs no key, but one that was revoked opens nothing, and a proxy here speaks for others."""
    with Served(tmp_path) as stack:
        stack.start_api()
        made = stack.run_cli("keys", "create")
        revoked = stack.cli("keys", "revoke", made["id"])
        assert (revoked.returncode, "the last key" in revoked.stderr) == (0, True)
        with stack.http() as http:
            given: tuple[dict[str, str], ...] = (
                {},
                {"authorization": "Bearer any"},
                {"authorization": f"Bearer {made['key']}"},
            )
            assert [http.get("/v1/models/auto", headers=h).status_code for h in given] == [200, 200, 401]
            for name in ("forwarded", "via", "x-forwarded-for", "x-real-ip"):
                refused = http.get("/v1/models/auto", headers={name: "192.0.2.1"})
                assert (refused.status_code, "no API keys yet" in refused.text) == (401, True), name


def test_off_loopback_without_a_key_it_refuses_to_start(tmp_path: Any) -> None:
    """Exit 2 with the cure; a key file is one, and its key may do everything."""
    with Served(tmp_path) as stack:
        done = stack.cli("api", "--host", "0.0.0.0")  # noqa: S104  that is the case
        assert done.returncode == 2
        assert "vessel keys create" in done.stderr
        file = tmp_path / "key"
        file.write_text("short")
        done = stack.cli("api", VESSEL_API_KEY_FILE=str(file))
        assert (done.returncode, "VESSEL_API_KEY_FILE" in done.stderr) == (2, True)
        file.write_text("vsl_first-key-0123456789abcdef\n")
        stack.start_api("--host", "0.0.0.0", VESSEL_API_KEY_FILE=str(file))  # noqa: S104  the same
        url = stack.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  the same
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"authorization": "Bearer vsl_first-key-0123456789abcdef"}
        assert httpx.put(f"{url}/v1/maintenance", json={}, headers=headers).status_code == 200
        file.write_text("vsl_second-key-0123456789abcdef\n")
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 401


def test_without_keys_no_page_of_elsewhere_may_call(served: Served) -> None:
    """Nor one that has its own name lead here; an address or a name of this machine passes."""
    with served.http() as http:
        assert http.get("/v1/models/auto", headers={"origin": "https://evil.example"}).status_code == 403
        assert http.get("/v1/models/auto", headers={"origin": served.url}).status_code == 200
        assert http.get("/v1/models/auto", headers={"host": "evil.example"}).status_code == 400
        assert http.get("/v1/models/auto", headers={"host": "localhost:1"}).status_code == 200
        assert http.get("/v1/models/auto", headers={"host": "[::1]:80"}).status_code == 200
        answer = http.options("/v1/models", headers={"origin": served.url, "access-control-request-method": "GET"})
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]
