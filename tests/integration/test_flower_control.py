"""Flower's buttons behind a login: what they do to a Vessel worker, and what they say where they do nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.observed import Observed
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.system
SLOW = {"model": "auto", "messages": [{"role": "user", "content": "slowly"}]}


def test_pool_queue_task_and_shutdown_by_flower(tmp_path: Path) -> None:
    """Slots grow and shrink, a queue is left and taken up, a revoked job comes back, a shutdown drains."""
    with Observed(tmp_path / "s") as stack:
        worker = stack.start_worker(slots=2)
        stack.start_flower("--control")
        stack.start_api()
        with stack.flower() as flower, stack.http() as api:
            (name,) = flower.get("/api/workers?refresh=1").json()
            assert flower.post(f"/api/worker/pool/grow/{name}", params={"n": 3}).status_code == 200
            assert flower.post(f"/api/worker/pool/shrink/{name}", params={"n": 1}).status_code == 200
            assert pool(flower, name)["max-concurrency"] == 4
            left = flower.post(f"/api/worker/queue/cancel-consumer/{name}", params={"queue": "power"})
            assert left.status_code == 200
            assert flower.post(f"/api/worker/queue/add-consumer/{name}", params={"queue": "power"}).status_code == 200
            assert flower.post("/api/task/async-apply/vessel.run_jobs", json={"args": [[]]}).status_code == 403
            stack.ask("/_sim/faults", {"kind": "slow", "delay_s": 5, "count": 1})
            job = api.post("/v1/jobs", json=SLOW).json()["id"]
            task = wait_until(lambda: [t for t in flower.get("/api/tasks").json() if t.startswith(job)])[0]
            assert flower.post(f"/api/task/revoke/{task}", params={"terminate": "true"}).status_code == 200
            wait_until(lambda: api.get(f"/v1/jobs/{job}").json()["state"] == "succeeded", 60)
            assert flower.post(f"/api/worker/pool/restart/{name}").status_code in {403, 404, 500}
            assert flower.post(f"/api/worker/shutdown/{name}").status_code == 200
            assert worker.wait(30) == 0


def pool(flower: Any, name: str) -> Any:
    """Read what a worker says of its pool."""
    return flower.get(f"/api/workers?refresh=1&workername={name}").json()[name]["stats"]["pool"]
