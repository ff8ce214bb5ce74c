"""The OpenAPI document: complete, with examples, and true of what the server does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.api.serving import Served
from vessel.api.app import create_app
from vessel.api.keys import ApiKey, digest, store
from vessel.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

OPERATIONS = 17
KEY_ID, SECRET = "0" * 16, "k" * 43
load_all_checks()


def document() -> dict[str, Any]:
    """Build the document; no server is needed."""
    return create_app(load_settings({}, redis_url="redis://localhost:1/0")).openapi()


def test_every_operation_is_described_with_examples_and_its_errors() -> None:
    """Summary, description, an example for each body and answer, OpenAI's error body for each refusal."""
    seen = 0
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            seen += 1
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            for status, answer in operation["responses"].items():
                assert answer["description"], where
                for content in answer.get("content", {}).values():
                    assert "example" in content or int(status) >= 400, f"{where} {status}"
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert content["example"], where
    assert seen >= OPERATIONS


def test_the_served_document_is_the_same(served: Served) -> None:
    """It is there for those with a key, under its usual address."""
    with served.http() as client:
        assert client.get("/openapi.json").json()["paths"].keys() == document()["paths"].keys()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve with a key that may not steer, or one example's maintenance would hold all others."""
    with Served(tmp_path_factory.mktemp("fuzzed")) as stack:
        stack.start_worker()
        with stack.inside() as (door, runner):
            runner.run(store(door.keys, ApiKey(KEY_ID, digest(SECRET), "ann")))
        yield stack.start_api()


# A stream without an end is read until the client's patience is over; tests/api/test_console.py follows it.
schema = schemathesis.openapi.from_dict(document()).exclude(path="/v1/console/events")


@schema.parametrize()
@hypothesis.settings(
    max_examples=25, deadline=None, suppress_health_check=list(hypothesis.HealthCheck), derandomize=True
)
@pytest.mark.timeout(300)
def test_the_server_keeps_to_its_document(case: Any, keyed: Served) -> None:
    """No 5xx, no status and no body that the document does not have, and nothing without the key."""
    # No schema says what a cost cap must at least be, which model can do what a request asks for, which tiers there
    # are, or that a span begins before it ends.
    beyond = case.method == "POST" or case.path in {"/v1/jobs", "/v1/usage"}
    semantic = [positive_data_acceptance] if beyond else []
    case.call_and_validate(base_url=keyed.url, excluded_checks=semantic)


@schema.auth()
class Key:
    """The key of the served vessel."""

    def get(self, _case: Any, _context: schemathesis.AuthContext) -> str:
        """Examples are made before the server is, so the key is known beforehand."""
        return f"vsl_{KEY_ID}_{SECRET}"

    def set(self, case: Any, data: str, _context: schemathesis.AuthContext) -> None:
        """Send it."""
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}
