"""The commands about the gate against a Redis without workers: what they print and hold, and their exit codes."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.running_up import VESSEL, Ran, environment
from vessel.cli import main, waiting
from vessel.client import GroqClient
from vessel.keyspace.server import clock
from vessel.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis

    from vessel.settings import Settings

MODEL = "openai/gpt-oss-120b"
HOUR_MS = 3_600_000


class Line:
    """The command line in this process, with one environment."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Keep what is written."""
        self.capsys, self.patch, self.folder = capsys, monkeypatch, tmp_path
        self.env: dict[str, str] = {}

    def use(self, redis_url: str) -> Line:
        """Take the environment that other processes are given, too."""
        self.env = environment(self.folder, VESSEL_REDIS_URL=redis_url, VESSEL_GROQ_PLAN="free")
        for name, value in self.env.items():
            self.patch.setenv(name, value)
        return self

    def __call__(self, *arguments: str) -> Ran:
        """Run one command."""
        self.capsys.readouterr()
        code = main.run(arguments)
        written = self.capsys.readouterr()
        return Ran(code, written.out, written.err)


@pytest.fixture
def anywhere(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Line:
    """Give the command line without a Redis."""
    return Line(capsys, monkeypatch, tmp_path)


@pytest.fixture
def vessel(anywhere: Line, redis_url: str) -> Line:
    """Give the command line with an empty Redis."""
    return anywhere.use(redis_url)


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    """Give the same settings to what runs in the test itself."""
    return load_settings({}, redis_url=redis_url, data_dir=tmp_path, groq_plan="free")


@pytest.fixture
def client(settings: Settings) -> Iterator[GroqClient]:
    """Give a client on the same Redis."""
    with GroqClient(settings=settings) as made:
        yield made


def test_maintenance_begins_is_shown_and_ends(vessel: Line) -> None:
    """`on` tells the end and the reason, `status` the same, `off` what ended; all exit 0."""
    begun = vessel("maintenance", "on", "--until", "2h", "--reason", "moving Redis")
    assert begun.code == 0
    assert "The whole vessel is in maintenance" in begun.out
    assert "(in 2 h): moving Redis" in begun.out
    vessel("maintenance", "on", "--tier", "power")
    found = vessel("maintenance", "status", "--json").document
    assert found["active"]
    whole, power = found["maintenance"]
    assert (whole["tier"], whole["reason"], power["tier"], power["until"]) == (None, "moving Redis", "power", None)
    assert 7000 < whole["remaining_s"] <= 7200
    assert "until it is ended by" in vessel("maintenance", "status").out
    assert vessel("maintenance", "off", "--tier", "power", "--json").document["ended"][0]["tier"] == "power"
    ended = vessel("maintenance", "off")
    assert (ended.code, "is out of maintenance" in ended.out) == (0, True)
    assert vessel("maintenance", "off").out.startswith("Nothing was in maintenance.")


def test_maintenance_counts_what_it_holds(vessel: Line, client: GroqClient) -> None:
    """With and without a ticket, in all and of a tier."""
    client.submit("hi", tier="power")
    for _ in range(2):
        client.submit("hi", tier="power", priority="batch")
    client.submit("hi", tier="balanced", priority="batch")
    vessel("maintenance", "on", "--tier", "power", "--until", "1h")
    found = vessel("maintenance", "status", "--json").document
    assert found["held"] == {"total": 4, "backlog": 3, "tickets": 1, "parked": 0}
    assert found["maintenance"][0]["held"] == 3
    text = vessel("maintenance", "status").out
    assert "3 jobs of this tier held" in text
    assert "4 jobs wait: 3 in the backlog, 1 with a ticket." in text
    waiting = {tier["name"]: tier["waiting"] for tier in vessel("tiers", "--json").documents}
    assert (waiting["power"], waiting["balanced"]) == (3, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("maintenance", "on", "--tier", "powr"), "Did you mean power?"),
        (("maintenance", "on", "--until", "2020-01-01"), "is over"),
        (("maintenance", "on", "--until", "soon"), "is no time"),
        (("maintenance", "on", "--reason", "x" * 201), "200"),
        (("maintenance", "off", "--tier", "powr"), "Did you mean power?"),
        (("maintenance",), "on, off, status"),
        (("budget", "set"), "No cap was given"),
        (("budget", "set", "--day", "0"), "above 0"),
        (("budget", "set", "--day", "much"), "no amount"),
        (("budget", "clear", "--tenant", "*"), "tenant"),
        (("budget",), "set, show, clear"),
    ],
)
def test_bad_use_exits_2_and_changes_nothing(
    vessel: Line, redis_client: redis.Redis, arguments: tuple[str, ...], told: str
) -> None:
    """One clear line on standard error."""
    refused = vessel(*arguments)
    assert refused.code == 2
    assert told in refused.err
    assert len(refused.err.splitlines()) == 1
    assert redis_client.dbsize() == 0


@pytest.mark.parametrize(
    "arguments",
    [("maintenance", "on"), ("maintenance", "status"), ("budget", "show"), ("limits",), ("limits", "--watch")],
)
def test_without_redis_they_exit_3(anywhere: Line, arguments: tuple[str, ...]) -> None:
    """With the cure, and as a document."""
    for url in ("", "redis://127.0.0.1:1/0"):
        ran = anywhere.use(url)(*arguments, "--json")
        assert ran.code == 3
        assert ran.document["error"]["code"] in {"no_redis", "redis_unreachable"}


def test_budgets_are_set_shown_and_cleared(vessel: Line) -> None:
    """Amounts are exact; a tenant's cap stands beside that of everybody."""
    vessel("budget", "set", "--day", "5", "--month", "100")
    only = vessel("budget", "set", "--tenant", "acme", "--month", "0.10", "--json").document
    assert (only["tenant"], only["day"], only["month"]["cap_usd"]) == ("acme", None, 0.1)
    shown = vessel("budget", "show")
    assert "everybody" in shown.out
    assert "0.10" in shown.out
    whole, acme = vessel("budget", "show", "--json").documents
    assert (whole["tenant"], whole["day"]["left_usd"], whole["month"]["cap_usd"]) == (None, 5.0, 100.0)
    assert acme == only
    assert vessel("budget", "clear", "--json").document == {"tenant": None, "cleared": True}
    assert "There was no spend cap" in vessel("budget", "clear").out
    assert [one["tenant"] for one in vessel("budget", "show", "--json").documents] == ["acme"]


def hear_a_worker(client: GroqClient, redis_client: redis.Redis) -> None:
    """Let a worker of tier power count as alive; as nothing sweeps here, no job is fed."""
    key = client.door.keys.live("power")
    redis_client.zadd(key, {"w": client.runner.run(clock()) + HOUR_MS})
    redis_client.pexpire(key, HOUR_MS)


def gate_of(client: GroqClient, redis_client: redis.Redis, **fields: Any) -> None:
    """Write what calls and answers would have left in a gate."""
    key = client.door.keys.gate(client.door.settings.org, MODEL)
    written: dict[Any, Any] = {"at": client.runner.run(clock()), "seen": 1, **fields}
    redis_client.hset(key, mapping=written)
    redis_client.pexpire(key, HOUR_MS)


def test_limits_show_headroom_and_who_waits(vessel: Line, client: GroqClient, redis_client: redis.Redis) -> None:
    """A day's limit that is used up says when there is some again, for people and for programs."""
    gate_of(client, redis_client, **{"c:tpd": 100_000, "l:tpd": -12_000, "k:tpd": 100_000})
    client.submit("hi", tier="power", priority="batch")
    found = vessel("limits", "--json").document
    model = next(model for model in found["models"] if model["model"] == MODEL)
    assert model["waiting"] == {"interactive": 0, "normal": 0, "batch": 1}
    assert model["longest_wait_s"] >= 0
    levels = {level["name"]: level for level in model["limits"]}
    assert levels["tpd"]["learned"]
    assert levels["tpd"]["again_in_s"] > 10_000
    assert (levels["rpm"]["left"], levels["rpm"]["again_in_s"]) == (30, 0)
    text = vessel("limits").out
    assert "used up, again in" in text
    assert "1 job (1 batch) for TPD" in text


def test_limits_name_the_failover_vessel_where_it_is_armed(vessel: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own limit, after Groq's; it carries no tier."""
    assert "failover" not in vessel("limits").out
    for name, value in {"OPENAI_API_KEY": "sk-none", "VESSEL_FAILOVER_MODEL": "gpt-4o-mini"}.items():
        monkeypatch.setenv(name, value)
    last = vessel("limits", "--json").document["models"][-1]
    assert (last["model"], last["vessel"], last["tier"]) == ("openai:gpt-4o-mini", "openai", None)
    assert [(level["name"], level["capacity"]) for level in last["limits"]] == [("rpm", 60)]
    (line,) = [line for line in vessel("limits").out.splitlines() if line.startswith("openai:gpt-4o-mini")]
    assert line.endswith("full: 60 RPM (the failover vessel)")


def test_who_waits_is_told_once_what_holds_the_jobs(
    vessel: Line, client: GroqClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On standard error, so that the answers can be piped; a wait that ends by its time names the one job."""
    monkeypatch.setattr(waiting, "FIRST_LOOK_S", 0.05)
    monkeypatch.setattr(waiting, "LOOK_S", 0.05)
    ids = [client.submit("hi", tier="power", priority="batch").id for _ in range(2)]
    held = vessel("wait", *ids, "--timeout", "0.4")
    assert (held.code, held.out) == (1, "")
    assert held.err.count("2 of 2 jobs wait: no worker serves tier power; `vessel worker` starts one.") == 1
    assert "2 of 2 jobs did not end within 0.4 s; they go on." in held.err
    alone = vessel("wait", ids[0], "--timeout", "0.2")
    assert f"Job {ids[0]} waits: no worker serves tier power" in alone.err
    assert f"Job {ids[0]} did not end within 0.2 s; it goes on." in alone.err


def test_limits_are_watched_until_interrupted(vessel: Line) -> None:
    """In a pipe a document a second; Ctrl-C ends it with 130, as every command."""
    with subprocess.Popen(
        [*VESSEL, "limits", "--watch", "--json"], env=vessel.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watching:
        assert watching.stdout is not None
        first, second = (json.loads(watching.stdout.readline()) for _ in range(2))
        assert first["at"] < second["at"]
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=30)
    assert watching.returncode == 130


def test_a_reader_that_leaves_ends_the_watch_quietly(vessel: Line) -> None:
    """`vessel limits --watch | head` exits 0 without a word."""
    with subprocess.Popen(
        [*VESSEL, "limits", "--watch"], env=vessel.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith(b"Limits of organisation")
        watching.stdout.close()
        assert watching.wait(30) == 0
        assert watching.stderr is not None
        assert watching.stderr.read() == b""


def test_a_job_says_why_it_waits(vessel: Line, client: GroqClient, redis_client: redis.Redis) -> None:
    """No worker, maintenance, a breaker, a cap, quota: each with its time, and nothing once it has ended."""
    handle = client.submit("hi", tier="power", priority="batch", max_completion_tokens=500)

    def waiting() -> Any:
        return vessel("job", handle.id, "--json").document["waiting"]

    assert waiting()["why"] == "no_workers"
    hear_a_worker(client, redis_client)
    vessel("maintenance", "on", "--until", "1h", "--reason", "moving")
    held = waiting()
    assert (held["why"], held["until"] is not None) == ("maintenance", True)
    assert "is in maintenance (moving)" in vessel("job", handle.id).out
    vessel("maintenance", "off")
    gate_of(client, redis_client, **{"l:tpm": -2000, "k:tpm": 8000})
    assert waiting()["why"] == "quota"
    assert "for tokens per minute of openai/gpt-oss-120b; about" in vessel("job", handle.id).out
    vessel("budget", "set", "--day", "0.00001")
    assert waiting()["why"] == "budget"
    gate_of(client, redis_client, br="open", br_why="server_error", br_next=0)
    assert waiting() == {
        "why": "outage", "until": None,
        "detail": f"{MODEL} cannot be used now (server error), and is looked at again every few seconds",
    }  # fmt: skip
    handle.cancel()
    assert waiting() is None
