"""README and docs cannot lie: blocks run beside `vessel up --sim`; those marked otherwise name commands that exist.

A guide is run from its top to its end in one shell, as its reader would; where it shows an output right behind a block,
that is what the block gave.
"""

from __future__ import annotations

import doctest
import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from typer.main import get_command

from tests.integration.forking import Forks
from tests.integration.running_up import PROCESSES_WITH_METRICS, Up, listens
from tests.waiting import wait_until
from vessel.cli.commands.examples import EXAMPLES
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
GUIDES = (
    "docs/batch.md",
    "docs/budgets.md",
    "docs/failover.md",
    "docs/faq.md",
    "docs/interactive.md",
    "docs/maintenance.md",
)
RUNBOOKS = ("docs/operate.md", *sorted(f"ops/runbooks/{path.name}" for path in (ROOT / "ops/runbooks").glob("*.md")))
"""Run here as guides are; what they only name is checked in test_runbooks.py."""

ELSEWHERE = {
    "docs/cli.md": "tests/integration/test_readme_blocks.py",
    "docs/client.md": "tests/integration/test_client_end_to_end.py",
    "docs/webhooks.md": "tests/integration/test_webhook_docs.py",
}
"""Pages whose blocks are run by tests of their own."""

END_OF_BLOCK = "\x1e"
FIGURES = re.compile(r"(?:job|batch|file)[_-][0-9a-f]{32}|\d[\d,.:]*")
CURL = shutil.which("curl")
SHAPES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block."""

    kind: str
    text: str
    why_not: str | None
    page: str = "README.md"
    start: int = 0
    end: int = 0

    @property
    def runs(self) -> bool:
        """Tell whether it is code that is run."""
        return self.kind in {"sh", "python"} and not self.why_not

    @property
    def shell(self) -> str:
        """Give it as a part of a shell script that marks its end."""
        text = self.text if self.kind == "sh" else f"python {shlex.quote(self.text)}\n"
        return f"{text}printf '{END_OF_BLOCK}'\n"

    @property
    def commands(self) -> list[list[str]]:
        """Its commands as words."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [shlex.split(line, comments=True) for line in lines if line.strip()]


def _blocks(page: str) -> Iterator[Block]:
    for found in BLOCK.finditer((ROOT / page).read_text(encoding="utf-8")):
        yield Block(found["kind"], found["text"], found["why"], page, found.start(), found.end())


BLOCKS = [block for page in PAGES for block in _blocks(page)]


def _named(block: Block) -> str:
    return block.text.splitlines()[0][:40]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Give what the README says is running in another terminal."""
    with Up(tmp_path_factory.mktemp("readme"), flower=True) as running:
        first = int(running.env["VESSEL_METRICS_PORT"])
        served = [int(running.env["VESSEL_FLOWER_PORT"]), *range(first, first + PROCESSES_WITH_METRICS)]
        wait_until(lambda: all(map(listens, served)), 60)
        yield running


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Give the process that commands and programs are forked from."""
    with Forks(tmp_path_factory.mktemp("forks")) as made:
        yield made


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.runs], ids=_named)
def test_a_block_runs(up: Up, forks: Forks, tmp_path: Path, block: Block) -> None:
    """It ends well and says something."""
    done = forks.run(block.kind, block.text, up.env, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("page", [*GUIDES, *RUNBOOKS])
def test_a_guide_does_what_it_says(up: Up, forks: Forks, tmp_path: Path, page: str) -> None:
    """Its blocks end well, one after the other, and give what it shows, but for figures and ids."""
    blocks = list(_blocks(page))
    run = [block for block in blocks if block.runs and (CURL or "curl " not in block.text)]
    assert run
    wait_until(lambda: nobody_waits(up), 30)
    script = "exec 2>&1\n" + "".join(block.shell for block in run)
    script = script.replace("127.0.0.1:8080", f"127.0.0.1:{up.env['VESSEL_API_PORT']}")
    done = forks.run("sh", script, up.env | {"TZ": "UTC"}, tmp_path)
    given = done.stdout.split(END_OF_BLOCK)
    assert done.returncode == 0, f"{run[len(given) - 1].text}\n{given[-1]}"
    shown = {block.start - len("\n\n"): block.text for block in blocks if block.kind == "text" and not block.why_not}
    for block, got in zip(run, given, strict=False):
        want = shown.pop(block.end, None)
        if want is not None:
            assert doctest.OutputChecker().check_output(_shape(want), _shape(got), SHAPES), f"{block.text}\n{got}"
    assert not (shown and CURL), "an output is shown that no block gave"


def test_every_block_is_run_or_says_why_not() -> None:
    """Code on a page that no test knows would rot."""
    known = {*PAGES, *GUIDES, *RUNBOOKS, *ELSEWHERE}
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "ops").rglob("*.md")]
    names = [str(path.relative_to(ROOT)) for path in pages]
    assert [name for name in names if name not in known and any(block.runs for block in _blocks(name))] == []
    for name, test in ELSEWHERE.items():
        assert Path(name).name in (ROOT / test).read_text(encoding="utf-8")


def nobody_waits(up: Up) -> bool:
    """Tell whether the jobs of other blocks have left their queues."""
    answer = httpx.get(f"http://127.0.0.1:{up.env['VESSEL_API_PORT']}/v1/maintenance")
    return bool(answer.json()["held"]["total"] == 0)


def _shape(text: str) -> str:
    """Leave out what differs from run to run."""
    return "\n".join(line.rstrip() for line in FIGURES.sub("0", text).splitlines() if line.strip()) + "\n"


@pytest.mark.parametrize(
    "block", [b for page in (*PAGES, *GUIDES) for b in _blocks(page) if b.kind == "sh" and b.why_not], ids=_named
)
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
            case ["export" | "curl", *_] | ["pip", "install", *_] | ["sudo", "install" | "sed" | "vessel-service", *_]:
                pass
            case ["promtool", *_, file]:
                assert (ROOT / file).exists()
            case _:
                pytest.fail(f"the README shows a command that no test knows: {words[0]}")


STAYS = {
    "demo",
    "up",
    "worker",
    "scheduler",
    "api",
    "mcp",
    "flower",
    "simulate",
    "limits --watch",
    "restore",
    "models --refresh",
}
"""Examples that do not end, start a vessel of their own, need an empty one, or a key."""

ENDS_WITH = {"cancel": 1, "batch cancel": 1, "webhooks retry": 1}
"""What there is nothing to do for says so."""


def test_every_command_has_examples_that_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With options that exist, in the help of the command, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vessel.vbk").touch()
    group: Any = get_command(app)
    commands = {
        name if one is command else f"{name} {verb}": one
        for name, command in group.commands.items()
        for verb, one in getattr(command, "commands", {"": command}).items()
    }
    assert set(EXAMPLES) == set(commands)
    for name, examples in EXAMPLES.items():
        for example in examples:
            assert example in commands[name].epilog
            words = shlex.split(example.partition(" | ")[0].partition(" < ")[0].partition(" > ")[0])
            assert words[: 1 + len(name.split())] == ["vessel", *name.split()]
            commands[name].make_context(name, words[1 + len(name.split()) :])


def test_the_examples_of_the_manual_run(up: Up, forks: Forks, tmp_path: Path) -> None:
    """All that end; one after the other, with ids that are there."""
    request = {"model": "balanced", "messages": [{"role": "user", "content": "hi"}]}
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": request}
    for name, text in {"work.jsonl": json.dumps(request), "batch.jsonl": json.dumps(line), "prompt.txt": "hi"}.items():
        (tmp_path / name).write_text(f"{text}\n", "utf-8")
    script = "job=$(vessel submit hi); batch=$(vessel batch submit batch.jsonl)\n"
    script += 'vessel wait "$job"; vessel batch watch "$batch"\n'
    for name, examples in EXAMPLES.items():
        if name == "keys revoke":
            script += "key=$(vessel keys list --json | grep -o '[0-9a-f]\\{16\\}')\n"
        for example in examples:
            if not any(example.startswith(f"vessel {stays}") for stays in STAYS):
                script += f"{example} || [ $? = {ENDS_WITH.get(name, 0)} ]\nprintf '{END_OF_BLOCK}'\n"
    done = forks.run("sh", f"{script}vessel budget clear\n", up.env, tmp_path)
    assert done.returncode == 0, f"{script.split(END_OF_BLOCK)[done.stdout.count(END_OF_BLOCK)]}{done.stderr}"
    (workflow,) = [block for block in _blocks("docs/cli.md") if block.kind == "sh" and block.why_not]
    done = forks.run("sh", workflow.text.partition("\n")[2], up.env, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_demo_in_the_readme_is_a_good_one() -> None:
    """What is shown is the output of a demonstration in which every check held."""
    (shown,) = (block.text for block in BLOCKS if block.kind == "text" and block.page == "README.md")
    assert "simulator" in shown.splitlines()[0]
    assert f"{CHECKS} of {CHECKS} checks hold" in shown


@pytest.mark.parametrize("page", ["README.md", "docs/README.md", "docs/cli.md", *GUIDES])
def test_every_link_leads_somewhere(page: str) -> None:
    """Relative links name files that are there, and headings in them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    assert links
    for link in links:
        path, _, heading = link.partition("#")
        named = (ROOT / page).parent / path if path else ROOT / page
        assert named.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", named.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def test_every_page_of_the_docs_is_in_their_index() -> None:
    """So that a reader finds it."""
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages == {name for name in pages if f"]({name})" in index}
