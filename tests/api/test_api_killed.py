"""The API process dies without a word, or is asked to end: jobs go on, and whoever comes again finds theirs."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

import httpx

from bench.stack import free_port
from tests.api.serving import BODY, Served
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def posted(served: Served, path: str, body: Any, headers: dict[str, str]) -> threading.Thread:
    """Post in the background, whatever comes of it."""

    def post() -> None:
        with served.http() as client:
            try:
                client.post(path, json=body, headers=headers)
            except httpx.HTTPError:
                return

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def test_a_killed_api_leaves_each_job_once_and_its_key_finds_it(tmp_path: Path) -> None:
    """Chat, stream and job in flight at kill -9: after a restart the same requests give the same jobs."""
    port = free_port()
    asked = [
        ("/v1/chat/completions", BODY, {"Idempotency-Key": "chat"}),
        ("/v1/chat/completions", BODY | {"stream": True}, {"Idempotency-Key": "stream"}),
        ("/v1/jobs", BODY, {"Idempotency-Key": "job"}),
        ("/v1/chat/completions", BODY | {"seed": 7}, {}),
    ]
    with Served(tmp_path) as served:
        served.start_worker()
        served.start_api(port=port)
        with served.http() as client:
            client.put("/v1/maintenance", json={})
        threads = [posted(served, *one) for one in asked]
        with served.inside() as (door, runner):
            wait_until(lambda: runner.client.zcard(door.keys.index) == len(asked))
        served.stop_api(signal.SIGKILL)
        for thread in threads:
            thread.join(20)
        served.start_api(port=port)
        with served.http() as client:
            before = {job["id"] for job in client.get("/v1/jobs").json()["data"]}
            client.delete("/v1/maintenance")
            found = set()
            for path, body, headers in asked:
                answer = client.post(path, json=body, headers=headers | {"x-stainless-retry-count": "1"})
                assert answer.status_code in {200, 202}, answer.text
                found.add(answer.headers.get("x-vessel-job-id") or answer.json()["id"])
            assert found == before


def test_an_api_that_is_asked_to_end_answers_those_who_only_wait(tmp_path: Path) -> None:
    """A long poll and an event stream end at once; the process ends with 0."""
    with Served(tmp_path) as served:
        served.start_api()
        with served.http() as client:
            job_id = client.post("/v1/jobs", json=BODY).json()["id"]
        states: list[Any] = []
        told = threading.Event()

        def poll() -> None:
            with served.http() as client:
                states.append(client.get(f"/v1/jobs/{job_id}?wait=60").json()["state"])

        def follow() -> None:
            with served.http() as client, client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        states.append(1)
                        told.set()

        threads = [threading.Thread(target=poll), threading.Thread(target=follow)]
        for thread in threads:
            thread.start()
        with served.http() as client:
            wait_until(lambda: "vessel_api_requests_open 3.0" in client.get("/metrics").text)
        assert told.wait(30)
        assert served.stop_api() == 0
        for thread in threads:
            thread.join(20)
        assert sorted(map(str, states)) == ["1", "queued"]
