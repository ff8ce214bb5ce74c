"""The real worker app with the fake executor behind it: `celery -A tests.integration.fake_worker_app`."""

from __future__ import annotations

import os

from workers import boot

boot.EXECUTOR = "tests.integration.fake_executor:FakeExecutor"

from workers.app import app  # noqa: E402  the executor's name must stand first

__all__ = ["app"]

if "TEST_VISIBILITY" in os.environ:
    app.conf.broker_transport_options["visibility_timeout"] = float(os.environ["TEST_VISIBILITY"])
    app.conf.broker_transport_options["unacked_restore_interval"] = 0.2


@app.task(name="test.plain")
def plain(text: str) -> str:
    """Stand for somebody's own plain Celery task."""
    return text.upper()
