"""The units under systemd's own eyes: they are valid, as closed as was reached, and drain before they are killed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vessel.execute.persist import PATIENCE_S
from vessel.settings import Settings

OPS = Path(__file__).parents[2] / "ops"
UNITS = OPS / "systemd"
LONG = ("vessel-api", "vessel-mcp", "vessel-flower", "vessel-scheduler", "vessel-worker@", "vessel-redis")
EXPOSURE = {"vessel-api": 12, "vessel-mcp": 12, "vessel-flower": 12, "vessel-redis": 12, "vessel-scheduler": 13,
            "vessel-worker@": 13, "vessel-check": 13}  # fmt: skip
ANALYZE = shutil.which("systemd-analyze") or ""
needs_systemd = pytest.mark.skipif(not ANALYZE, reason="needs systemd-analyze")


def _unit(name: str) -> str:
    return (UNITS / f"{name}.service").read_text("utf-8")


def _value(name: str, key: str) -> str:
    found = re.findall(rf"^{key}=(.*)$", _unit(name), re.MULTILINE)
    assert found, f"{name} has no {key}"
    return str(found[-1])


@pytest.mark.parametrize("script", sorted(OPS.glob("*.sh")), ids=lambda script: script.name)
def test_the_scripts_are_plain_sh(script: Path) -> None:
    """Shellcheck finds nothing that is not waived where it stands, with its reason."""
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: make test installs it")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@needs_systemd
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    """Every key is known and every name exists; only where the programs are is another place here."""
    for file in UNITS.iterdir():
        text = re.sub(r"/opt/vessel/\S+|/usr/bin/redis-server", "/bin/true", file.read_text("utf-8"))
        (tmp_path / file.name).write_text(text)
    units = sorted(str(file) for file in tmp_path.iterdir() if file.suffix in {".service", ".target", ".path"})
    done = subprocess.run([ANALYZE, "verify", *units], capture_output=True, text=True, check=False)
    told = [line for line in done.stderr.splitlines() if str(tmp_path) in line or line.startswith("vessel")]
    assert (done.returncode, told) == (0, [])


@needs_systemd
@pytest.mark.parametrize("name", EXPOSURE)
def test_the_exposure_is_as_low_as_was_reached(name: str) -> None:
    """At most 1.2 for faces, 1.3 for what calls Groq (times ten, as the option takes it)."""
    done = subprocess.run(
        [ANALYZE, "security", "--offline=true", f"--threshold={EXPOSURE[name]}", UNITS / f"{name}.service"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_all_units_are_in_the_target_and_name_the_same_files() -> None:
    """Starting and stopping the target starts and stops everything; what they name is what the installer makes."""
    target = (UNITS / "vessel.target").read_text("utf-8")
    installer = (OPS / "install.sh").read_text("utf-8")
    for name in LONG:
        assert "PartOf=vessel.target" in _unit(name)
    # Enabled is what it starts: what it named itself could not be disabled.
    assert "Wants=vessel" not in target
    check = _unit("vessel-check")
    for unit in UNITS.glob("vessel-*.*"):
        startable = unit.stem != "vessel-credentials" or unit.suffix == ".path"
        assert ("WantedBy=vessel.target" in unit.read_text("utf-8")) == startable, unit.name
        assert not startable or f" {unit.name.replace('@', '@power')}" in installer, unit.name
    assert "After=vessel.target" in check, "the target would wait for the check, and the boot for the target"
    assert "Restart=" not in check
    assert _value("vessel-check", "ExecStart").endswith("check --boot --expect units")
    assert "Alias=groq-mcp.service" in _unit("vessel-mcp")
    named = {n for name in (*LONG, "vessel-check") for n in re.findall(r"/etc/vessel/credentials/(\w+)", _unit(name))}
    made = (OPS / "make_secrets.sh").read_text("utf-8")
    assert all(credential == "groq_api_key" or credential.partition("_")[0] in made for credential in named)
    assert "/etc/vessel" in installer


def test_a_redis_for_other_hosts_keeps_its_data_where_it_was() -> None:
    """The unit has no folder of its own to start in, and may write nowhere else."""
    for name in ("local", "tls"):
        assert "\ndir /var/lib/vessel-redis\n" in (OPS / "redis" / f"{name}.conf").read_text("utf-8"), name
    assert _value("vessel-redis", "StateDirectory") == "vessel-redis"


def test_secrets_of_prometheus_are_outside_of_the_checkout() -> None:
    """What is tracked would be seen, and the installer copies ops/ for everybody to read."""
    files = re.findall(r"_file: (\S+)", (OPS / "prometheus.yml").read_text("utf-8"))
    assert len(files) == 2
    assert all(file.startswith("/etc/") for file in files)
    assert "/ops/prometheus-secrets/\n" in (OPS.parent / ".gitignore").read_text("utf-8")


def test_keys_and_passwords_come_as_credentials() -> None:
    """Never in Environment=, which systemd shows to everybody, nor on a command line."""
    for name in LONG:
        text = _unit(name)
        assert not re.search(r"^Environment=.*(KEY|PASSWORD|AUTH|URL)=(?!%d/|file://%d/)", text, re.MULTILINE), name
        assert "${GROQ" not in text
    for name in ("vessel-worker@", "vessel-scheduler", "vessel-check"):
        assert "LoadCredential=groq_api_key:" in _unit(name)
        assert _value(name, "SetCredential") == "groq_api_key:#", "without a file the unit would fail without a word"
        assert _value(name, "Environment").endswith("%d/groq_api_key")
    assert "groq_api_key" not in _unit("vessel-api") + _unit("vessel-flower") + _unit("vessel-mcp")
    for name in ("vessel-api", "vessel-mcp"):
        assert "LoadCredential=api_key:/etc/vessel/credentials/api_key\n" in _unit(name)
        assert "Environment=VESSEL_API_KEY_FILE=%d/api_key\n" in _unit(name)


def test_the_spool_is_closed_to_the_faces() -> None:
    """They run as the same user as the workers, which book what lies there; it is made before it is closed."""
    for name in ("vessel-api", "vessel-mcp", "vessel-flower"):
        assert _value(name, "InaccessiblePaths") == "/var/lib/vessel/spool"
        assert _value(name, "StateDirectory").split() == ["vessel", "vessel/spool"], "what is not there is not closed"


def test_stopping_drains_and_fits_the_longest_call() -> None:
    """SIGTERM reaches only the process that drains; the rest waits for the deadline of a call and what it writes."""
    for name in LONG:
        assert _value(name, "KillMode") == "mixed"
    assert int(_value("vessel-worker@", "TimeoutStopSec")) >= Settings().call_timeout + PATIENCE_S + 10


def test_restarts_are_paced_and_end_with_settings_that_cannot_be_used() -> None:
    """A process that dies at once is started every few seconds at most, for ever; a wrong setting waits for people."""
    for name in LONG:
        assert _value(name, "Restart") == "always"
        every, most, within = (int(_value(name, k)) for k in ("RestartSec", "StartLimitBurst", "StartLimitIntervalSec"))
        assert every >= 5
        assert most > within / every, "the limit would end an honest row of restarts"
    for name in LONG[:-1]:
        assert _value(name, "RestartPreventExitStatus") == "2"


def test_all_that_can_tell_do_tell_and_are_watched() -> None:
    """Ready is what the process says, and a loop that is stuck is started anew."""
    for name in LONG:
        assert _value(name, "Type") == "notify"
    for name in LONG[:-1]:
        assert int(_value(name, "WatchdogSec")) >= 30
