"""One served vessel for all tests that leave it as they found it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.serving import Served

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell schemathesis' tests apart: it gives those of all operations one id, and xdist runs an id once."""
    for item in items:
        label = getattr(item, "operation_label", None)
        if label is not None:
            item._id = item.id.with_params(label)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve without keys, with one worker for every tier; webhooks may go to receivers of the tests."""
    with Served(tmp_path_factory.mktemp("served"), VESSEL_WEBHOOK_ALLOW_PRIVATE="on") as stack:
        stack.start_worker()
        yield stack.start_api()
