"""Metrics of an API whose Redis is away: that much is told, and nothing that looks like a figure."""

from __future__ import annotations

from starlette.testclient import TestClient

from vessel.api.app import create_app
from vessel.settings import load_settings


def test_an_api_without_redis_tells_that_and_no_more() -> None:
    """Nobody can be identified, so neither counters of requests nor zeros for unknown figures are shown."""
    app = create_app(load_settings({}, redis_url="redis://127.0.0.1:1/0"))
    with TestClient(app) as client:
        client.get("/health")
        answer = client.get("/metrics", headers={"authorization": "Bearer vsl_anything"})
    assert answer.status_code == 200
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    assert lines == ["vessel_redis_up 0.0"]
