"""kill -9 of the API leaves nothing half-accepted, and a repeat with the same key gives the same file and batch."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from tests.integration.fake_worker import beat
from tests.waiting import wait_until
from vessel.batches.model import CHUNK
from vessel.keyspace.connect import SyncRunner
from vessel.keyspace.names import Keys
from vessel.keyspace.script import word
from vessel.settings import load_settings
from vessel.submit import Door

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

pytestmark = pytest.mark.redis("valkey")
ROOT = Path(__file__).parents[2]
LINES = 6000


def content() -> bytes:
    """Write a file of several chunks."""
    rows = (
        {
            "custom_id": f"r{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": f"{n} " + "word " * 120}]},
        }
        for n in range(LINES)
    )
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


class Api:
    """An API process that is killed and started again."""

    def __init__(self, url: str, folder: Path, *, sweeps: bool) -> None:
        """Choose its port."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VESSEL_")}
        place = {"VESSEL_REDIS_URL": url, "VESSEL_DATA_DIR": str(folder), "PYTHONPATH": str(ROOT)}
        self.env = kept | place | {"TEST_SWEEPS": "1" if sweeps else "0"}
        self.log = folder / "api.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.web = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/v1", timeout=30)

    def start(self) -> Self:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "uvicorn", "--factory", "tests.api.batch_app:from_environment"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(self.port), "--log-level", "warning"], env=self.env, stdout=log, stderr=log,
                cwd=ROOT,
            )  # fmt: skip
        wait_until(self.answers, 60)
        return self

    def answers(self) -> bool:
        """Tell whether it answers."""
        try:
            return self.web.get("/batches").is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """Kill it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def upload(self, data: bytes, key: str = "k") -> httpx.Response:
        """Upload a file."""
        return self.web.post("/files", files={"file": ("in.jsonl", data)}, data={"purpose": "batch"},
                             headers={"idempotency-key": key})  # fmt: skip

    def create(self, file_id: str, key: str = "b") -> Any:
        """Make a batch of a file."""
        asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        return self.web.post("/batches", json=asked, headers={"idempotency-key": key}).json()


@pytest.fixture
def api(redis_url: str, tmp_path: Path) -> Iterator[Api]:
    """Give an API process that sweeps, too."""
    made = Api(redis_url, tmp_path, sweeps=True).start()
    yield made
    made.kill()
    made.web.close()


def test_an_upload_that_is_cut_leaves_nothing_to_see(api: Api, redis_client: redis.Redis) -> None:
    """Killed in the middle of the body: no file, what was written goes by itself, and the repeat makes one file."""
    data = content()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    asked = b"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: k\r\nContent-Length: 99999999\r\n"
    asked += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    with socket.create_connection(("127.0.0.1", api.port)) as wire:
        wire.sendall(asked + head + data[: 2 * CHUNK + 100])
        wait_until(lambda: len(redis_client.keys("vessel:file:*")) == 2)
        api.kill()
    assert all(redis_client.pttl(key) > 0 for key in redis_client.keys("vessel:file:*"))
    api.start()
    assert api.web.get("/files").json()["data"] == []
    first = api.upload(data).json()
    assert first["bytes"] == len(data)
    assert api.upload(data).json() == first
    assert [row["id"] for row in api.web.get("/files").json()["data"]] == [first["id"]]


def test_a_batch_whose_validation_is_cut_is_validated_anew_and_whole(api: Api, redis_client: redis.Redis) -> None:
    """Killed while it checks lines: the batch is the same one, no line of it runs before all were checked."""
    file_id = api.upload(content()).json()["id"]
    made = api.create(file_id)
    keys = Keys("vessel")
    wait_until(lambda: redis_client.hget(keys.batch(made["id"]), "owner"))
    api.kill()
    status = redis_client.hget(keys.batch(made["id"]), "status")
    assert status in {b"validating", b"in_progress"}
    if status == b"validating":
        assert redis_client.zcard(keys.index) == 0
        redis_client.hset(keys.batch(made["id"]), "owned_until", 1)  # its lease is over
    api.start()
    again = api.create(file_id)
    assert again["id"] == made["id"]
    wait_until(lambda: api.web.get(f"/batches/{made['id']}").json()["status"] == "in_progress", 60)
    counts = api.web.get(f"/batches/{made['id']}").json()["request_counts"]
    assert counts == {"total": LINES, "completed": 0, "failed": 0}
    assert len(api.web.get("/batches").json()["data"]) == 1


def names(store: redis.Redis, listed: str) -> set[str]:
    """Name what is in a listing."""
    found: Any = store.zrange(listed, 0, -1)
    return {word(one) for one in found}


def post(api: Api, path: str, body: dict[str, Any], key: str) -> httpx.Response | None:
    """Post something; None where the API dies meanwhile."""
    try:
        return api.web.post(path, json=body, headers={"idempotency-key": key})
    except httpx.TransportError:
        return None


def cut(api: Api, path: str, bodies: dict[str, dict[str, Any]], some: Callable[[], bool]) -> None:
    """Post many at once, and kill the API as soon as some of them have come through."""
    with ThreadPoolExecutor(len(bodies)) as threads:
        for key, body in bodies.items():
            threads.submit(post, api, path, body, key)
        wait_until(some)
        api.kill()
    api.start()


def test_a_batch_whose_post_is_cut_is_made_once_or_not_at_all(api: Api, redis_client: redis.Redis) -> None:
    """Killed among thirty posts: a repeat with its key gives the same batch, with another body a conflict."""
    file_id = api.upload(b'{"custom_id": "a"}\n').json()["id"]
    body = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    bodies = {f"k{n}": body | {"metadata": {"n": str(n)}} for n in range(30)}
    listed = Keys("vessel").batches("default")
    cut(api, "/batches", bodies, lambda: redis_client.zcard(listed) > 3)
    before = names(redis_client, listed)
    for batch_id in before:
        assert api.web.get(f"/batches/{batch_id}").json()["metadata"]["n"].isdecimal()
    again = {key: post(api, "/batches", one, key) for key, one in bodies.items()}
    made = {key: answer.json()["id"] for key, answer in again.items() if answer is not None}
    assert before <= set(made.values())
    assert names(redis_client, listed) == set(made.values())
    assert len(set(made.values())) == len(bodies)
    other = post(api, "/batches", body | {"metadata": {"n": "another"}}, "k0")
    assert other is not None
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


def test_a_chat_whose_post_is_cut_is_one_job_or_none(api: Api, redis_client: redis.Redis, redis_url: str) -> None:
    """Killed among thirty posts: whole jobs with their tickets, and a repeat with its key gives the same one."""
    door = Door(load_settings({"VESSEL_REDIS_URL": redis_url}))
    beat(SyncRunner(redis_client), door, list(door.registry.tiers))
    chat = {"model": "openai/gpt-oss-20b", "messages": [{"role": "user", "content": "hi"}]}
    bodies = {f"c{n}": chat | {"seed": n} for n in range(30)}
    cut(api, "/chat/completions", bodies, lambda: redis_client.zcard(door.keys.index) > 3)
    before = names(redis_client, door.keys.index)
    assert all(redis_client.hget(door.keys.job(job_id), "state") == b"queued" for job_id in before)
    interactive = {"vessel": {"priority": "interactive"}}  # what a chat completion is
    again = {key: post(api, "/jobs", body | interactive, key) for key, body in bodies.items()}
    made = {answer.json()["id"] for answer in again.values() if answer is not None}
    assert before <= made
    assert len(made) == redis_client.zcard(door.keys.index) == redis_client.zcard(door.keys.own_index("default")) == 30


def read_and_kill(api: Api, file_id: str) -> None:
    """Kill the API once some bytes have come, and read on."""
    with api.web.stream("GET", f"/files/{file_id}/content") as answer:
        for _ in answer.iter_raw(1024):
            api.kill()


def test_a_download_that_is_cut_is_read_again_from_its_start(api: Api) -> None:
    """Killed while it sends: the reader sees that it was cut, and the next one gets it whole."""
    data = content()
    file_id = api.upload(data).json()["id"]
    with pytest.raises(httpx.TransportError):
        read_and_kill(api, file_id)
    api.start()
    assert api.web.get(f"/files/{file_id}/content").content == data
