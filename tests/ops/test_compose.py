"""compose.yaml and the Dockerfile under the eyes of the real Compose and of hadolint, and by our own rules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it has no types

from tests.ops.composed import ROOT, compose, filled, is_ours
from vessel.execute.persist import PATIENCE_S
from vessel.registry import load_registry
from vessel.settings import Settings

PROFILES = ((), ("sim",), ("observe",), ("sim", "observe"))


def _tool(name: str) -> str:
    """Find a program that a development dependency brings."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: make test installs it")
    return found


def _compose(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("VESSEL_", "GROQ_", "COMPOSE_", "DOCKER_"))}
    return subprocess.run(
        [_tool("docker-compose"), "-f", ROOT / "compose.yaml", *arguments],
        capture_output=True, text=True, check=False,
        env=kept | {"DOCKER_HOST": "unix:///nonexistent/docker.sock"} | (env or {}),
    )  # fmt: skip


def _config(*options: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    done = _compose(*options, "config", "--format", "json", env=env)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("profiles", PROFILES, ids=lambda given: "+".join(given) or "none")
def test_compose_takes_every_profile(profiles: tuple[str, ...]) -> None:
    """The real Compose reads it; a profile adds its services and nothing else changes."""
    found = _config(*(part for name in profiles for part in ("--profile", name)))["services"]
    usual = {"redis", "api", "worker-fast", "worker-power", "worker-compound", "scheduler", "flower", "mcp"}
    added = {"sim": {"simulator"}, "observe": {"prometheus", "grafana"}}
    assert set(found) == usual.union(*(added[name] for name in profiles))


def test_the_simulator_stands_in_for_groq() -> None:
    """One option starts it and sends everything there; without it everything goes to Groq."""
    simulated = _config("--env-file", str(ROOT / "ops" / "compose" / "sim.env"))
    assert "simulator" in simulated["services"]
    for name in ("worker-fast", "worker-power", "worker-compound", "scheduler"):
        assert simulated["services"][name]["environment"]["GROQ_BASE_URL"] == "http://simulator:8090"
        assert _config()["services"][name]["environment"]["GROQ_BASE_URL"] == "https://api.groq.com"
    assert simulated["secrets"]["groq_api_key"]["file"].endswith("/ops/compose/sim_api_key")


def test_what_calls_groq_waits_for_the_simulator() -> None:
    """Where there is one; it gets the address that it has to find in GROQ_BASE_URL, else it does not start."""
    url = "http://simulator:8090"
    services = _config("--profile", "sim", env={"GROQ_BASE_URL": url})["services"]
    calling = {name for name, one in services.items() if one.get("environment", {}).get("GROQ_BASE_URL") == url}
    assert calling == {"worker-fast", "worker-power", "worker-compound", "scheduler", "simulator"}
    for name in calling - {"simulator"}:
        assert services[name]["depends_on"]["simulator"] == {"condition": "service_healthy", "required": False}
    command = services["simulator"]["command"]
    assert command[command.index("--url") + 1] == url
    # The profile alone sends nothing there, so it must not look as if it did.
    alone = _config("--profile", "sim")["services"]
    assert alone["simulator"]["environment"]["GROQ_BASE_URL"] == "https://api.groq.com"
    assert alone["simulator"]["environment"]["GROQ_BASE_URL"] == alone["worker-fast"]["environment"]["GROQ_BASE_URL"]


def test_hadolint_finds_nothing() -> None:
    """No finding, and none is waived."""
    done = subprocess.run([_tool("hadolint"), ROOT / "ops" / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_container_is_closed() -> None:
    """Not root, nothing writable but what is named, no capability, bounded, healthy by its own word, and by name."""
    for name, service in compose()["services"].items():
        user = service["user"]
        assert user.partition(":")[0] not in {"", "0", "root"}, name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["healthcheck"]["test"], name
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert "docker.sock" not in str(service), name


def test_every_image_is_of_one_exact_version() -> None:
    """Name, three numbers and what it is built on; a variable takes a digest as well, and both files have one base."""
    services = compose()["services"]
    images = [service["image"] for service in services.values() if not is_ours(service)]
    base = services["api"]["build"]["args"]["BASE"]
    for image in {*images, base}:
        assert re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z/]+:v?\d+\.\d+\.\d+(-slim)?(-bookworm)?\}", image), image
    dockerfile = (ROOT / "ops" / "Dockerfile").read_text("utf-8")
    assert f"ARG BASE={filled(base, {})}\n" in dockerfile
    pinned = "python:3.11.15-slim-bookworm@sha256:" + 64 * "0"
    assert _config(env={"PYTHON_IMAGE": pinned})["services"]["api"]["build"]["args"]["BASE"] == pinned


def test_grafana_is_provisioned_with_what_is_there() -> None:
    """The source is the service Prometheus, and the dashboards are where they are mounted.

    Grafana itself is in no package that could be installed here: its files are validated, its command is not run.
    """
    services = compose()["services"]
    mounted = dict(str(volume).split(":")[:2] for volume in services["grafana"]["volumes"])
    (source,) = yaml.safe_load((ROOT / "ops/compose/datasource.yml").read_text("utf-8"))["datasources"]
    (provider,) = yaml.safe_load((ROOT / "ops/compose/dashboards.yml").read_text("utf-8"))["providers"]
    port = services["prometheus"]["ports"][0].rpartition(":")[2]
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", f"http://prometheus:{port}", True)
    assert mounted["./ops/grafana"] == provider["options"]["path"]
    assert set(mounted.values()) > {
        "/etc/grafana/provisioning/datasources/vessel.yml", "/etc/grafana/provisioning/dashboards/vessel.yml",
    }  # fmt: skip
    dashboard = json.loads((ROOT / "ops/grafana/vessel.json").read_text("utf-8"))
    (variable,) = [one for one in dashboard["templating"]["list"] if one["type"] == "datasource"]
    assert (variable["name"], variable["query"]) == ("datasource", source["type"])


def test_secrets_are_files_and_go_only_to_whom_they_are_for() -> None:
    """No environment holds one; the key for Groq is for workers and the scheduler, not for the faces."""
    found = compose()
    for name, service in found["services"].items():
        for key, value in service.get("environment", {}).items():
            secret = any(part in key for part in ("KEY", "PASSWORD", "AUTH", "REDIS_URL"))
            assert not secret or str(value).startswith(("/run/secrets/", "file:///run/secrets/")), (name, key)
        holds = "groq_api_key" in service.get("secrets", ())
        assert holds == (name.startswith("worker-") or name == "scheduler"), name
    assert all(str(secret["file"]).startswith(("./secrets/", "${GROQ_API_KEY_SECRET:-./secrets/"))
               for secret in found["secrets"].values())  # fmt: skip
    assert "secrets" in (ROOT / ".gitignore").read_text("utf-8")
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert "*" in ignored
    assert not any(line.startswith("!secrets") for line in ignored)


def test_the_workers_serve_every_tier_once() -> None:
    """A tier that is in the registry and in no group would be served by nobody."""
    commands = [s["command"] for name, s in compose()["services"].items() if name.startswith("worker-")]
    served = [tier for command in commands for tier in command[command.index("--tiers") + 1].split(",")]
    assert sorted(served) == sorted(load_registry().tiers)


def test_a_worker_may_end_its_longest_call() -> None:
    """Compose kills after the grace period: the longest call, a Redis that is away, and the spool fit in."""
    for name, service in compose()["services"].items():
        if name.startswith("worker-"):
            assert int(service["stop_grace_period"].removesuffix("s")) >= Settings().call_timeout + PATIENCE_S + 10
