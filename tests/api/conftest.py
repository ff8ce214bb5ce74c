"""One served vessel for all tests that leave it as they found it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.api.serving import Served

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Serve without keys, with one worker for every tier."""
    with Served(tmp_path_factory.mktemp("served")) as stack:
        stack.start_worker()
        yield stack.start_api()
