"""Redis behind TLS, and Redis that moves to another server by Sentinel, with real servers and the shipped files."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from typing import TYPE_CHECKING

import pytest
import redis

from bench.stack import free_port
from tests.ops.composed import OPS
from tests.ops.servers import TIER, Servers, certificates
from tests.simulated import Process
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

NEEDED = ("redis-server", "redis-sentinel", "openssl")
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason="needs redis-server, redis-sentinel and openssl"),
]


def test_redis_behind_tls(tmp_path: Path) -> None:
    """Workers and producers go through TLS and check the certificate; without the authority nothing is accepted."""
    (tls := tmp_path / "tls").mkdir()
    certificates(tls, "DNS:localhost,IP:127.0.0.1")
    port = free_port()
    address = f"rediss://@localhost:{port}/0?ssl_ca_certs={tls}/ca.crt"
    conf = tmp_path / "tls.conf"
    text = (OPS / "redis" / "tls.conf").read_text().replace("/etc/vessel/redis/tls", str(tls))
    conf.write_text(text.replace("/var/lib/vessel-redis", str(tmp_path)))
    with Process(tmp_path) as groq, Servers(tmp_path, groq.url, address) as servers:
        servers.redis("tls-redis", "--include", str(conf), "--tls-port", str(port))
        servers.work()
        done = servers.vessel("wait", *servers.submit(20), "--json")
        assert [json.loads(line)["state"] for line in done.stdout.splitlines()] == ["succeeded"] * 20
        with redis.Redis(port=port) as plain, pytest.raises(redis.ConnectionError):
            plain.ping()
        url = (servers.secrets / "redis_url_api").read_text().partition("?")[0]
        refused = servers.vessel("query", "hello", VESSEL_REDIS_URL=url)
        assert refused.returncode == 3
        assert "Traceback" not in refused.stderr
        assert url.split(":")[2][:20] not in refused.stderr


def test_a_failover_under_load(tmp_path: Path) -> None:
    """The master is killed in the midst of the work: what had reached the replica is done, and new work is taken."""
    ports = {name: free_port() for name in ("one", "two", "s1", "s2", "s3")}
    hosts = ",".join(f"127.0.0.1:{ports[name]}" for name in ("s1", "s2", "s3"))
    latency = ("--latency-ms", "200")
    with (
        Process(tmp_path, latency=latency) as groq,
        Servers(tmp_path, groq.url, f"sentinel://@{hosts}/vessel/0") as servers,
    ):
        both = ("--masteruser", "replica", "--masterauth", servers.password("replica"))
        servers.redis("one", "--port", str(ports["one"]), *both)
        servers.redis("two", "--port", str(ports["two"]), "--replicaof", f"127.0.0.1 {ports['one']}", *both)
        text = (OPS / "redis" / "sentinel.conf").read_text().replace("MASTER 6379", f"127.0.0.1 {ports['one']}")
        text = text.replace("PASSWORD", servers.password("sentinel")).replace(
            "milliseconds vessel 5000", "milliseconds vessel 1000"
        )
        for name in ("s1", "s2", "s3"):
            (folder := tmp_path / name).mkdir()
            (conf := folder / "sentinel.conf").write_text(
                text.replace("port 26379", f"port {ports[name]}\nbind 127.0.0.1")
            )
            servers.start(name, ["redis-sentinel", conf])
        wait_until(lambda: _replicas(servers, ports) == 1, 60)
        servers.work()
        jobs = servers.submit(200)
        wait_until(lambda: _lag(servers, ports) == 0, 60)
        servers.running["one"].send_signal(signal.SIGKILL)
        servers.running["one"].wait()
        wait_until(lambda: servers.vessel("submit", "after", "--tier", TIER).returncode == 0, 90)
        done = servers.vessel("wait", *jobs, "--json", "--timeout", "100")
        states = [json.loads(line)["state"] for line in done.stdout.splitlines()]
        assert states == ["succeeded"] * 200, (done.stderr, servers.log("worker")[-3000:])
        answered = servers.vessel("query", "hello again", "--tier", TIER)
        assert answered.returncode == 0, answered.stderr
        assert servers.running["worker"].poll() is None
        assert servers.running["scheduler"].poll() is None
        assert groq.ask("stats")["accepted"] >= 201


def _info(servers: Servers, port: int) -> dict[str, object]:
    password = servers.password("metrics")
    with contextlib.suppress(redis.RedisError), redis.Redis(port=port, username="metrics", password=password) as client:
        return dict(client.info("replication"))
    return {}


def _replicas(servers: Servers, ports: dict[str, int]) -> object:
    return _info(servers, ports["one"]).get("connected_slaves")


def _lag(servers: Servers, ports: dict[str, int]) -> int:
    master, replica = _info(servers, ports["one"]), _info(servers, ports["two"])
    return max(0, int(str(master["master_repl_offset"])) - int(str(replica["slave_repl_offset"])))
