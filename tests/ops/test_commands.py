"""Every command of compose.yaml comes up under Redis users that may do just what they need."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import redis
import yaml  # type: ignore[import-untyped]  # it has no types

from bench.stack import free_port
from tests.ops.composed import OPS, ROOT, Composed, compose, is_ours
from tests.ops.servers import Servers
from tests.waiting import wait_until
from vessel.keyspace.script import load, script_names
from vessel.registry import load_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server on PATH")
USERS = ("api", "worker", "flower", "metrics", "operator")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    """Start everything once."""
    with Composed(tmp_path_factory.mktemp("composed")) as started:
        started.await_health()
        yield started


def _rest(stack: Composed) -> httpx.Client:
    key = (stack.secrets / "api_key").read_text().strip()
    url = f"http://127.0.0.1:{stack.ports['api']}"
    return httpx.Client(base_url=url, timeout=60, headers={"authorization": f"Bearer {key}"})


def _body(tier: str, **more: Any) -> dict[str, Any]:
    return {"model": tier, "messages": [{"role": "user", "content": "hello"}]} | more


@pytest.mark.system
def test_every_service_of_ours_came_up_and_is_well(stack: Composed) -> None:
    """Its own health check says so, from its own environment."""
    ours = {name for name, service in stack.services.items() if is_ours(service)}
    assert ours == set(stack.running) - {"redis", "prometheus"}
    assert {"api", "simulator", "scheduler", "flower", "mcp", "worker-fast", "worker-power", "worker-compound"} == ours


@pytest.mark.system
def test_the_health_check_of_every_service_can_go_red(stack: Composed) -> None:
    """A process that is stuck still has its port and its connections: it alone is ill, and well when it goes on."""
    ours = [name for name in stack.running if name not in {"redis", "prometheus"}]
    for name in ours:
        stack.running[name].send_signal(signal.SIGSTOP)
    try:
        for name in ours:
            wait_until(partial(_is_ill, stack, name), 60)
    finally:
        for name in ours:
            stack.running[name].send_signal(signal.SIGCONT)
    for name in ours:
        wait_until(partial(stack.is_well, name), 60)


def _is_ill(stack: Composed, name: str) -> bool:
    return not stack.is_well(name)


@pytest.mark.system
def test_one_that_is_stuck_makes_no_other_ill(stack: Composed) -> None:
    """The scheduler's check is about the scheduler: workers sweep as well, and Redis answers."""
    stack.running["scheduler"].send_signal(signal.SIGSTOP)
    try:
        wait_until(partial(_is_ill, stack, "scheduler"), 60)
        assert all(stack.is_well(name) for name in ("worker-fast", "mcp", "api"))
    finally:
        stack.running["scheduler"].send_signal(signal.SIGCONT)
    wait_until(partial(stack.is_well, "scheduler"), 60)


@pytest.mark.system
def test_everything_works_under_users_with_just_their_commands(stack: Composed) -> None:
    """Each tier answers, streams, batches, steering and looking work, and Redis has refused nothing to anybody."""
    with stack.client("operator") as operator, _rest(stack) as rest:
        for tier in ("ultra_fast", "balanced", "compound"):
            answer = rest.post("/v1/chat/completions", json=_body(tier))
            assert answer.status_code == 200, answer.text
        streamed = rest.post("/v1/chat/completions", json=_body("power", stream=True)).text
        assert streamed.rstrip().endswith("data: [DONE]")
        assert rest.get("/health").json()["status"] == "healthy"
        assert rest.get("/metrics").status_code == 200
        _batch(rest)
        held = stack.cli("maintenance", "on", "--tier", "power")
        assert held.returncode == 0, held.stderr
        job = rest.post("/v1/jobs", json=_body("power")).json()["id"]
        assert rest.delete(f"/v1/jobs/{job}").json()["state"] in {"cancelling", "cancelled"}
        assert rest.get("/v1/usage").status_code == rest.get("/v1/limits").status_code == 200
        assert rest.delete("/v1/maintenance").status_code == 200
        assert _refused(operator) == set()


def _refused(operator: redis.Redis) -> set[tuple[str, str, str]]:
    return {(str(entry["username"]), str(entry["reason"]), str(entry["object"])) for entry in operator.acl_log()}


@contextmanager
def _probing(stack: Composed) -> Iterator[None]:
    """Let a test try what is refused: nothing was until now, and its tries are struck from the log of refusals."""
    with stack.client("operator") as operator:
        assert _refused(operator) == set()
        yield
        operator.acl_log_reset()


def _batch(rest: httpx.Client) -> None:
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": _body("ultra_fast")}
    file = rest.post("/v1/files", files={"file": ("b.jsonl", json.dumps(line))}, data={"purpose": "batch"}).json()
    body = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = rest.post("/v1/batches", json=body).json()["id"]
    ended = wait_until(lambda: _ended(rest, batch), 60)
    assert ended["request_counts"] == {"total": 1, "completed": 1, "failed": 0}
    assert rest.get(f"/v1/files/{ended['output_file_id']}/content").status_code == 200


def _ended(rest: httpx.Client, batch: str) -> dict[str, Any]:
    found: dict[str, Any] = rest.get(f"/v1/batches/{batch}").json()
    return found if found["status"] == "completed" else {}


@pytest.mark.system
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs prometheus: apt-get install prometheus")
def test_prometheus_scrapes_what_it_is_told_to(stack: Composed) -> None:
    """Its own command and configuration, only names and paths of this machine: all targets up, all rules sound.

    Debian's version is older than the image's. Of Grafana see test_compose.py: it cannot be had here.
    """
    port, folder = free_port(), stack.folder / "prometheus"
    stack.spawn("prometheus", _prometheus(stack, folder, port), dict(os.environ))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as asked:
        wait_until(lambda: _ready(asked), 60)
        seen = wait_until(lambda: _scraped(asked), 60)
        assert [one for one in seen if one["health"] != "up"] == []
        assert {one["labels"]["job"] for one in seen} == {"vessel-api", "vessel-worker"}
        found = asked.get("/api/v1/query", params={"query": "vessel_workers_live"}).json()["data"]["result"]
        assert {one["metric"]["tier"]: one["value"][1] for one in found} == dict.fromkeys(load_registry().tiers, "1")
        groups = wait_until(lambda: _evaluated(asked), 60)
        assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}


def _prometheus(stack: Composed, folder: Path, port: int) -> list[str]:
    """Give the command of the service `prometheus`, its paths, targets and port those of this machine."""
    folder.mkdir()
    shutil.copy(OPS / "alerts.yml", folder)
    config = yaml.safe_load((OPS / "compose" / "prometheus.yml").read_text("utf-8"))
    api, workers = config["scrape_configs"]
    assert api["static_configs"] == [{"targets": ["api:8080"]}]
    (names,) = workers.pop("dns_sd_configs")
    there = [name for name, service in stack.services.items() if is_ours(service) and name in names["names"]]
    assert sorted(there) == sorted(names["names"])
    api["static_configs"] = [{"targets": [f"127.0.0.1:{stack.ports['api']}"]}]
    # Processes of one machine take one port after another.
    first = stack.ports["metrics"]
    workers["static_configs"] = [{"targets": [f"127.0.0.1:{first + number}" for number in range(len(there))]}]
    assert names["port"] == 9108
    secrets = api["authorization"]
    secrets["credentials_file"] = secrets["credentials_file"].replace("/run/secrets", str(stack.secrets))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    places = {"/etc/prometheus": str(folder), "=/prometheus": f"={folder}/data"}
    found = ["prometheus", *stack.services["prometheus"]["command"]]
    for place, here in places.items():
        found = [part.replace(place, here) for part in found]
    return [*found, f"--web.listen-address=127.0.0.1:{port}"]


def _ready(asked: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return asked.get("/-/ready").status_code == 200
    return False


def _scraped(asked: httpx.Client) -> list[dict[str, Any]]:
    """List the targets once each was scraped."""
    found: list[dict[str, Any]] = asked.get("/api/v1/targets").json()["data"]["activeTargets"]
    return found if all(one["health"] != "unknown" for one in found) else []


def _evaluated(asked: httpx.Client) -> list[dict[str, Any]]:
    """List the groups of rules once each rule was evaluated."""
    found: list[dict[str, Any]] = asked.get("/api/v1/rules").json()["data"]["groups"]
    return found if found and all(r["health"] != "unknown" for group in found for r in group["rules"]) else []


FORBIDDEN = (
    "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG SET maxmemory 1", "SHUTDOWN NOSAVE", "MONITOR",
    "ACL SETUSER x on", "REPLICAOF h 1", "SCRIPT FLUSH", "CLIENT KILL ID 1", "CLIENT PAUSE 1", "MODULE LIST",
    "SAVE", "GET other:key", "SET other:key 1", "PUBLISH other 1", "SWAPDB 0 1", "MIGRATE h 1 k 0 1",
)  # fmt: skip


@pytest.mark.parametrize("user", USERS)
@pytest.mark.system
def test_no_user_may_do_more(stack: Composed, user: str) -> None:
    """What ends, empties or reconfigures the server, and what is another program's, is refused to each of them."""
    with _probing(stack), stack.client(user) as client:
        for command in FORBIDDEN:
            if user == "operator" and command.startswith("CLIENT PAUSE"):
                continue  # the last moment of a backup
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command.split())
    with (
        _probing(stack),
        redis.Redis(port=stack.ports["redis"]) as nobody,
        pytest.raises(redis.exceptions.AuthenticationError),
    ):
        nobody.ping()


@pytest.mark.system
def test_flower_and_metrics_read_no_job(stack: Composed) -> None:
    """Flower counts queues; prompts and answers are out of its reach, as they are out of that of metrics."""
    with _rest(stack) as rest, stack.client("api") as api:
        job = rest.post("/v1/jobs", json=_body("power")).json()["id"]
        assert api.hexists(f"vessel:job:{job}", "request") or api.hlen(f"vessel:job:{job}")
    for user in ("flower", "metrics"):
        with _probing(stack), stack.client(user) as client:
            for command in ("HGETALL", "DUMP", "HVALS", "GET"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(command, f"vessel:job:{job}")
    with stack.client("flower") as flower:
        assert flower.llen("vessel:power") >= 0


def test_a_server_with_these_users_reads_its_file_again(tmp_path: Path) -> None:
    """Redis 7.0 reads as the user `default`: without rights it would leave transactions out, silently."""
    with Servers(tmp_path, "http://127.0.0.1:1", f"redis://@127.0.0.1:{(port := free_port())}/0") as servers:
        for name in ("first", "second"):
            servers.redis(name, "--port", str(port), "--appendfsync", "always", "--dir", str(tmp_path))
            with redis.Redis.from_url((servers.secrets / "redis_url_worker").read_text().strip()) as client:
                wait_until(partial(_answers, client))
                if name == "first":
                    with client.pipeline(transaction=True) as both:
                        both.hset("vessel:job:a", "state", "queued").lpush("vessel:power", "ticket").execute()
                    servers.running["first"].kill()
                    servers.running["first"].wait()
                else:
                    assert (client.hget("vessel:job:a", "state"), client.llen("vessel:power")) == (b"queued", 1)


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


def _allowed(user: str) -> set[str]:
    line = next(line for line in (OPS / "users.acl").read_text().splitlines() if line.startswith(f"user {user} "))
    return {word[1:].partition("|")[0] for word in line.split() if word.startswith("+")}


def test_every_command_of_the_scripts_and_of_the_code_is_allowed() -> None:
    """A script's commands are checked against its caller's rights when it comes to them, which may be rarely."""
    called = {
        name.lower() for script in script_names() for name in re.findall(r"redis\.call\('(\w+)'", load(script).text)
    }
    code = "".join(path.read_text("utf-8") for path in (ROOT / "vessel").rglob("*.py") if "doctor" not in path.name)
    called |= {name.lower() for name in re.findall(r"command\(\s*\"([A-Z]+)\"", code)}
    operators = {"config", "scan", "dump", "restore", "type", "bgsave", "lastsave", "dbsize", "acl", "client"}
    for user in ("api", "worker"):
        assert called - operators <= _allowed(user), user
    assert called <= _allowed("operator")


def test_compose_names_only_files_that_are_there() -> None:
    """What is mounted and what is built from exists; secrets are made by the script."""
    for name, service in compose()["services"].items():
        mounted = [v.split(":")[0] for v in service.get("volumes", ()) if v.startswith("./")]
        assert all((ROOT / m).exists() for m in mounted), name
