"""The pages on installing: their blocks need root, Docker or systemd, so what they name is checked instead of run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("docs/install.md", "docs/scale-out.md")
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOUND = [(page, mark, text) for page in PAGES for mark, text in BLOCK.findall((ROOT / page).read_text("utf-8"))]


@pytest.mark.parametrize(("page", "mark", "text"), FOUND)
def test_a_block_is_marked_and_names_what_there_is(page: str, mark: str, text: str) -> None:
    """It says why it is not run, a shell can read it, and its files, units and options exist."""
    assert mark, f"{page}: {text[:60]}"
    subprocess.run(["/bin/sh", "-n"], input=text, text=True, check=True)
    for path in re.findall(r"(?<![\w/])ops/[\w./]+", text):
        assert (ROOT / path).exists(), path
    units = {file.name for file in (ROOT / "ops" / "systemd").iterdir()}
    for unit in re.findall(r"(?<![\w/])vessel-(?!service|\*)[a-z]+@?", text):
        assert any(name.startswith(unit) for name in units), unit
    for option in re.findall(r"(?:install|uninstall|make_secrets)\.sh.*?(--[a-z-]+)", text):
        scripts = "".join(
            (ROOT / "ops" / f"{name}.sh").read_text() for name in ("install", "uninstall", "make_secrets")
        )
        assert option in scripts, option


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_path_of_a_page_exists(page: str) -> None:
    """Links between pages, and files in the text."""
    text = (ROOT / page).read_text("utf-8")
    for link in re.findall(r"\]\(([\w./-]+\.md)\)", text):
        assert (ROOT / "docs" / link).exists(), link
    for path in re.findall(r"`((?:ops|tests)/[\w./]+)`", text):
        assert (ROOT / path).exists(), path


def test_the_scripts_are_shell_and_say_how_they_are_used() -> None:
    """A wrong option tells the usage and exits 2, before anything is done."""
    for script in (ROOT / "ops").glob("*.sh"):
        subprocess.run(["/bin/sh", "-n", script], check=True)
    for name in ("install", "uninstall", "make_secrets"):
        done = subprocess.run(
            [ROOT / "ops" / f"{name}.sh", "--nonsense"], capture_output=True, text=True, check=False, timeout=20
        )
        assert done.returncode == 2, name
        assert f"ops/{name}.sh" in done.stderr
    alone = subprocess.run([ROOT / "ops" / "install.sh", "--keep-redis"], capture_output=True, check=False, timeout=20)
    assert alone.returncode == 2, "it says nothing without an address"
