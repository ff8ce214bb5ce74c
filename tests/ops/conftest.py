"""One Debian and one booted machine for all tests that need them."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.ops.booted import Booted, debootstrap

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


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
        booted.await_check()
        yield booted
