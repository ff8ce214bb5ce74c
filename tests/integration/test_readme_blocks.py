"""README and docs cannot lie: blocks run beside `vessel up --sim`; those marked otherwise name commands that exist."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from tests.integration.forking import Forks
from tests.integration.running_up import Up, listens
from tests.waiting import wait_until
from vessel.cli.main import app
from vessel.dispatch.queues import queues_of
from vessel.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>.+?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
CHECKS = 8
PAGES = ("README.md", "docs/agentic.md", "docs/observe.md", "docs/usage.md")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    kind: str
    text: str
    why_not: str | None
    page: str = "README.md"

    @property
    def commands(self) -> list[list[str]]:
        """Its commands as words."""
        return [shlex.split(line, comments=True) for line in self.text.splitlines() if line.strip()]


BLOCKS = [
    Block(found["kind"], found["text"], found["why"], page)
    for page in PAGES
    for found in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
]


def _named(block: Block) -> str:
    return block.text.splitlines()[0][:40]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Give what the README says is running in another terminal."""
    with Up(tmp_path_factory.mktemp("readme"), flower=True) as running:
        wait_until(lambda: listens(int(running.env["VESSEL_FLOWER_PORT"])), 60)
        yield running


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Give the process that commands and programs are forked from."""
    with Forks(tmp_path_factory.mktemp("forks")) as made:
        yield made


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind in {"sh", "python"} and not b.why_not], ids=_named)
def test_a_block_runs(up: Up, forks: Forks, tmp_path: Path, block: Block) -> None:
    """It ends well and says something."""
    done = forks.run(block.kind, block.text, up.env, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind == "sh" and b.why_not], ids=_named)
def test_a_block_that_is_not_run_names_what_exists(block: Block) -> None:
    """Its make targets, commands, options, tiers and queues are real."""
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    group: Any = get_command(app)
    tiers = load_registry().tiers
    for words in block.commands:
        match words:
            case ["make", target]:
                assert target in targets
            case ["vessel", name, *arguments]:
                with group.commands[name].make_context(name, arguments) as context:
                    named = context.params.get("tiers")
                    assert named is None or set(named.split(",")) <= set(tiers)
            case ["celery", "-A", "workers.app", "worker", "-Q", queues, *_]:
                assert set(queues.split(",")) <= set(queues_of(tiers))
            case ["export", *_] | ["pip", "install", *_]:
                pass
            case ["promtool", _, _, file]:
                assert (ROOT / file).exists()
            case _:
                pytest.fail(f"the README shows a command that no test knows: {words[0]}")


def test_the_demo_in_the_readme_is_a_good_one() -> None:
    """What is shown is the output of a demonstration in which every check held."""
    (shown,) = (block.text for block in BLOCKS if block.kind == "text" and block.page == "README.md")
    assert "simulator" in shown.splitlines()[0]
    assert f"{CHECKS} of {CHECKS} checks hold" in shown


def test_every_link_of_the_readme_leads_somewhere() -> None:
    """Relative links name files that are there."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
