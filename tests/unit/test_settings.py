"""Settings: defaults, every fault at once with its cure, no secret shown, and which Redis is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from vessel.cli.launch import child_environment
from vessel.errors import SettingsError
from vessel.settings import SERVER_FILE, Settings, load_settings, resolve_redis_url

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "gsk_5ecret5ecret"


def faults_of(environ: dict[str, str]) -> tuple[str, ...]:
    """Load an environment that must be refused; give its faults."""
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    return caught.value.faults


def test_an_empty_environment_gives_the_documented_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing needs to be set; the data directory is ./var, made absolute so that a later chdir moves nothing."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings({})
    assert (settings.org, settings.groq_plan, settings.namespace) == ("default", "developer", "vessel")
    assert settings.groq_base_url == "https://api.groq.com"
    assert settings.data_dir == tmp_path / "var"
    assert settings.usage_log_path == tmp_path / "var" / "usage_log.jsonl"
    assert (settings.api_host, settings.api_port, settings.mcp_port) == ("127.0.0.1", 8080, 8081)
    assert (settings.flower_port, settings.metrics_port, settings.result_ttl) == (5555, 9108, 604_800)
    assert (settings.call_timeout, settings.lease, settings.concurrency) == (120.0, 15.0, 200)
    assert {settings.redis_url, settings.groq_api_key, settings.log_format, settings.failover_model} == {None}


def test_overrides_win_over_the_environment_and_none_means_not_given() -> None:
    """Options of the command line come in by field name."""
    settings = load_settings({"VESSEL_ORG": "a", "VESSEL_API_PORT": "9000"}, org="b", api_port=None)
    assert (settings.org, settings.api_port) == ("b", 9000)


def test_a_variable_that_is_set_but_empty_counts_as_unset() -> None:
    """Compose files pass unset variables on as empty ones."""
    assert load_settings({"VESSEL_API_PORT": "", "GROQ_API_KEY": " "}) == load_settings({})


def test_every_fault_is_reported_at_once() -> None:
    """Unknown names, bad values and contradictions come in one error, each under its name."""
    faults = faults_of(
        {
            "VESSEL_REDIS": "redis://localhost",
            "VESSEL_API_PORT": "99999",
            "VESSEL_GROQ_PLAN": "develper",
            "VESSEL_API_TLS_CERT": "cert.pem",
        }
    )
    assert faults == (
        "VESSEL_REDIS: there is no such setting; did you mean VESSEL_REDIS_URL?",
        "VESSEL_GROQ_PLAN: must be one of developer, free, not 'develper'; did you mean developer?",
        "VESSEL_API_PORT: must be at most 65535, not '99999'",
        "VESSEL_API_TLS_CERT and VESSEL_API_TLS_KEY: set both for TLS, or neither",
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GROQ_BASE_URL", "https://api.groq.com/openai/v1/", "write only what comes before"),
        ("GROQ_BASE_URL", "api.groq.com", "must be an http or https address"),
        ("GROQ_BASE_URL", "http://host:port", "must be an http or https address"),
        ("VESSEL_NAMESPACE", "a:b", "letters, digits"),
        ("VESSEL_ORG", "{x}", "letters, digits"),
        ("VESSEL_LEASE", "0", "must be more than 0"),
        ("VESSEL_CALL_TIMEOUT", "nan", "must be a finite number"),
        ("VESSEL_RESULT_TTL", "1.5", "must be a whole number"),
        ("VESSEL_WEBHOOK_ALLOW_PRIVATE", "perhaps", "must be on or off"),
        ("VESSEL_LOG_LEVEL", "warn", "did you mean WARNING?"),
        ("VESSEL_USAGE_LOG", "~nobody-of-this-name/log", "without a home directory"),
        ("VESSEL_REDIS_URL", "redis+cluster://h:6379", "cannot be a Redis Cluster"),
        ("VESSEL_REDIS_URL", "valkey://h:6379", "did you mean redis://?"),
        ("VESSEL_REDIS_URL", "unix:redis.sock", "needs an absolute path"),
        ("VESSEL_REDIS_URL", "redis://h:port", "needs a host and a numeric port"),
        ("VESSEL_REDIS_URL", "redis://h:6379/main", "names the database by a number"),
        ("VESSEL_REDIS_URL", "redis://h:99999/0", "at most 65535"),
        ("VESSEL_REDIS_URL", "redis://h/0?socket_timeout=x", "a number of seconds as socket_timeout"),
        ("VESSEL_REDIS_URL", "redis://h/0?max_connections=x", "a whole number as max_connections"),
        ("VESSEL_REDIS_URL", "unix:///x.sock?db=one", "a whole number as db"),
        ("VESSEL_REDIS_URL", "redis://one,two/0", "needs a host and a numeric port"),
        ("VESSEL_REDIS_URL", "REDIS://h", "did you mean redis://?"),
        ("VESSEL_REDIS_URL", "sentinel://h/mymaster/abc", "names the database by a number"),
        ("VESSEL_REDIS_URL", "sentinel://h:0/mymaster", "needs a host and a numeric port"),
        ("VESSEL_REDIS_URL", "sentinel://h/mymaster?ssl=true", "takes no options"),
        ("VESSEL_MCP_PORT", "8080", "VESSEL_API_PORT and VESSEL_MCP_PORT: 8080 can serve only one"),
        ("VESSEL_FLOWER_HOST", "0.0.0.0", "VESSEL_FLOWER_AUTH_FILE"),  # noqa: S104  the refused value itself
        ("VESSEL_FAILOVER_MODEL", "gpt-x", "needs OPENAI_API_KEY or an OPENAI_BASE_URL"),
    ],
)
def test_a_bad_value_is_told_with_its_rule(name: str, value: str, said: str) -> None:
    """One bad variable gives one fault that names it and says what would be right."""
    (fault,) = faults_of({name: value})
    assert name in fault
    assert said in fault


def test_the_failover_never_points_at_vessel_itself() -> None:
    """A failover to our own API would come back to the queue that is failing."""
    own = {"VESSEL_FAILOVER_MODEL": "m", "OPENAI_BASE_URL": "http://localhost:8080/v1"}
    assert "Vessel's own address" in faults_of(own)[0]
    assert load_settings(own | {"VESSEL_API_PORT": "8090"}).failover_model == "m"


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "rediss://user:pass@redis.example:6380/2",
        "redis://[::1]:6379",
        "unix:///run/redis/redis.sock?db=1",
        "sentinel://:pass@one:26379,two:26379/main/1",
        "sentinel://user:p%40ss@one,[::1]:26380,[::2]",
        "rediss://h:6380/0?ssl_ca_certs=/ca.pem&socket_timeout=2.5&health_check_interval=5",
    ],
)
def test_the_redis_urls_of_the_contract_are_taken_as_they_are(url: str) -> None:
    """Single servers over TCP, TLS or a socket, and sentinels."""
    assert load_settings({"VESSEL_REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize(
    "environ",
    [
        {"GROQ_API_KEY": SECRET, "OPENAI_API_KEY": SECRET, "VESSEL_REDIS_URL": f"redis://:{SECRET}@h:6379/0"},
        {"GROQ_API_KEY": SECRET, "VESSEL_REDIS_URL": f"redis://:{SECRET}@h:{SECRET}"},
        {"VESSEL_API_PORT": SECRET, "VESSEL_GROQ_PLAN": SECRET, "GROQ_BASE_URL": f"http://u:{SECRET}"},
    ],
)
def test_no_secret_is_shown(environ: dict[str, str]) -> None:
    """Neither the repr of good settings nor the text of faults holds a key or password, wherever it was put."""
    try:
        shown = repr(load_settings(environ))
    except SettingsError as error:
        shown = f"{error} {error!r} {error.__cause__!r} {error.__context__!r}"
    assert SECRET not in shown


def test_settings_cannot_be_changed() -> None:
    """Settings are read once; a change needs a restart."""
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).org = "other"  # type: ignore[misc]


def running(data_dir: Path, pid: object) -> Settings:
    """Write a server down as a `vessel up` of this pid does; give the settings of its data directory."""
    (data_dir / SERVER_FILE).write_text(json.dumps({"redis_url": "unix:///x.sock", "pid": pid}), encoding="utf-8")
    return load_settings({"VESSEL_DATA_DIR": str(data_dir)})


def test_the_server_of_a_running_vessel_up_is_found(tmp_path: Path) -> None:
    """Without VESSEL_REDIS_URL the server that was written down is used; with it, it is not."""
    settings = running(tmp_path, os.getpid())
    assert resolve_redis_url(settings) == "unix:///x.sock"
    named = load_settings({"VESSEL_DATA_DIR": str(tmp_path), "VESSEL_REDIS_URL": "redis://h:1"})
    assert resolve_redis_url(named) == "redis://h:1"


def test_the_server_of_a_dead_vessel_up_is_not_used(tmp_path: Path) -> None:
    """A file that a killed `vessel up` left behind counts as none."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    assert resolve_redis_url(running(tmp_path, ended.pid)) is None


@pytest.mark.parametrize("pid", [0, -1, "1", None, 2**80])
def test_a_server_file_that_says_nonsense_is_not_used(tmp_path: Path, pid: object) -> None:
    """Whatever stands in the file, it is either a live server or none."""
    assert resolve_redis_url(running(tmp_path, pid)) is None
    (tmp_path / SERVER_FILE).write_text("[1", encoding="utf-8")
    assert resolve_redis_url(load_settings({"VESSEL_DATA_DIR": str(tmp_path)})) is None


def test_importing_the_settings_brings_neither_redis_nor_celery() -> None:
    """The command line loads its settings before it knows whether it needs either."""
    code = "import sys, vessel.settings; print([m for m in ('redis', 'celery', 'kombu', 'groq') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert shown.stdout.strip() == "[]"


def test_the_address_of_redis_may_be_in_a_file(tmp_path: Path) -> None:
    """A password in it is then in no environment, not even a child's; another server's address still wins there."""
    (file := tmp_path / "redis_url").write_text("rediss://api:s3cret@h:6380/1\n")
    settings = load_settings({"VESSEL_REDIS_URL": f"file://{file}"})
    assert settings.redis_url == "rediss://api:s3cret@h:6380/1"
    base = {"VESSEL_REDIS_URL": f"file://{file}"}
    assert child_environment(settings.redis_url, base=base) == base
    assert child_environment("redis://other:1", base=base) == {"VESSEL_REDIS_URL": "redis://other:1"}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "names a file that cannot be read"),
        ("http://s3cret", "must start with"),
        ("file:///x", "must start with"),
    ],
)
def test_a_file_without_an_address_is_told(tmp_path: Path, content: str | None, fault: str) -> None:
    """The fault names the variable and the rule, never what the file holds."""
    file = tmp_path / "redis_url"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError) as told:
        load_settings({"VESSEL_REDIS_URL": f"file://{file}"})
    assert f"VESSEL_REDIS_URL: {fault}" in str(told.value)
    assert "s3cret" not in str(told.value)
