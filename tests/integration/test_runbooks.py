"""The runbooks and what they are read with: commands that exist, links that lead somewhere, and blocks that run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types
from typer.main import get_command

from tests.integration.running_up import Up
from vessel.cli.main import app
from vessel.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RUNBOOKS = sorted((ROOT / "ops" / "runbooks").glob("*.md"))
PAGES = [*RUNBOOKS, ROOT / "docs" / "operate.md"]
BLOCK = re.compile(r"(?P<why><!-- not run: .+? -->\n)?^```sh\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
UNITS = {
    "redis",
    "api",
    "scheduler",
    "mcp",
    "flower",
    "worker@fast",
    "worker@power",
    "worker@compound",
    "worker@*",
    "*",
}
PROGRAMS = {"redis-cli", "redis-check-aof", "journalctl", "ls", "cp", "mv", "install", "git", "make", "export", "set",
            ".", "/opt/vessel/venv/bin/pip", "/opt/src/vessel/ops/install.sh", "ops/install.sh",
            "ops/replace_worker.sh"}  # fmt: skip
STEPS = ("**Symptom.**", "## Look", "## Do", "## Verify")
CAUSES = {"unresponsive", "corrupted-install", "compromised-key", "redis-full", "redis-lost", "limit-changed",
          "model-retired", "backlog-too-long", "worker-version-skew"}  # fmt: skip


def _blocks(page: Path) -> list[tuple[bool, str]]:
    return [(not found["why"], found["text"]) for found in BLOCK.finditer(page.read_text("utf-8"))]


def _named(page: Path) -> str:
    return page.stem


def test_there_is_one_for_each_cause() -> None:
    """And each is built alike, so that a tired reader finds the place."""
    assert {page.stem for page in RUNBOOKS} == CAUSES
    for page in RUNBOOKS:
        text = page.read_text("utf-8")
        places = [text.find(step) for step in STEPS]
        assert places == sorted(places), page.name
        assert min(places) > 0, page.name


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_every_command_exists(page: Path) -> None:
    """Commands of ours with their options, units, and programs of the system that are known."""
    for _, text in _blocks(page):
        for line in text.splitlines():
            for words in _commands(line):
                _check(words)


def _commands(line: str) -> list[list[str]]:
    words = shlex.split(line, comments=True)
    found: list[list[str]] = [[]]
    for word in words:
        if word in {"&&", "|"}:
            found.append([])
        else:
            found[-1].append(word)
    return [one for one in found if one]


def _check(words: list[str]) -> None:
    match words:
        case ["vessel" | "/opt/vessel/venv/bin/vessel", *arguments]:
            _check_ours(arguments)
        case ["systemctl", *rest]:
            named = [word for word in rest[0 if rest[0].startswith("-") else 1 :] if word.startswith("vessel")]
            assert named, words
            assert {word.removeprefix("vessel-").removesuffix(".service") for word in named} <= UNITS | {
                "vessel.target"
            }
        case ["ops/verify_boot.sh", *arguments]:
            _check_ours(["check", *arguments])
        case ["rm", "-rf", target]:
            assert target == "/opt/vessel/releases"
        case [program, *_]:
            assert program in PROGRAMS, words


def _check_ours(arguments: list[str]) -> None:
    group: Any = get_command(app)
    if arguments[0] == "--version":
        return
    command: Any = group.commands[arguments[0]]
    rest = arguments[1:]
    if hasattr(command, "commands"):
        command, rest = command.commands[rest[0]], rest[1:]
    # Files that are named need not be there.
    rest = [str(ROOT / "README.md") if word.endswith(".vbk") else word for word in rest]
    with command.make_context(arguments[0], rest) as context:
        tiers = context.params.get("tiers")
        assert tiers is None or set(tiers.split(",")) <= set(load_registry().tiers)


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Relative links name files, and headings within them."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text("utf-8")):
        path, _, heading = target.partition("#")
        named = page if not path else (page.parent / path).resolve()
        assert named.exists(), target
        headings = re.findall(r"^#+ (.+)$", named.read_text("utf-8"), re.MULTILINE)
        assert not heading or heading in {title.lower().replace(" ", "-") for title in headings}, target


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Give a vessel to run them beside."""
    with Up(tmp_path_factory.mktemp("runbooks")) as running:
        yield running


@pytest.mark.system
@pytest.mark.parametrize("page", RUNBOOKS, ids=_named)
def test_what_can_be_run_runs(up: Up, tmp_path: Path, page: Path) -> None:
    """Every block of a runbook that is not marked ends well beside a vessel that is well."""
    for runs, text in _blocks(page):
        if runs:
            done = subprocess.run(
                ["/bin/bash", "-euo", "pipefail", "-c", text], cwd=tmp_path, capture_output=True, text=True, timeout=90,
                check=False, env=up.env | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
            )  # fmt: skip
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


def test_the_scaling_example_is_one() -> None:
    """It names metrics that are exported, tiers and models that exist, and scales within bounds."""
    found = yaml.safe_load((ROOT / "ops" / "keda.yaml").read_text("utf-8"))
    assert (found["apiVersion"], found["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    spec = found["spec"]
    assert 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "prometheus"
    assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA takes texts"
    query = trigger["metadata"]["query"]
    names = (ROOT / "vessel" / "observe" / "metrics.py").read_text("utf-8")
    assert all(f'"{metric}"' in names for metric in re.findall(r"vessel_\w+", query))
    registry = load_registry()
    (tiers,) = re.findall(r'tier=~"([^"]+)"', query)
    assert set(tiers.split("|")) <= set(registry.tiers)
    assert set(re.findall(r'model="([^"]+)"', query)) <= set(registry.models)
