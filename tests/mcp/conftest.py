"""One vessel with an MCP server for all tests that leave it as they found it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.mcp.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Serve without keys, with one worker for every tier."""
    with Standing(tmp_path_factory.mktemp("mcp")) as stack:
        stack.start_worker()
        stack.mcp_url = stack.start_mcp()
        yield stack
