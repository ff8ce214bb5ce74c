"""`vessel batch` against a Redis without workers: what is printed, kept and refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.integration.running_up import Ran, environment
from vessel.cli import main
from vessel.cli.batches import finish
from vessel.client import GroqClient
from vessel.gate.learn import Started, learn
from vessel.gate.limiter import Charge, configured
from vessel.keyspace.names import gate_keys
from vessel.upstream.outcome import RateHeaders, Success, Usage

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.redis("valkey")


@pytest.fixture
def vessel(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Ran]:
    """Give the command line in this process."""
    for name, value in environment(tmp_path, VESSEL_REDIS_URL=redis_url, VESSEL_GROQ_PLAN="free").items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        code = main.run(("batch", *arguments))
        written = capsys.readouterr()
        return Ran(code, written.out, written.err)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Write a file of forty lines."""
    rows = [
        {
            "custom_id": f"r{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": f"Question {n}"}]},
        }
        for n in range(40)
    ]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def test_a_batch_is_submitted_shown_listed_and_cancelled(
    vessel: Callable[..., Ran], file: Path, tmp_path: Path
) -> None:
    """Each command says what it did, and its JSON is one document."""
    made = vessel("submit", str(file), "--metadata", "team=docs", "--json")
    assert made.code == 0
    batch = json.loads(made.out)
    assert batch["request_counts"] == {"total": 40, "completed": 0, "failed": 0}
    assert batch["metadata"] == {"team": "docs"}
    assert batch["estimate"]["lines"] == 40
    shown = vessel("status", batch["id"])
    assert "in_progress" in shown.out
    assert "40 left of 40" in shown.out
    assert f"input    {batch['input_file_id']}\ncreated" in shown.out
    assert json.loads(vessel("list", "--json").out)["id"] == batch["id"]
    assert vessel("cancel", batch["id"]).out.startswith("cancelled: 0 results kept")
    assert vessel("cancel", batch["id"]).code == 1
    assert vessel("watch", batch["id"]).code == 1
    out = tmp_path / "errors.jsonl"
    assert vessel("errors", batch["id"], "-o", str(out)).code == 0
    rows = [json.loads(row) for row in out.read_text("utf-8").splitlines()]
    assert [row["custom_id"] for row in rows] == [f"r{n}" for n in range(40)]
    assert vessel("results", batch["id"]).out == ""
    ended = json.loads(vessel("status", batch["id"], "--json").out)
    shown = vessel("status", batch["id"])
    assert f"errors   {ended['error_file_id']}\n" in shown.out
    assert (ended["output_file_id"], "output  " in shown.out) == (None, False)


def test_an_estimate_tells_cost_and_time_and_sends_nothing(vessel: Callable[..., Ran], file: Path) -> None:
    """On the free plan forty lines wait for the minute limits."""
    told = vessel("estimate", str(file))
    assert told.code == 0
    assert "openai/gpt-oss-20b" in told.out
    assert "Nothing was sent." in told.out
    found = json.loads(vessel("estimate", str(file), "--json").out)
    assert found["lines"] == 40
    assert 0 < found["typical_cost_usd"] < found["worst_cost_usd"]
    assert found["seconds"] > 0
    assert vessel("list", "--json").out == ""


def test_an_estimate_counts_with_the_limits_that_groq_told(vessel: Callable[..., Ran], file: Path) -> None:
    """The organisation's limits may be others than those of its plan; the gate has learned them."""
    before = json.loads(vessel("estimate", str(file), "--json").out)["seconds"]
    model = "openai/gpt-oss-20b"
    with GroqClient() as client:
        keys = gate_keys(client.door.keys, "default", model, "*")
        figures = configured(client.door.model_of(model).limits["free"])
        headers = RateHeaders(limit_requests=1000, remaining_requests=999, limit_tokens=500, remaining_tokens=400)
        told = Success(model, b"{}", Usage(), None, "stop", headers)
        client.runner.run(learn(keys, Charge(model, "default", figures, 50, 50, 0), told, Started()))
    assert json.loads(vessel("estimate", str(file), "--json").out)["seconds"] > 2 * before


def test_a_faulty_file_is_refused_with_line_numbers(vessel: Callable[..., Ran], file: Path) -> None:
    """The report names the lines; nothing is accepted."""
    rows = file.read_text("utf-8").splitlines()
    file.write_text("\n".join([rows[0], rows[0], "{", *rows[1:]]), "utf-8")
    refused = vessel("submit", str(file))
    assert refused.code == 2
    assert "line 2: custom_id: line 1 has the same one." in refused.err
    assert "line 3: it is not JSON" in refused.err
    assert 'A line is {"custom_id"' in refused.err
    assert json.loads(vessel("submit", str(file), "--json").out)["error"]["code"] == "invalid_batch"
    assert vessel("list", "--json").out == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("status", "batch_none"), 1),
        (("submit", "no/such/file.jsonl"), 2),
        (("submit", "F", "--window", "1h"), 2),
        (("submit", "F", "--metadata", "x"), 2),
        (("submit", "F", "--key", ""), 2),
        (("results", "batch_none"), 1),
    ],
)
def test_bad_use_is_told_in_a_line(
    vessel: Callable[..., Ran], file: Path, arguments: tuple[str, ...], code: int
) -> None:
    """No traceback, and the exit code says whose fault it is."""
    ran = vessel(*(str(file) if word == "F" else word for word in arguments))
    assert ran.code == code
    assert ran.err.startswith("vessel: ")
    assert "Traceback" not in ran.err


def test_the_same_key_is_the_same_batch(vessel: Callable[..., Ran], file: Path) -> None:
    """A command that is run again does not submit again."""
    first, second = (vessel("submit", str(file), "--key", "k").out for _ in range(2))
    assert first == second


def test_a_finish_is_told_from_the_rate_seen_lately() -> None:
    """A hundred in ten seconds, fifty left: five seconds."""
    assert finish([(0.0, 0), (10.0, 100)], 50) == "5 s left"
    assert finish([(0.0, 5)], 50) == finish([(0.0, 5), (1.0, 5)], 50) == ""
