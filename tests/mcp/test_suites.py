"""The inspector's command line and the conformance suite, both from npm with the node that they want."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.stack import free_port
from tests.mcp.standing import VESSEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mcp.standing import Standing

NPM = shutil.which("npm") or ""
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not NPM, reason="npm is not installed"),
]
ROOT = Path(__file__).parents[2]
PACKAGES = ("node@24", "@modelcontextprotocol/inspector@2.12.0", "@modelcontextprotocol/conformance@0.2.0-alpha.12")
NOT_OURS = re.compile("input-required-result-")
"""Scenarios of servers that ask their clients for something, which no tool of ours does (docs/decisions/mcp.md)."""
TASKS = ("tasks-lifecycle", "tasks-capability-negotiation", "tasks-wire-fields", "tasks-request-state-removal",
         "tasks-request-headers", "tasks-dispatch-and-envelope")  # fmt: skip
PASSED = re.compile(r"^([✓✗]) ([\w-]+): (\d+) passed, (\d+) failed", re.MULTILINE)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the packages; gives the folder."""
    folder = Path(os.environ.get("VESSEL_TEST_NPM") or tmp_path_factory.mktemp("npm"))
    if not (folder / "node_modules").exists():
        subprocess.run([NPM, "install", "--no-audit", "--no-fund", *PACKAGES], cwd=folder, check=True, timeout=500)
    return folder


def run(node: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program of a package."""
    path = f"{node}/node_modules/node/bin:{os.environ['PATH']}"
    first, *rest = command
    return subprocess.run(
        [f"{node}/node_modules/node/bin/node", f"{node}/node_modules/.bin/{first}", *rest],
        env=os.environ | {"PATH": path, "NO_COLOR": "1"} | env,
        capture_output=True, text=True, timeout=500, check=False, cwd=node,
    )  # fmt: skip


@pytest.fixture(scope="module")
def profile(standing: Standing) -> Iterator[str]:
    """Serve the suite's names; gives the address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.mcp.profile", str(free_port())], env=standing.environment(), cwd=ROOT,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    yield f"{process.stdout.readline().split()[-1]}/mcp"
    process.terminate()
    process.wait(30)
    process.stdout.close()


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25", "2026-07-28"])
def test_the_server_conforms(node: Path, profile: str, version: str) -> None:
    """Every scenario of a version that is about what we serve."""
    done = run(node, "conformance", "server", "--url", profile, "--suite", "all", "--spec-version", version)
    found = {name: (int(passed), int(failed)) for _, name, passed, failed in PASSED.findall(done.stdout)}
    assert len(found) > 20, done.stdout + done.stderr
    failed = {name: counts for name, counts in found.items() if counts[1] and not NOT_OURS.match(name)}
    assert failed == {}


@pytest.mark.parametrize("scenario", TASKS)
def test_tasks_conform(node: Path, profile: str, scenario: str) -> None:
    """Those that ask for no input meanwhile."""
    done = run(node, "conformance", "server", "--url", profile, "--scenario", scenario)
    assert re.search(r"Passed: (\d+)/\1, 0 failed, 0 warnings", done.stdout), done.stdout


def inspected(node: Path, target: list[str], *asked: str, **env: str) -> Any:
    """Ask by the inspector."""
    done = run(node, "mcp-inspector", "--cli", *target, *asked, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_the_inspector_agrees(node: Path, standing: Standing, transport: str) -> None:
    """It lists, calls, reads and gets; `--strict` finds no schema that some client could not read."""
    env = standing.environment()
    target = [*VESSEL, "mcp"] if transport == "stdio" else [standing.mcp_url, "--transport", "http"]
    settings = [part for name in ("VESSEL_REDIS_URL", "VESSEL_DATA_DIR", "PYTHONPATH") if name in env
                for part in ("-e", f"{name}={env[name]}")]  # fmt: skip
    target = [*settings, *target] if transport == "stdio" else target
    tools = inspected(node, target, "--method", "tools/list", "--strict")["tools"]
    assert len(tools) == 14
    called = inspected(node, target, "--method", "tools/call", "--tool-name", "query", "--tool-arg", "prompt=hello")
    assert called["structuredContent"]["text"]
    read = inspected(node, target, "--method", "resources/read", "--uri", "vessel://tiers")
    assert json.loads(read["contents"][0]["text"])
    got = inspected(
        node, target, "--method", "prompts/get", "--prompt-name", "analyze", "--prompt-args", "subject=markets"
    )
    assert "markets" in got["messages"][0]["content"]["text"]
