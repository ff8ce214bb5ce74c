"""The image, built from ops/Dockerfile by buildah on a debootstrap base, and its entry point run as its user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.ops.booted import missing, package_folders
from tests.ops.composed import ROOT
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUILDAH = shutil.which("buildah") or ""
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(bool(missing()), reason=missing() or "can boot"),
    pytest.mark.skipif(not BUILDAH, reason="needs buildah: apt-get install buildah"),
]
BASE, IMAGE = "localhost/vessel-test-base", "localhost/vessel-test"


class Images:
    """A storage of images of its own, gone with the test."""

    def __init__(self, folder: Path) -> None:
        """Choose where."""
        self.folder = folder

    def run(self, verb: str, *arguments: str) -> str:
        """Run buildah and give what it wrote."""
        command = [BUILDAH, "--storage-driver", "vfs", "--root", str(self.folder / "root")]
        command += ["--runroot", str(self.folder / "run"), verb, *arguments]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900,
            env={**os.environ, "BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.folder)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def images(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """Make the base out of a debootstrap tree and build the image once."""
    made = Images(tmp_path_factory.mktemp("images"))
    base = made.run("from", "scratch")
    made.run("add", base, str(debian), "/")
    made.run("commit", "--quiet", base, BASE)
    indexes = [part for place in package_folders() for part in ("--volume", f"{place}:{place}:ro")]
    made.run("bud", "--quiet", "--format", "docker", "--network", "host", "--file", "ops/Dockerfile",
             "--build-arg", f"BASE={BASE}", *indexes, "--tag", IMAGE, ".")  # fmt: skip
    yield made
    shutil.rmtree(made.folder, ignore_errors=True)


def test_the_image_is_what_it_says(images: Images) -> None:
    """Not root, a health check, and nothing of what does not belong in it."""
    config = json.loads(images.run("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "/opt/vessel/ops/health.py", "redis"]
    assert config["Cmd"] == ["vessel", "api"]
    assert "/var/lib/vessel" in config["Volumes"]
    assert not [value for value in config["Env"] if "KEY" in value or "PASSWORD" in value]


def test_the_image_runs_as_its_user(images: Images) -> None:
    """Every command of ours starts in it, nothing of it can be written, and no compiler or pip came along."""
    container = images.run("from", IMAGE)

    def inside(*command: str) -> str:
        """Run a command; buildah may lose what was written just before the end, so the end has to be seen."""
        told = ("sh", "-c", '"$@" && echo the-end', "sh", *command)
        run = partial(images.run, "run", "--isolation", "chroot", "--user", "10001:10001", container, "--", *told)
        said = wait_until(lambda: [found for found in (run(),) if found.endswith("the-end")], 60)
        return said[0].removesuffix("the-end").strip()

    assert inside("sh", "-c", "id -u") == "10001"
    assert "Usage" in inside("vessel", "--help")
    for command in ("api", "worker", "scheduler", "simulate"):
        assert "Usage" in inside("vessel", command, "--help")
    assert inside("python", "-c", "import groq_vessel, workers.pool, vessel.api.app; print('whole')") == "whole"
    closed = (
        "for p in /opt/vessel/x /opt/vessel/venv/x /usr/x /etc/x; do touch $p 2>/dev/null && echo open; done; echo end"
    )
    assert inside("sh", "-c", closed) == "end"
    assert inside("sh", "-c", "touch /var/lib/vessel/x && echo writable") == "writable"
    assert inside("sh", "-c", "test -e /opt/vessel/venv/bin/pip || echo none") == "none"
    assert inside("sh", "-c", "ls /src /opt/vessel/secrets 2>/dev/null | wc -l") == "0"
