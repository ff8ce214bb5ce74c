"""One Debian and one booted machine for all tests that need them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.ops.booted import Booted, debootstrap
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAST = "ends_the_machine"


def pytest_configure(config: pytest.Config) -> None:
    """Name what is ours."""
    config.addinivalue_line("markers", f"{LAST}: takes away what the other tests of the machine need, so it comes last")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the end for the end: everything else comes in any order."""
    items.sort(key=lambda item: item.get_closest_marker(LAST) is not None)


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Make a Debian once, to be copied."""
    folder = tmp_path_factory.mktemp("debian")
    yield debootstrap(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def machine(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """Install and boot once."""
    with Booted(debian, tmp_path_factory.mktemp("boot")) as booted:
        wait_until(lambda: booted.show("vessel-check", "SubState") == "exited", 120)
        yield booted
