"""What a job that ended without a result means for whoever asked: a status that says whose fault it is."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi.testclient import TestClient

from tests.api.serving import GREETING
from tests.api.test_files_and_batches import Server
from tests.integration.fake_worker import beat
from tests.waiting import wait_until
from vessel.api.app import create_app
from vessel.api.faults import answer
from vessel.errors import JobFailed
from vessel.settings import load_settings
from vessel.upstream.outcome import Reason
from vessel.wire import JobState

if TYPE_CHECKING:
    import redis

    from vessel.settings import Settings

THEIRS = {
    Reason.BAD_REQUEST: 400,
    Reason.CONTEXT_LENGTH: 400,
    Reason.TOOL_USE_FAILED: 400,
    Reason.JSON_VALIDATE_FAILED: 400,
    Reason.LACKS_TOOLS: 400,
    Reason.MODEL_GONE: 404,
    Reason.TOO_LARGE: 413,
    Reason.UNPROCESSABLE: 422,
    Reason.RATE_LIMITED: 429,
    Reason.OVER_BUDGET: 429,
}
ENDS = [
    *((JobState.FAILED, str(reason), THEIRS.get(reason, 503)) for reason in Reason),
    *((JobState.FAILED, reason, 503) for reason in ("stream_broken", "poison_job", "a reason of tomorrow")),
    (JobState.EXPIRED, "deadline", 503),
    (JobState.CANCELLED, "cancelled", 409),
    (JobState.CANCELLED, "no_workers", 503),
]


@pytest.mark.parametrize(("state", "reason", "status"), ENDS)
def test_an_end_has_a_status(state: JobState, reason: str, status: int) -> None:
    """Groq's own refusals keep theirs; all that lies behind Vessel is a 503; an SDK must not repeat any of them."""
    told = answer(JobFailed("job_1", state, reason, "why"))
    assert told.status_code == status
    assert told.headers["x-should-retry"] == "false"
    assert ("retry-after" in told.headers) == (status in {429, 503})


def test_health_is_told_without_redis() -> None:
    """Nobody can be known then, so only the status is told, and never an error's body."""
    with TestClient(create_app(load_settings({}, redis_url="redis://localhost:1/0"))) as client:
        told, ready = client.get("/health"), client.get("/ready")
    assert (told.status_code, told.json()) == (503, {"status": "unhealthy"})
    assert (ready.status_code, ready.json()) == (503, {"status": "not_ready"})


@pytest.mark.redis("valkey")
def test_a_job_that_is_to_fail_without_workers_is_a_503_streamed_or_not(
    settings: Settings, redis_client: redis.Redis
) -> None:
    """Its last worker dies while it waits: cancelled, with the reason, and never a 409."""
    server = Server(settings, redis_client)
    door = server.client.door
    try:
        beat(server.client.runner, door, ["power"])
        body = {"model": "power", "messages": GREETING, "vessel": {"on_outage": "fail"}}
        with ThreadPoolExecutor(2) as threads, httpx.Client(base_url=server.url, timeout=30) as web:
            asked = [
                threads.submit(web.post, "/v1/chat/completions", json=body | {"stream": stream})
                for stream in (False, True)
            ]
            wait_until(lambda: redis_client.llen(door.keys.queue("power")) == 2)
            redis_client.delete(door.keys.live("power"))
            answers = [one.result() for one in asked]
        assert [(one.status_code, one.json()["error"]["code"]) for one in answers] == [(503, "no_workers")] * 2
        assert all("No worker serves tier power" in one.json()["error"]["message"] for one in answers)
        jobs = server.client.jobs()
        assert [(job.state, job.reason) for job in jobs] == [(JobState.CANCELLED, "no_workers")] * 2
    finally:
        server.close()
