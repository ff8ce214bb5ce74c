"""The simulator's own side: the log that judges others, counters, and changes while it runs."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.simulated import MODEL, ROOT, START, Local
from vessel.simulator import SimulatorConfig, expected_text, read_scenario
from vessel.simulator.__main__ import parser
from vessel.simulator.config import BadConfig
from vessel.simulator.control import _COMMANDS
from vessel.simulator.faults import KINDS
from vessel.simulator.stats import _SHOWN

if TYPE_CHECKING:
    from pathlib import Path

GREETING = [{"role": "user", "content": "hello"}]


def test_the_log_knows_every_call() -> None:
    """Refused or answered: who, what, how often tried, what it took, and when."""
    sim = Local()
    sim.chat(user="alice", headers={"x-stainless-retry-count": "2", "x-vessel-attempt": "call_1"})
    sim.chat(model="nothing")
    first, second = sim.calls()
    assert (first["seq"], first["status"], first["user"], first["retry_count"]) == (1, 200, "alice", 2)
    assert (first["attempt"], first["model"], first["completed"], first["delivered"]) == ("call_1", MODEL, True, True)
    assert first["digest"] in expected_text(GREETING)
    assert (first["prompt_tokens"], first["started_at"], first["finished_at"]) == (6, START, START)
    assert (second["seq"], second["status"], second["reason"], second["attempt"]) == (2, 404, "model_not_found", None)
    later = sim.ask("GET", "/_sim/calls?since=1").json
    assert (later["calls"], later["next"], later["oldest"]) == ([second], 2, 1)
    assert sim.ask("GET", "/_sim/calls?since=0&limit=1").json["calls"] == [first]
    assert sim.ask("GET", "/_sim/calls?since=2").json["calls"] == []


def test_the_log_forgets_the_oldest() -> None:
    """Only so many calls are kept; counters know them all."""
    sim = Local(calls_kept=3)
    for _ in range(5):
        sim.chat()
    assert [call["seq"] for call in sim.calls()] == [3, 4, 5]
    assert [call["seq"] for call in sim.ask("GET", "/_sim/calls?since=4").json["calls"]] == [5]
    assert sim.stats()["completed"] == 5


def test_counters_add_up() -> None:
    """Totals are the sums of the log, by model too."""
    sim = Local(limits={MODEL: {"rpm": 2}})
    for model in (MODEL, MODEL, MODEL, "openai/gpt-oss-120b"):
        sim.chat(model=model)
    stats, calls = sim.stats(), sim.calls()
    assert (stats["calls"], stats["accepted"], stats["refused"], stats["completed"]) == (4, 3, 1, 3)
    assert (stats["delivered"], stats["undelivered"], stats["status"]) == (3, 0, {"200": 3, "429": 1})
    assert stats["refused_by"] == {"rpm": 1}
    done = [call for call in calls if call["completed"]]
    assert stats["tokens"]["completion"] == sum(call["completion_tokens"] for call in done)
    assert stats["tokens"] == stats["delivered_tokens"]
    parts = stats["by_model"]
    assert (parts[MODEL]["completed"], parts[MODEL]["refused"]) == (2, 1)
    assert sum(part["tokens"]["total"] for part in parts.values()) == stats["tokens"]["total"]
    assert stats["by_retry_count"] == {"0": 4}
    assert (stats["in_flight"], stats["peak_in_flight"]) == (0, 1)


def test_a_deprecation_drill() -> None:
    """A removed model answers 404 or 400 from then on, is not listed, and can come back."""
    sim = Local()
    for mode, status in (("not_found", 404), ("decommissioned", 400)):
        sim.ask("POST", "/_sim/models", {"remove": [MODEL], "mode": mode})
        assert sim.chat().status == status
        assert MODEL not in sim.ask("GET", "/openai/v1/models").content.decode()
    assert sim.chat().error["code"] == "model_decommissioned"
    sim.ask("POST", "/_sim/models", {"add": [MODEL, {"id": "new/model", "max_output": 100}, "groq/compound"]})
    assert [sim.chat(model=model).status for model in (MODEL, "new/model", "groq/compound")] == [200] * 3


def test_limits_change_while_it_runs() -> None:
    """A plan, a model's figures and unlimited are each one request; use stays."""
    sim = Local()
    sim.chat()
    sim.ask("POST", "/_sim/limits", {"plan": "free"})
    assert sim.chat().headers["x-ratelimit-limit-tokens"] == "8000"
    shown = sim.ask("POST", "/_sim/limits", {"model": MODEL, "limits": {"tpm": 9000, "rpd": None}}).json
    assert shown["buckets"][0]["limits"]["rpm"]["used"] == 2
    answer = sim.chat()
    assert answer.headers["x-ratelimit-limit-tokens"] == "9000"
    assert "x-ratelimit-limit-requests" not in answer.headers
    sim.ask("DELETE", "/_sim/limits")
    assert sim.chat().headers["x-ratelimit-limit-requests"] == "1000"


@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/openai/v1/models"])
def test_an_outage_is_of_the_whole_api_and_ends(path: str) -> None:
    """Everything is 503 until the time is over or it is switched off; the own side goes on."""
    sim = Local()
    method = "POST" if path.endswith("completions") else "GET"
    body = {"model": MODEL, "messages": GREETING} if method == "POST" else None
    sim.ask("POST", "/_sim/outage", {"mode": "503", "duration_s": 30})
    assert sim.ask(method, path, body).status == 503
    assert sim.ask("GET", "/_sim/faults").json["outage"] == "503"
    sim.clock.at += 30
    assert sim.ask(method, path, body).status == 200
    sim.ask("POST", "/_sim/outage", {"mode": "503"})
    assert sim.ask(method, path, body).status == 503
    sim.ask("POST", "/_sim/outage", {"mode": "off"})
    assert sim.ask(method, path, body).status == 200


def test_faults_are_given_listed_and_cleared() -> None:
    """Rules come one or many at a time."""
    sim = Local()
    sim.ask("POST", "/_sim/faults", {"kind": "status"})
    shown = sim.ask("POST", "/_sim/faults", {"rules": [{"kind": "slow", "model": "m"}]}).json["rules"]
    assert [rule["kind"] for rule in shown] == ["status", "slow"]
    assert sim.chat().status == 500
    sim.ask("DELETE", "/_sim/faults")
    assert sim.chat().status == 200


def test_a_reset_goes_back_to_the_beginning() -> None:
    """Or only a part of it does; numbers of calls go on, so that a reader loses none."""
    sim = Local(limits={MODEL: {"rpm": 1}}, faults=({"kind": "slow", "count": 1},))
    sim.chat()
    sim.ask("POST", "/_sim/models", {"remove": ["openai/gpt-oss-120b"]})
    sim.ask("POST", "/_sim/reset", {"only": ["limits"]})
    assert sim.chat().status == 200
    sim.ask("POST", "/_sim/reset")
    assert sim.stats()["calls"] == 0
    assert sim.ask("GET", "/_sim/faults").json["rules"][0]["fired"] == 0
    assert sim.chat(model="openai/gpt-oss-120b").status == 200
    assert sim.calls()[0]["seq"] == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/_sim/nothing", None, 404),
        ("POST", "/_sim/faults", {"kind": "nothing"}, 400),
        ("POST", "/_sim/faults", b"{", 400),
        ("POST", "/_sim/outage", {"mode": "some"}, 400),
        ("POST", "/_sim/outage", [], 400),
        ("POST", "/_sim/limits", {"model": MODEL, "tpm": -1}, 400),
        ("POST", "/_sim/limits", {"plan": "gold"}, 400),
        ("POST", "/_sim/models", {"add": ["no/such"]}, 400),
        ("POST", "/_sim/models", {"add": [{"id": "x", "colour": 1}]}, 400),
        ("POST", "/_sim/models", {"remove": [], "mode": "sad"}, 400),
        ("POST", "/_sim/keys", {"revok": []}, 400),
        ("POST", "/_sim/latency", {"ms": "fast"}, 400),
        ("POST", "/_sim/reset", {"only": ["everything"]}, 400),
        ("GET", "/_sim/calls?since=x", None, 400),
    ],
)
def test_its_own_side_says_what_it_does_not_understand(method: str, path: str, body: Any, status: int) -> None:
    """A mistake in a test is an error, not silence."""
    answer = Local().ask(method, path, body)
    assert answer.status == status
    assert answer.error["message"]


def test_latency_changes_while_it_runs() -> None:
    """A constant replaces the model's speed; a median replaces the constant."""
    sim = Local()
    assert sim.ask("POST", "/_sim/latency", {"ms": 50}).json["ms"] == 50
    sim.chat()
    assert sum(sim.clock.slept) == pytest.approx(0.05)
    assert sim.ask("POST", "/_sim/latency", {"median_ms": 80}).json["ms"] is None


def test_a_scenario_file_sets_the_beginning(tmp_path: Path) -> None:
    """TOML and JSON alike; what is unknown is named."""
    toml, other = tmp_path / "a.toml", tmp_path / "b.json"
    toml.write_text(
        'world = "seed"\nplan = "free"\nlatency_ms = 5\nkeys = ["gsk_a"]\n[limits."*"]\nrpm = 7\n'
        '[[faults]]\nkind = "over_capacity"\nmodel = "m"\nduration_s = 30\n'
    )
    config = SimulatorConfig(**read_scenario(toml))
    assert (config.world, config.plan, config.keys, config.limits) == ("seed", "free", ("gsk_a",), {"*": {"rpm": 7}})
    assert config.faults == ({"kind": "over_capacity", "model": "m", "duration_s": 30},)
    other.write_text(json.dumps({"plan": "free", "colour": 1}))
    with pytest.raises(BadConfig, match="it has no colour"):
        read_scenario(other)
    other.write_text("{")
    with pytest.raises(BadConfig, match="neither TOML nor"):
        read_scenario(other)


def test_the_documentation_is_true(tmp_path: Path) -> None:
    """The scenario of docs/simulator.md can be used; every kind, option, field and command stands in it."""
    text = (ROOT / "docs" / "simulator.md").read_text("utf-8")
    scenario = tmp_path / "example.toml"
    scenario.write_text(text.partition("```toml\n")[2].partition("```")[0], "utf-8")
    sim = Local(**read_scenario(scenario))
    assert [rule.kind for rule in sim.sim.faults.rules] == ["rate_limit", "reset_mid_body"]
    options = [name for action in parser()._actions for name in action.option_strings if name not in {"-h", "--help"}]
    fields = [field.name for field in dataclasses.fields(SimulatorConfig)]
    commands = [f"/_sim/{name}" for _, name in _COMMANDS]
    missing = [name for name in [*KINDS, *options, *fields, *commands, *_SHOWN] if name not in text]
    assert missing == []


def test_the_command_line_has_the_promised_options() -> None:
    """Each option is there under its name."""
    line = "--host h --port 1 --world seed --scenario f --plan free --latency-scale 2 --url-file u --log l --seed 3"
    given = parser().parse_args([*line.split(), "--key", "a", "--key", "b"])
    assert (given.port, given.world, given.plan, given.seed, given.key) == (1, "seed", "free", 3, ["a", "b"])
