"""`vessel demo` as a stranger runs it, and what it does when something is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.integration.running_up import VESSEL, environment, processes_of, vessel
from tests.simulated import Process
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give an environment whose temporary folder can be looked at."""
    temporary = tmp_path / "t"
    temporary.mkdir()
    yield environment(tmp_path / "d", TMPDIR=str(temporary))
    assert [p.name for p in temporary.glob("*/*")] in ([], ["usage_log.jsonl"])


def test_the_demo_shows_itself_and_checks_everything(env: dict[str, str]) -> None:
    """It says first that upstream is simulated, shows both fallbacks, and every check holds."""
    ran = vessel("demo", env=env)
    assert ran.code == 0, ran.out + ran.err
    assert "simulator" in ran.out.splitlines()[0]
    assert "qwen/qwen3.8-27b" in ran.out
    assert "429" in ran.out
    assert "WRONG" not in ran.out
    assert "8 of 8 checks hold" in ran.out
    assert ran.err == "", "silent in a pipe"


def test_the_demo_in_json(env: dict[str, str]) -> None:
    """One document holds everything, and its usage log has a line per job; the user's own settings do not matter.

    A half-done configuration of the machine does not stop the demonstration, nor does it see a real key.
    """
    ran = vessel("demo", "--json", env=env | {"VESSEL_REDIS_URL": "redis://127.0.0.1:1/0", "GROQ_API_KEY": "gsk_x"})
    assert ran.code == 0
    found = ran.document
    assert found["ok"]
    assert found["upstream"] == "simulator"
    assert {(r["asked"], r["why"]) for r in found["rerouted"]} == {
        ("qwen/qwen3.8-27b", "model_gone"), ("openai/gpt-oss-20b", "rate_limited"),
    }  # fmt: skip
    assert sum(share["jobs"] for share in found["by_model"]) == found["jobs"] == found["usage"]["lines"]
    assert {share["tier"] for share in found["by_model"]} == {
        "ultra_fast", "balanced", "power", "speed_demon", "compound", "compound_mini",
    }  # fmt: skip
    assert len(Path(found["usage_log"]).read_text().splitlines()) == found["jobs"]


def test_the_live_demo_spends_little(env: dict[str, str], tmp_path: Path) -> None:
    """With a key it runs its few jobs against the real address, here a simulator's, within its cap."""
    with Process(tmp_path) as simulator:
        groq = {"GROQ_API_KEY": "sim-live", "GROQ_BASE_URL": simulator.url}
        ran = vessel("demo", "--live", "--json", env=env | groq)
    assert ran.code == 0, ran.out + ran.err
    found = ran.document
    assert found["upstream"] == "groq"
    assert found["jobs"] == 8
    assert found["usage"]["cost_usd"] < 0.05


@pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 130, marks=pytest.mark.system), (signal.SIGKILL, -9)],
)
def test_an_interrupted_demo_leaves_no_process(env: dict[str, str], tmp_path: Path, number: int, code: int) -> None:
    """However it ends, what it started ends with it."""
    demo = subprocess.Popen([*VESSEL, "demo"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith(b"Upstream"):
            break
    (folder,) = (tmp_path / "t").glob("vessel-demo-*")
    assert wait_until(lambda: processes_of(folder))
    demo.send_signal(number)
    demo.communicate()
    assert demo.returncode == code
    wait_until(lambda: not processes_of(folder), 40)
    for left in folder.glob("**/*"):
        if left.is_file() or left.is_socket():
            left.unlink()
    for left in sorted(folder.glob("**/*"), reverse=True):
        left.rmdir()


def test_json_is_json() -> None:
    """Bad use of the demonstration is told as a document, too."""
    ran = vessel("demo", "--nope", "--json", env=environment(Path("unused")))
    assert ran.code == 2
    assert json.loads(ran.out)["error"]["code"] == "bad_use"
