"""How commands end: exit codes, one clear message, a document with --json, never a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from vessel.cli.faults import BadUse, Interrupted, conclude, interruptible, wants_json
from vessel.cli.main import run
from vessel.cli.output import ReaderLeft
from vessel.errors import InvalidRequest, JobFailed, NoKey, SettingsError, VesselError, WaitTimeout

if TYPE_CHECKING:
    from pathlib import Path

VESSEL = [sys.executable, "-m", "vessel.cli.main"]
HEAVY = ("pydantic", "redis", "celery", "groq", "httpx", "rich", "asyncio", "uvicorn", "aiohttp")


@pytest.fixture(autouse=True)
def _own_data_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VESSEL_DATA_DIR", str(tmp_path))


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (BadUse("b"), 2, "invalid_request_error"),
        (InvalidRequest("r"), 2, "invalid_request_error"),
        (SettingsError(["f"]), 2, "settings_error"),
        (NoKey(), 3, "service_unavailable"),
        (WaitTimeout("w"), 1, "job_error"),
        (JobFailed("job_1", "failed", "server_error", "m"), 1, "job_error"),
        (PermissionError(13, "Permission denied", "f"), 3, "service_unavailable"),
        (Interrupted(), 130, "interrupted"),
        (ZeroDivisionError("a prompt"), 1, "api_error"),
    ],
)
def test_an_error_becomes_an_exit_code_and_a_document(
    error: BaseException, code: int, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --json the same message stands in one document on standard output."""

    def command() -> None:
        raise error

    assert conclude(command, as_json=True) == code
    out, err = capsys.readouterr()
    told = json.loads(out)["error"]
    assert set(told) == {"message", "type", "code", "param"}
    assert told["type"] == kind
    assert told["message"] in err
    assert "Traceback" not in err
    assert "a prompt" not in out + err


def test_without_json_standard_output_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that reads the answer reads nothing else."""
    assert run(["query"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "vessel: Missing argument 'TEXT'.\n"


def test_an_interrupt_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C exits 130 with one word."""

    def command() -> None:
        raise KeyboardInterrupt

    assert conclude(interruptible(command), as_json=False) == 130
    assert capsys.readouterr() == ("", "Interrupted.\n")


def test_an_interrupt_says_what_becomes_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever knows adds a note; it is in the JSON document as well."""

    def command() -> None:
        stop = KeyboardInterrupt()
        stop.add_note("The job goes on.")
        raise stop

    assert conclude(interruptible(command), as_json=True) == 130
    out, err = capsys.readouterr()
    assert err == "Interrupted. The job goes on.\n"
    assert json.loads(out)["error"]["message"] == "Interrupted. The job goes on."


def test_a_reader_that_left_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """`vessel jobs | head -1` ends quietly."""

    def command() -> None:
        raise ReaderLeft

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vessel.cli.faults._forget_stdout", lambda: None)
        assert conclude(command, as_json=False) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("errors", "code"), [([BrokenPipeError()], 0), ([BrokenPipeError(), ValueError()], 1)])
def test_a_host_that_was_killed_is_no_error(
    errors: list[Exception], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several coroutines of `vessel mcp` meet it at once; anything else beside it is told."""

    def command() -> int:
        raise ExceptionGroup("", errors)

    assert conclude(interruptible(command), as_json=False) == code
    assert bool(capsys.readouterr().err) is bool(code)


def test_a_closed_pipe_is_quiet() -> None:
    """A real pipe without a reader gives no message and exit 0."""
    command = f"{sys.executable} -m vessel.cli.main models --json | {sys.executable} -c pass; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.stderr == b""
    assert done.stdout.split()[-1] == b"0"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("vessel models >&-", 0),
        ("vessel models --json 2>&- </dev/null", 0),
        ("PYTHONIOENCODING=ascii vessel route 'ț 漢字 👋'", 0),
        ("PYTHONIOENCODING=ascii vessel route '漢字 👋' --tier '漢' --json", 2),
        ("vessel $'\\xff'", 2),
        ("vessel route $'\\xff' --json", 2),
        ("vessel query - <&-", 2),
        ("vessel models --json >/dev/full", 3),
        ("vessel models >/dev/full", 3),
    ],
)
def test_odd_streams_and_bytes_end_no_command(script: str, code: int) -> None:
    """Closed streams, narrow encodings and bytes that are no text are told like anything else, or do not matter."""
    run_it = f'vessel() {{ {sys.executable} -m vessel.cli.main "$@"; }}; {script}'
    done = subprocess.run(["bash", "-c", run_it], capture_output=True, check=False)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"was not made for" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [(["query", "x", "--json"], True), (["query", "--", "--json"], False), (["jobs"], False), ([], False)],
)
def test_json_is_recognised_before_parsing(arguments: list[str], *, wanted: bool) -> None:
    """What follows `--` is text."""
    assert wants_json(arguments) is wanted


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nope"], 2),
        (["query", "x", "--nope"], 2),
        (["query", ""], 2),
        (["query", "x", "--timeout", "soon"], 2),
        (["query", "x", "--task", "singing"], 2),
        (["query", "x", "--context", "=1"], 2),
        (["route", "x", "--tier", "nope"], 2),
        (["route", "x", "--model", "nope"], 2),
        (["query", "x"], 3),
        (["jobs"], 3),
        (["submit"], 2),
        (["submit", "x", "--file", "y"], 2),
        (["submit", "--file", "/nowhere/at/all"], 3),
        (["wait", "job_1"], 3),
        (["worker", "--tiers", "nope"], 2),
        (["worker"], 3),
        (["scheduler"], 3),
        (["simulate", "--scenario", "/nowhere/at/all"], 2),
        (["demo", "--live"], 3),
    ],
)
def test_bad_use_and_missing_things_are_told_apart(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """2 is for the caller to mend, 3 for whoever runs the machine; each with one message."""
    assert run([*arguments, "--json"]) == code
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["message"] in err
    assert err.startswith("vessel: ")
    assert "Traceback" not in err


def test_bad_settings_are_told_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every fault of the environment is listed, exit 2."""
    monkeypatch.setenv("VESSEL_API_PROT", "1")
    monkeypatch.setenv("VESSEL_LEASE", "never")
    assert run(["jobs"]) == 2
    err = capsys.readouterr().err
    assert "VESSEL_API_PROT" in err
    assert "VESSEL_LEASE" in err


def test_help_needs_nothing_heavy() -> None:
    """The command line's own modules import none of the libraries that make a start slow."""
    script = f"import sys, vessel.cli.main; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_command_takes_json_and_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Help of every command names --json."""
    from typer.main import get_command  # noqa: PLC0415  only here

    from vessel.cli.main import app  # noqa: PLC0415  only here

    group: Any = get_command(app)
    found = {name: sorted(getattr(command, "commands", [])) for name, command in group.commands.items()}
    names = sorted(" ".join((name, *verb)) for name, verbs in found.items() for verb in [[v] for v in verbs] or [[]])
    assert names == [
        "analyze", "api", "backup", "batch cancel", "batch errors", "batch estimate", "batch list", "batch results",
        "batch status", "batch submit", "batch watch", "budget clear", "budget set", "budget show", "cancel", "check",
        "code", "demo", "doctor", "events", "flower", "job", "jobs", "keys create", "keys list", "keys revoke",
        "limits", "maintenance off", "maintenance on", "maintenance status", "mcp", "models", "query", "research",
        "restore", "retry", "route", "scheduler", "simulate", "submit", "tiers", "up", "usage", "wait",
        "webhooks list", "webhooks retry", "webhooks secret", "worker",
    ]  # fmt: skip
    for name in names:
        assert run([*name.split(), "--help"]) == 0
        assert "--json" in capsys.readouterr().out


def test_vessel_errors_are_all_known() -> None:
    """Every class of the tree has an exit code that the contract knows."""
    classes = [VesselError]
    for found in classes:
        classes += found.__subclasses__()
    assert {found.exit_code for found in classes} <= {1, 2, 3}


@pytest.mark.skipif(sys.platform == "win32", reason="the shell's >&-")
def test_a_closed_standard_output_gives_no_traceback() -> None:
    """`vessel tiers --json >&-` once ended in an AttributeError, as Python has no `sys.stdout` then."""
    script = "import sys; from vessel.cli.main import main; sys.argv[1:] = ['job', '--nope', '--json']; main()"
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -c "$1" >&-', sys.executable, script],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("vessel: ")
    assert "Traceback" not in done.stderr
