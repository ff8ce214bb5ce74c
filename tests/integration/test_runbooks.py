"""The runbooks and what they are read with: commands that exist, and links that lead somewhere.

Blocks that can be run are, in test_readme_blocks.py.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types
from typer.main import get_command

from vessel.cli.main import app
from vessel.registry import load_registry

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
            "ops/replace_worker.sh", "/opt/vessel/ops/replace_worker.sh"}  # fmt: skip
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
        case ["sudo", *rest]:
            _check(rest)
        case ["vessel" | "vessel-service" | "/opt/vessel/venv/bin/vessel", *arguments]:
            _check_ours(arguments)
        case ["systemctl", *rest]:
            named = [word for word in rest[0 if rest[0].startswith("-") else 1 :] if word.startswith("vessel")]
            assert named, words
            assert {word.removeprefix("vessel-").removesuffix(".service") for word in named} <= UNITS | {
                "vessel.target"
            }
        case ["ops/verify_boot.sh" | "/opt/vessel/ops/verify_boot.sh", *arguments]:
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
